"""A network is a graph: branches, several inputs and outputs, networks that work together."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Input, Network
from xpdl.backends import Backend
from xpdl.errors import ArgumentError, ShapeError, UnknownNameError
from xpdl.gradient import gradient_check
from xpdl.layers import (
    Add,
    Affine,
    BatchNormalization,
    Concatenate,
    Convolution,
    Graph,
    Layer,
    MaxPooling,
    Multiply,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from xpdl.losses import HuberWithLoss, IdentityWithLoss, SoftmaxWithLoss


def inception() -> tuple[Any, Any]:
    x = Input((3, 6, 6))
    stem = Tanh()(Convolution(4, 3, pad=1)(x))
    branches = [
        Tanh()(Convolution(2, 1)(stem)),
        Tanh()(Convolution(3, 3, pad=1)(Tanh()(Convolution(2, 1)(stem)))),
        Convolution(2, 1)(MaxPooling(3, 1, 1)(stem)),
    ]
    return x, Affine(4)(Concatenate()(*branches))


def two_by_two() -> Network:
    """Return a network of two inputs and two outputs, that meet in a product."""
    a, b = Input((3,)), Input((5,))
    left, right = Tanh()(Affine(4)(a)), Tanh()(Affine(4)(b))
    both = Multiply()(left, right)
    outputs = {"class": Affine(3)(Add()(both, left)), "size": Affine(2)(both)}
    return Network(
        {"a": a, "b": b},
        outputs,
        loss={"class": SoftmaxWithLoss(), "size": HuberWithLoss()},
        loss_weights={"size": 0.3},
        dtype="float64",
    )


def data_of_two(rng: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    x = {"a": rng.standard_normal((6, 3)), "b": rng.standard_normal((6, 5))}
    return x, {"class": rng.integers(0, 3, 6), "size": rng.standard_normal((6, 2))}


def on(backend: Backend, arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: backend.asarray(a) for name, a in arrays.items()}


def test_gradients_of_branches_add_up(backend: Backend, rng: Any) -> None:
    network = Network(*inception(), dtype="float64")
    x = backend.asarray(rng.standard_normal((3, 3, 6, 6)))
    t = backend.asarray(np.array([0, 2, 3]))
    assert max(gradient_check(network, x, t).values()) < 1e-7


def test_gradients_of_two_inputs_and_two_losses(backend: Backend, rng: Any) -> None:
    network, (x, t) = two_by_two(), data_of_two(rng)
    assert max(gradient_check(network, on(backend, x), on(backend, t)).values()) < 1e-7


@pytest.mark.usefixtures("on_numpy")
def test_the_loss_is_the_weighted_sum(rng: Any) -> None:
    network, (x, t) = two_by_two(), data_of_two(rng)
    scores = network.predict(x)
    assert list(scores) == ["class", "size"]
    expected = SoftmaxWithLoss().forward(scores["class"], t["class"])
    expected += 0.3 * HuberWithLoss().forward(scores["size"], t["size"])
    assert float(network.loss(x, t)) == pytest.approx(float(expected), rel=1e-12)
    hits = scores["class"].argmax(1) == t["class"]
    assert network.accuracy(x, t) == hits.mean()  # of the first output


@pytest.mark.usefixtures("on_numpy")
def test_names_summary_files_and_copies(tmp_path: Any, rng: Any) -> None:
    network, (x, t) = two_by_two(), data_of_two(rng)
    assert [name for name in network.params if name.endswith("W")] == [
        "affine1.W", "affine2.W", "affine3.W", "affine4.W",
    ]  # fmt: skip
    assert "<- tanh1, tanh2" in network.summary()
    network.save(tmp_path / "net.safetensors")
    before = network.predict(x)
    for other in (
        xpdl.load(tmp_path / "net.safetensors"), copy.deepcopy(network), network.astype("float64"),
    ):  # fmt: skip
        after = other.predict(x)
        for name, scores in before.items():
            np.testing.assert_array_equal(after[name], scores)
        assert float(other.loss(x, t)) == float(network.loss(x, t))
    single = network.astype("float32").predict(x)
    assert all(a.dtype == np.float32 for a in single.values())


@pytest.mark.usefixtures("on_numpy")
def test_a_relu_is_joined_only_where_nothing_else_reads_the_product(rng: Any) -> None:
    x = Input((4,))
    product = Affine(5)(x)
    network = Network(x, Affine(2)(Add()(ReLU()(product), product)))
    batch = rng.standard_normal((3, 4)).astype("float32")
    found = network.activations(batch)
    expected = batch @ network.params["affine1.W"]
    np.testing.assert_allclose(found["affine1"], expected, rtol=1e-5, atol=1e-6)
    assert (found["affine1"] < 0).any()
    chain = Network([Affine(5), ReLU(), Affine(2)], 4)
    before = chain.predict(batch)
    seen = chain.activations(batch)
    assert (seen["affine1"] < 0).any()  # its own, though it computes the ReLU with it
    np.testing.assert_array_equal(seen["relu1"], np.maximum(seen["affine1"], 0))
    np.testing.assert_array_equal(chain.predict(batch), before)


def test_a_shortcut_brings_the_shapes_together(backend: Backend, rng: Any) -> None:
    block = Residual([Convolution(3, 3, 2, 1, remainder="drop"), Tanh()],
                     shortcut=Convolution(3, 1, 2, remainder="drop"))  # fmt: skip
    network = Network([block, Affine(2)], (2, 5, 5), dtype="float64")
    x, t = backend.asarray(rng.standard_normal((2, 2, 5, 5))), backend.asarray(np.array([0, 1]))
    assert max(gradient_check(network, x, t).values()) < 1e-7
    again = Network.from_config(network.config())
    assert again.params.keys() == network.params.keys()
    with pytest.raises(ShapeError, match=r"residual1.sum, with inputs .*shortcut"):
        Network([Residual([Affine(3)])], 4)


@pytest.mark.usefixtures("on_numpy")
def test_values_that_nobody_reads_any_more_are_let_go(monkeypatch: Any) -> None:
    held: list[int] = []

    class Counting(Layer):
        def forward(self, x: Any, train: bool = False) -> Any:
            held.append(sum(1 for a in alive if a() is not None))
            y = x + 1
            alive.append(weakref.ref(y))
            return y

    import weakref

    alive: list[Any] = []
    network = Network([Counting() for _ in range(6)], 3, loss=IdentityWithLoss())
    network.predict(np.ones((2, 3), "float32"))
    assert max(held) <= 1


def test_what_the_graph_refuses() -> None:
    x, other = Input((4,)), Input((4,))
    layer = Affine(3)
    with pytest.raises(ArgumentError, match="not among inputs"):
        Network(x, Add()(Affine(4)(x), other))
    with pytest.raises(ArgumentError, match="no output depends on the input 'b'"):
        Network({"a": x, "b": other}, Affine(3)(x))
    with pytest.raises(ArgumentError, match="stands there twice"):
        Network(x, Add()(layer(x), layer(x)))
    with pytest.raises(ShapeError, match=r"'middle', with input \(4,\).*images"):
        Convolution(2, 3)(x, name="middle")
    with pytest.raises(ArgumentError, match=r"call it on nodes.*layer.forward"):
        Affine(3)(np.ones((2, 4)))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="two inputs or more"):
        Add()(x)
    with pytest.raises(ArgumentError, match="wants 1 input, got 2"):
        Affine(2)(x, other)
    loop = Sequential({"a": Affine(4)})
    loop.nodes["b"] = loop, ("a",)
    with pytest.raises(ArgumentError, match="no circles"):
        Sequential([loop])
    config = Network(x, Affine(2)(Tanh()(x))).config()
    config["body"]["nodes"]["tanh1"]["reads"] = ["affine1"]
    with pytest.raises(ArgumentError, match="no circles"):
        Network.from_config(config)
    with pytest.raises(ArgumentError, match="dictionary of a, b"):
        two_by_two().predict(np.ones((2, 3)))
    with pytest.raises(UnknownNameError, match="Did you mean 'size'"):
        Network(x, {"size": Affine(2)(x)}, loss={"sise": IdentityWithLoss()})


def test_names_and_numbers_of_nodes_that_a_graph_refuses() -> None:
    x = Input((4,))
    with pytest.raises(ArgumentError, match="two nodes are called 'tanh1'"):
        Graph(x, Add()(Tanh()(x, name="tanh1"), Tanh()(x)))
    with pytest.raises(ArgumentError, match="outputs: two nodes have one name"):
        Graph(x, [Tanh()(x, name="end"), ReLU()(x, name="end")])
    a, b = Input((4,)), Input((4,))
    two = Graph([a, b], Add()(a, b))
    with pytest.raises(ArgumentError, match="Graph wants 2 inputs, got 1"):
        two(x)
    with pytest.raises(ArgumentError, match="Graph wants 2 inputs, got 1"):
        Sequential([two, Tanh()])
    with pytest.raises(ArgumentError, match="Graph wants 2 inputs, got 1"):
        two.build((4,), np.random.default_rng(0))
    assert two(x, Tanh()(x)).shape == (4,)


@pytest.mark.usefixtures("on_numpy")
def test_gradients_that_do_not_fit_are_refused_before_anything_changes() -> None:
    network = two_by_two()
    names = list(network.output_shapes)
    x = {name: np.ones((3, *shape), "f4") for name, shape in network.input_shapes.items()}
    network.forward(x, train=True)
    dout = {name: np.ones((3, *shape), "f4") for name, shape in network.output_shapes.items()}
    before = network.grads.buffer.copy()
    for wrong in (None, dout[names[1]][:2], dout[names[1]][:, :1], "text", np.array(["a"])):
        with pytest.raises(ArgumentError, match="dout must"):
            network.backward(dout | {names[1]: wrong})
    assert (network.grads.buffer == before).all()


class Wrong(Layer):
    """Gives what it did not promise."""

    options = ("how",)

    def __init__(self, how: str) -> None:
        self.how = how

    def forward(self, x: Any, train: bool = False) -> Any:
        return {"shape": x[:, :1], "type": x.astype("float64"), "list": [1.0], "fine": x}[self.how]

    def backward(self, dout: Any) -> Any:
        return dout[:, :1]


@pytest.mark.parametrize(("how", "told"), [("shape", "promised"), ("type", "float64 of float32"),
                                           ("list", "must return floats")])  # fmt: skip
@pytest.mark.usefixtures("on_numpy")
def test_a_layer_of_ones_own_is_looked_at_each_time(how: str, told: str) -> None:
    network = Network([Affine(3), Wrong(how), Affine(2)], 4)
    with pytest.raises(ArgumentError, match=f"layer1.*{told}"):
        network.predict(np.ones((2, 4), "float32"))
    fine = Network([Affine(3), Wrong("fine"), Affine(2)], 4)
    with pytest.raises(ShapeError, match="backward must return dx"):
        fine.gradient(np.ones((2, 4), "float32"), np.array([0, 1]))


def test_forward_and_backward_by_hand(backend: Backend, rng: Any) -> None:
    """A generator learns from what the discriminator sends back; its batches add up."""
    d = Network([Affine(4), Tanh(), Affine(1)], 3, loss=IdentityWithLoss(), dtype="float64")
    x = backend.asarray(rng.standard_normal((5, 3)))
    dout = backend.asarray(rng.standard_normal((5, 1)))
    d.forward(x, train=True)
    dx = backend.to_numpy(d.backward(dout))
    host, sent, h = backend.to_numpy(x), backend.to_numpy(dout), 1e-6
    for i in range(3):
        moved = [backend.asarray(host + sign * h * np.eye(3)[i]) for sign in (1, -1)]
        up, down = (backend.to_numpy(d.forward(m)) for m in moved)
        np.testing.assert_allclose(((up - down) / (2 * h) * sent).sum(1), dx[:, i], atol=1e-8)
    once = {name: backend.to_numpy(g) for name, g in d.grads.items()}
    d.forward(x, train=True)
    d.backward(dout, accumulate=True)
    for name, g in d.grads.items():
        np.testing.assert_allclose(backend.to_numpy(g), 2 * once[name], rtol=1e-12)
    first = d.gradient(x, dout)
    kept = {name: backend.to_numpy(g) for name, g in first.items()}
    d.gradient(x, 2 * dout)
    for name, g in first.items():  # arrays of its own, as the book's
        np.testing.assert_array_equal(backend.to_numpy(g), kept[name])


@pytest.mark.usefixtures("on_numpy")
def test_an_output_that_counts_nothing_has_no_gradient(rng: Any) -> None:
    network, (x, _) = two_by_two(), data_of_two(rng)
    network.grads["affine4.W"] = 7.0
    network.forward(x, train=True)
    dx = network.backward({"class": np.ones((6, 3))})
    assert set(dx) == {"a", "b"}
    assert not network.grads["affine4.W"].any()
    assert network.grads["affine3.W"].any()


def test_the_front_of_a_network(backend: Backend, rng: Any) -> None:
    network = Network(
        [
            Convolution(3, 3),
            BatchNormalization(),
            ReLU(),
            Sequential([Affine(4), Tanh()]),
            Affine(2),
        ],
        (1, 6, 6),
    )
    x = backend.asarray(rng.standard_normal((3, 1, 6, 6)).astype("float32"))
    seen = network.activations(x)
    for name in ("norm1", "relu1", "block1", "block1.affine1"):
        front = network.upto(name)
        found, right = backend.to_numpy(front.predict(x)), backend.to_numpy(seen[name])
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-6)  # one may be folded
        front.params["conv1.W"] = 0.0
    assert backend.to_numpy(network.params["conv1.W"]).any()  # of its own
    tuned = Network({"front": network.upto("block1").as_layer(), "head": Affine(7)}, (1, 6, 6))
    np.testing.assert_array_equal(
        backend.to_numpy(tuned.activations(x)["front"]), backend.to_numpy(seen["block1"])
    )
    with pytest.raises(UnknownNameError, match="norm1"):
        network.upto("norm2")


@pytest.mark.usefixtures("on_numpy")
def test_what_is_written_into_a_network_is_copied_into_place() -> None:
    network = Network([Affine(3), BatchNormalization(), Affine(2)], 4, dtype="float16")
    place = network.state["norm1.running_var"]
    network.state["norm1.running_var"] = np.full(3, 4.0, "float32")
    assert network.state["norm1.running_var"] is place
    assert (network.leaves()["norm1"].state["running_var"] == 4).all()
    with pytest.raises(ShapeError, match="running_var has the shape"):
        network.state["norm1.running_var"] = np.ones(5)
    network.leaves()["affine1"].params["b"] = np.full(3, 0.5, "float32")
    assert (network.params["affine1.b"] == 0.5).all()
    network.parameters.refresh()
    assert (network.leaves()["affine1"].params["b"] == 0.5).all()


def test_a_layer_of_ones_own_that_forgets(tmp_path: Any) -> None:
    class Scale(Layer):
        def __init__(self, scale: float = 1.0) -> None:  # neither options nor super().__init__
            self.scale = scale

        def forward(self, x: Any, train: bool = False) -> Any:
            return x * self.scale

    with pytest.raises(ArgumentError, match=r"options = \('scale',\)"):
        Scale(5.0)

    class Told(Scale):
        options = ("scale",)

        def __init__(self, scale: float = 1.0) -> None:
            self.scale = scale

    network = Network([Affine(2), Told(5.0)], 3)
    network.save(tmp_path / "net")
    del Layer.classes["Told"]
    with pytest.raises(xpdl.errors.ModelFileError, match="imported before its file is read"):
        xpdl.load(tmp_path / "net")


def test_graphs_are_layers_too(rng: Any) -> None:
    graph = Graph(*inception())
    assert graph.plan((3, 6, 6)) == (4,)
    a, b = Input((2,)), Input((2,))
    with pytest.raises(ArgumentError, match="dictionary of x1, x2"):
        Network(Graph([a, b], Add()(a, b)), (2,))
