"""A network: its contract, its checks, its moves."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Network
from xpdl.backends import Backend, get_backend
from xpdl.errors import (
    ArgumentError,
    BackendMismatchError,
    DTypeError,
    NonFiniteError,
    ShapeError,
    XpdlError,
)
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    MaxPooling,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
)
from xpdl.losses import IdentityWithLoss, Loss, SoftmaxWithLoss
from xpdl.models import (
    MODELS,
    DeepConvNet,
    MultiLayerNet,
    NormalizedConvNet,
    SimpleConvNet,
    TwoLayerNet,
    make_model,
)
from xpdl.optimizers import SGD, Adam
from xpdl.precision import Precision

Array = np.ndarray[Any, Any]


def tiny(**options: Any) -> Network:
    """Return a network with one of everything that has parameters or state."""
    layers = [
        Convolution(3, 3, pad=1),
        BatchNormalization(),
        ReLU(),
        MaxPooling(2),
        Affine(6),
        ReLU(),
        Dropout(0.3),
        Affine(4),
    ]
    return Network(layers, (2, 6, 6), **options)


def data(backend: Backend, n: int = 7, seed: int = 0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2, 6, 6)).astype("float32")
    t = rng.integers(0, 4, n)
    x[np.arange(n), :, t] += 3  # the class is the bright row
    return backend.asarray(x), backend.asarray(t)


def test_the_books_own_loop_learns(backend: Backend) -> None:
    network, optimizer = tiny(), SGD(0.1)
    x, t = data(backend, 40)
    first = backend.item(network.loss(x, t))
    for _ in range(100):
        optimizer.update(network.params, network.gradient(x, t))
    assert backend.item(network.loss(x, t)) < 0.5 * first
    assert network.accuracy(x, t) > 0.9


def test_names_order_and_shapes_of_parameters() -> None:
    network = tiny()
    assert list(network.params) == [
        "conv1.W", "conv1.b", "norm1.gamma", "norm1.beta",
        "affine1.W", "affine1.b", "affine2.W", "affine2.b",
    ]  # fmt: skip
    assert network.params["conv1.W"].shape == (3, 2, 3, 3)
    assert network.params["affine1.W"].shape == (27, 6)
    assert list(network.grads) == list(network.params)
    assert list(network.state) == ["norm1.running_mean", "norm1.running_var"]


def test_nested_names() -> None:
    network = Network([Affine(4), Residual([Affine(4), Sequential({"last": Affine(4)})])], (3,))
    assert [name for name in network.params if name.endswith("W")] == [
        "affine1.W",
        "residual1.affine1.W",
        "residual1.block1.last.W",
    ]


def test_every_backend_starts_from_the_same_numbers(backend: Backend) -> None:
    with xpdl.use_backend("generic"):
        expected = {name: a.copy() for name, a in tiny(seed=3).params.items()}
    for name, array in tiny(seed=3).params.items():
        np.testing.assert_array_equal(backend.to_numpy(array), expected[name])
    assert (backend.to_numpy(tiny(seed=4).params["conv1.W"]) != expected["conv1.W"]).any()


def test_backends_agree_on_a_step(backend: Backend) -> None:
    """The CPU's fast path, the rehearsal and the textbook give one answer."""

    def step(on: Backend) -> dict[str, Array]:
        with xpdl.use_backend(on):
            network, (x, t) = tiny(dtype="float64"), data(on)
            loss, scores = network.forward_backward(x, t)
            found = {name: on.to_numpy(a) for name, a in network.grads.items()}
            return {**found, "scores": on.to_numpy(scores), "loss": np.float64(on.item(loss))}

    expected = step(get_backend("generic"))
    for name, array in step(backend).items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_loss_is_the_mean_cross_entropy_of_predict(backend: Backend) -> None:
    network, (x, t) = tiny(), data(backend)
    scores = backend.to_numpy(network.predict(x)).astype("float64")
    exp = np.exp(scores)
    p = exp / exp.sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(7), backend.to_numpy(t)]).mean()
    assert backend.item(network.loss(x, t)) == pytest.approx(expected, rel=1e-5)
    one_hot = backend.asarray(np.eye(4)[backend.to_numpy(t)])
    assert backend.item(network.loss(x, one_hot)) == pytest.approx(expected, rel=1e-5)


def test_loss_stays_on_the_device_in_float32(backend: Backend) -> None:
    loss = tiny().loss(*data(backend))
    assert loss.shape == ()
    assert loss.dtype == np.float32


def test_accuracy_counts_the_last_partial_batch(backend: Backend) -> None:
    network, (x, t) = tiny(), data(backend, 7)
    hits = backend.to_numpy(network.predict(x)).argmax(axis=1) == backend.to_numpy(t)
    assert network.accuracy(x, t, batch_size=3) == pytest.approx(hits.mean())
    one_hot = backend.asarray(np.eye(4, dtype="float32")[backend.to_numpy(t)])
    assert network.accuracy(x, one_hot, batch_size=3) == pytest.approx(hits.mean())


def test_activations_are_what_each_layer_makes(backend: Backend, rng: Any) -> None:
    network = Network([Affine(4), ReLU(), BatchNormalization(), Affine(3), Sigmoid()], 5)
    x = rng.standard_normal((6, 5)).astype("float32")
    outputs = network.activations(backend.asarray(x))
    assert list(outputs) == ["affine1", "relu1", "norm1", "affine2", "sigmoid1"]
    w1, w2 = (
        backend.to_numpy(network.params[f"{name}.W"]).astype("float64")
        for name in ("affine1", "affine2")
    )
    hidden = np.maximum(x @ w1, 0)  # biases are 0 at first, running statistics 0 and 1
    expected = {"relu1": hidden, "norm1": hidden, "affine2": hidden @ w2}
    expected["sigmoid1"] = 1 / (1 + np.exp(-expected["affine2"]))
    for name, y in expected.items():
        assert outputs[name].dtype == "float32"
        np.testing.assert_allclose(backend.to_numpy(outputs[name]), y, rtol=1e-5, atol=1e-5)


def test_predict_in_parts_is_predict_whole(backend: Backend) -> None:
    network, (x, _) = tiny(dtype="float64"), data(backend, 7)
    whole, parts = network.predict(x, batch_size=100), network.predict(x, batch_size=2)
    np.testing.assert_allclose(backend.to_numpy(parts), backend.to_numpy(whole), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_dtypes_do_not_drift(backend: Backend, dtype: str) -> None:
    network, (x, t) = tiny(dtype=dtype), data(backend)
    loss, scores = network.forward_backward(x, t)
    wide = "float64" if dtype == "float64" else "float32"
    assert scores.dtype == network.predict(x).dtype == dtype
    assert loss.dtype == wide
    assert {str(a.dtype) for a in network.params.values()} == {wide}
    assert {str(a.dtype) for a in network.grads.values()} == {wide}
    Adam().update(network.params, network.grads)
    assert {str(a.dtype) for a in network.params.values()} == {wide}
    assert network.predict(x.astype("float64")).dtype == dtype


def test_half_precision_layers_see_an_updated_parameter(backend: Backend) -> None:
    network, (x, _) = tiny(dtype="float16"), data(backend)
    before = backend.to_numpy(network.predict(x))
    network.params["affine2.b"] = backend.asarray([5.0, 0, 0, 0], "float32")
    after = backend.to_numpy(network.predict(x))
    np.testing.assert_allclose(after[:, 0], before[:, 0] + 5, atol=0.02)


def test_inputs_are_not_changed(backend: Backend) -> None:
    network, (x, t) = tiny(), data(backend)
    before = backend.to_numpy(x), backend.to_numpy(t)
    network.gradient(x, t)
    network.predict(x)
    network.accuracy(x, t)
    np.testing.assert_array_equal(backend.to_numpy(x), before[0])
    np.testing.assert_array_equal(backend.to_numpy(t), before[1])


def test_weight_decay_is_in_the_loss_and_in_the_gradient(backend: Backend) -> None:
    x, t = data(backend)
    plain, decayed = tiny(dtype="float64"), tiny(dtype="float64", weight_decay=0.1)
    weights = [a for name, a in plain.params.items() if name.endswith(".W")]
    penalty = 0.05 * sum(float((backend.to_numpy(w) ** 2).sum()) for w in weights)
    gap = backend.item(decayed.loss(x, t)) - backend.item(plain.loss(x, t))
    assert gap == pytest.approx(penalty)
    plain.gradient(x, t), decayed.gradient(x, t)
    for name, p in plain.params.items():
        extra = backend.to_numpy(decayed.grads[name]) - backend.to_numpy(plain.grads[name])
        expected = 0.1 * backend.to_numpy(p) if name.endswith(".W") else 0.0
        np.testing.assert_allclose(extra, np.broadcast_to(expected, extra.shape), atol=1e-12)


def test_the_scale_is_on_the_gradients_only(backend: Backend) -> None:
    x, t = data(backend)
    one, eight = tiny(dtype="float64"), tiny(dtype="float64")
    loss_one, _ = one.forward_backward(x, t)
    loss_eight, _ = eight.forward_backward(x, t, 8.0)
    assert backend.item(loss_one) == backend.item(loss_eight)
    for name in one.grads:
        np.testing.assert_allclose(
            backend.to_numpy(eight.grads[name]), 8 * backend.to_numpy(one.grads[name]), rtol=1e-12
        )


def test_regression(backend: Backend, rng: Any) -> None:
    network = Network([Affine(2)], (3,), loss=IdentityWithLoss(), dtype="float64")
    x, t = (backend.asarray(rng.standard_normal((5, k))) for k in (3, 2))
    y = backend.to_numpy(network.predict(x))
    expected = 0.5 * ((y - backend.to_numpy(t)) ** 2).sum() / 5
    assert backend.item(network.loss(x, t)) == pytest.approx(expected)


def test_given_arrays_start_the_network(backend: Backend, rng: Any) -> None:
    W, b = rng.standard_normal((3, 2)), rng.standard_normal(2)
    network = Network([Affine(backend.asarray(W), backend.asarray(b))], (3,), dtype="float64")
    np.testing.assert_array_equal(backend.to_numpy(network.params["affine1.W"]), W)
    np.testing.assert_array_equal(backend.to_numpy(network.params["affine1.b"]), b)


def test_to_moves_all_and_astype_copies(backend: Backend) -> None:
    network, (x, t) = tiny(), data(backend)
    network.gradient(x, t)  # changes the running statistics
    expected = backend.to_numpy(network.predict(x))
    double = network.astype("float64")
    assert double.predict(x).dtype == "float64"
    np.testing.assert_allclose(backend.to_numpy(double.predict(x)), expected, atol=1e-5)
    assert network.precision.name == "float32"
    assert network.to("generic") is network
    host = network.predict(backend.to_numpy(x))
    np.testing.assert_allclose(host, expected, atol=1e-5)
    network.to(backend)
    np.testing.assert_array_equal(backend.to_numpy(network.predict(x)), expected)


def test_summary_counts_and_shapes() -> None:
    text = DeepConvNet().summary(batch_size=50)
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert "123,552 parameters" in text  # 160+2320+4640+9248+18496+36928+51250+510
    assert "32 x 16 x 16" in lines["conv4"]
    assert "9,248" in lines["conv4"]
    assert "51,250" in lines["affine1"]
    assert "batch of 50" in text


BAD_INPUT: dict[str, tuple[Any, Any, type[Exception], list[str]]] = {
    "flat images": (np.zeros((3, 72)), [0, 1, 2], ShapeError, ["x", "(3, 72)", "reshape"]),
    "another size": (np.zeros((3, 2, 5, 5)), [0, 1, 2], ShapeError, ["x", "(N, 2, 6, 6)"]),
    "one image": (np.zeros((2, 6, 6)), [0], ShapeError, ["(2, 6, 6)"]),
    "no images": (np.zeros((0, 2, 6, 6)), np.zeros(0, int), ArgumentError, ["x is empty"]),
    "too few labels": (np.zeros((3, 2, 6, 6)), [0, 1], ShapeError, ["t", "(3,)", "(2,)"]),
    "float labels": (np.zeros((3, 2, 6, 6)), [0.0, 1.0, 2.0], DTypeError, ["t", "float64"]),
}


@pytest.mark.parametrize("call", ["loss", "gradient", "accuracy"])
@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named(backend: Backend, case: str, call: str) -> None:
    x, t, kind, words = BAD_INPUT[case]
    with pytest.raises(kind) as caught:
        getattr(tiny(), call)(backend.asarray(x), backend.asarray(t))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("name", ["numpy", "generic"])
def test_values_are_checked_on_the_host(name: str) -> None:
    with xpdl.use_backend(name):
        network, (x, t) = tiny(), data(get_backend())
        bad = t.copy()
        bad[2] = 4
        with pytest.raises(ArgumentError, match=r"0 to 3, got 4 at index 2"):
            network.loss(x, bad)
        bad[2] = -1
        with pytest.raises(ArgumentError, match="got -1"):
            network.gradient(x, bad)
        x[5, 1, 0, 0] = np.nan
        with pytest.raises(NonFiniteError, match="example 5"):
            network.predict(x)


def test_weights_below_0_are_refused(on_numpy: None) -> None:
    x, t = data(get_backend())
    with pytest.raises(ArgumentError, match="weights must be at least 0, got -1"):
        tiny().loss(x, t, np.array([1.0, -1, 1, 1, 1, 1, 1]))


def test_on_a_device_a_bad_label_gives_nan_and_not_another_class() -> None:
    with xpdl.use_backend("strict") as strict:
        network, (x, t) = tiny(), data(strict)
        t[2] = 4
        assert np.isnan(strict.item(network.loss(x, t)))


def test_arrays_of_another_backend_are_refused(backend: Backend) -> None:
    network = tiny()
    other = get_backend("strict" if backend.xp is np else "numpy")
    x, t = data(other)
    with pytest.raises(BackendMismatchError, match=r"x and the network Network.*asarray"):
        network.predict(x)
    with pytest.raises(BackendMismatchError, match="t and the network"):
        network.loss(data(backend)[0], t)
    assert network.predict(backend.to_numpy(data(backend)[0]).tolist()).shape == (7, 4)


def test_bad_networks() -> None:
    for make, words in (
        (lambda: Network([], (3,)), "layers is empty"),
        (lambda: Network([Affine(3)], ()), "input_shape"),
        (lambda: Network([Affine(3)], (0,)), "input_shape"),
        (lambda: Network([Affine(3)], "abc"), "input_shape"),
        (lambda: Network([Affine(1)], (3,)), "SigmoidWithLoss"),
        (lambda: Network([Affine(3)], (3,), weight_decay=-1), "weight_decay"),
        (lambda: Network([Affine(3)], (3,), dtype="int8"), "dtype"),
        (lambda: Network([ReLU(), Convolution(2, 9)], (1, 5, 5)), "conv1"),
        (lambda: tiny().predict(np.zeros((1, 2, 6, 6)), batch_size=0), "batch_size"),
    ):
        with xpdl.use_backend("numpy"), pytest.raises(XpdlError, match=words):
            make()


@pytest.mark.parametrize("name", list(MODELS)[:5])  # those of section 8.2 have tests of their own
def test_models_take_a_step(backend: Backend, name: str, rng: Any) -> None:
    network = make_model(name)
    assert network.name == name
    x = backend.asarray(rng.random((4, *network.input_shape)), "float32")
    t = backend.asarray([3, 1, 4, 1])
    before = backend.item(network.loss(x, t, train=True))
    optimizer = SGD(0.1)
    for _ in range(20):
        optimizer.update(network.params, network.gradient(x, t))
    assert backend.item(network.loss(x, t)) < before


def test_the_books_networks_have_the_books_shapes() -> None:
    deep = {name: a.shape for name, a in DeepConvNet().params.items() if name.endswith("W")}
    assert list(deep.values()) == [
        (16, 1, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3),
        (64, 64, 3, 3), (1024, 50), (50, 10),
    ]  # fmt: skip
    assert list(DeepConvNet().body.layers)[-1] == "dropout2"
    assert list(DeepConvNet(drop_scores=False).body.layers)[-1] == "affine2"
    simple = [a.shape for a in SimpleConvNet().params.values()]
    assert simple == [(30, 1, 5, 5), (30,), (4320, 100), (100,), (100, 10), (10,)]
    assert [a.shape for a in TwoLayerNet().params.values()] == [(784, 50), (50,), (50, 10), (10,)]
    assert abs(xpdl.to_numpy(TwoLayerNet().params["affine1.W"]).std() - 0.01) < 2e-4


def test_the_normalized_network_is_the_deep_one_wider() -> None:
    wide = NormalizedConvNet(widths=(8, 12, 20), dropout_ratio=0.3, output_size=4)
    weights = [a.shape for name, a in wide.params.items() if name.endswith("W")]
    assert weights == [
        (8, 1, 3, 3), (8, 8, 3, 3), (12, 8, 3, 3), (12, 12, 3, 3), (20, 12, 3, 3), (20, 20, 3, 3),
        (320, 4),
    ]  # fmt: skip
    kinds = [layer.kind for layer in wide.body.layers.values()]
    assert kinds == 3 * [*(2 * ["conv", "norm", "relu"]), "pool"] + ["dropout", "affine"]
    deep = [layer.pad for layer in DeepConvNet().body.layers.values() if layer.kind == "conv"]
    assert [layer.pad for layer in wide.body.layers.values() if layer.kind == "conv"] == deep
    assert "dropout1" not in NormalizedConvNet(widths=[8, 12, 20]).body.layers


@pytest.mark.parametrize("widths", [(8, 12), "abc", 8, (8, 0, 8)])
def test_widths_that_do_not_serve(widths: Any) -> None:
    with pytest.raises(ArgumentError, match=r"widths|filters"):
        NormalizedConvNet(widths=widths)


def test_options_of_multi_layer_net() -> None:
    network = MultiLayerNet(
        (8,), [5, 4], 3, activation="sigmoid", use_batchnorm=True, dropout_ratio=0.2
    )
    assert list(network.body.layers) == [
        "affine1", "norm1", "sigmoid1", "dropout1", "affine2", "norm2", "sigmoid2", "dropout2",
        "affine3",
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match="DeepConvNet"):
        make_model("deepconvnet", no_such_option=1)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_is_alive(backend: Backend, copier: Any) -> None:
    network, (x, t) = tiny(), data(backend)
    network.gradient(x, t)
    twin = copier(network)
    np.testing.assert_array_equal(
        backend.to_numpy(twin.predict(x)), backend.to_numpy(network.predict(x))
    )
    before = backend.item(twin.loss(x, t))
    for _ in range(30):
        SGD(0.1).update(twin.params, twin.gradient(x, t))
    assert backend.item(twin.loss(x, t)) < before
    assert backend.item(network.loss(x, t)) == before


def test_numbers_of_numpy_are_sizes_too() -> None:
    layers = [Convolution(np.int64(2), np.int64(3), stride=np.int32(1)), Affine(np.int64(3))]  # type: ignore[call-overload,arg-type]
    assert Network(layers, (np.int64(1), 6, 6), seed=np.int64(3)).output_shape == (3,)  # type: ignore[arg-type]


def test_parameters_by_the_books_names_say_what_they_are_called() -> None:
    with pytest.raises(KeyError, match=r"unknown parameter 'W1'; the choices are affine1\.W"):
        TwoLayerNet().params["W1"]
    assert "W1" not in TwoLayerNet().params


def test_a_choice_that_cannot_be_had_does_not_matter_to_arrays(monkeypatch: Any) -> None:
    import xpdl.backends as backends

    monkeypatch.setattr(backends, "_default", None)
    monkeypatch.setattr(backends, "_main_choice", None)
    monkeypatch.setenv("XPDL_BACKEND", "nonsense")
    assert backends.backend_of(np.zeros(3)).name == "numpy"


def test_layers_that_stood_elsewhere_compute_as_they_stand_now(backend: Backend, rng: Any) -> None:
    """A ReLU that was joined to the product before it is joined no more."""
    conv, relu = Convolution(3, 3), ReLU()
    with pytest.raises(ShapeError, match="conv2"):
        Network([conv, relu, Convolution(1, 9)], (1, 6, 6))
    network = Network([conv, BatchNormalization(), relu, Affine(2)], (1, 6, 6))
    fresh = Network([Convolution(3, 3), BatchNormalization(), ReLU(), Affine(2)], (1, 6, 6))
    x = backend.asarray(rng.standard_normal((4, 1, 6, 6)).astype("float32"))
    for one, other in zip(
        network.activations(x).values(), fresh.activations(x).values(), strict=True
    ):
        np.testing.assert_array_equal(backend.to_numpy(one), backend.to_numpy(other))


def test_a_regression_has_no_accuracy(backend: Backend) -> None:
    network = Network([Affine(1)], 3, loss=IdentityWithLoss(), name="Line")
    with pytest.raises(ArgumentError, match="Line does not tell classes apart"):
        network.accuracy(backend.xp.ones((2, 3), "float32"), backend.xp.ones((2, 1), "float32"))


@pytest.mark.parametrize("target", [1000.3, 1e5])
def test_a_regression_in_half_precision_takes_its_difference_in_single(
    backend: Backend, target: float
) -> None:
    loss = IdentityWithLoss()
    x = backend.asarray([[1000.5]], dtype="float16")
    value = loss.forward(x, backend.asarray([[target]], dtype="float32"))
    difference = 1000.5 - float(np.float32(target))
    assert backend.item(value) == pytest.approx(difference**2 / 2, rel=1e-3)
    dx = loss.backward(backend.asarray(np.float32(0.25)))
    assert dx.dtype == np.float16
    assert backend.item(dx[0, 0]) == pytest.approx(difference / 4, rel=1e-3)


def test_a_loss_of_xpdl_is_not_replaced_by_one_of_its_name() -> None:
    with pytest.raises(ArgumentError, match="there is a loss SoftmaxWithLoss in xpdl"):
        type("SoftmaxWithLoss", (Loss,), {})
    assert Loss.classes["SoftmaxWithLoss"] is SoftmaxWithLoss


def test_masks_are_told_of_the_backend_that_drew_them() -> None:
    """Arrays of "generic" are NumPy's: the active backend computes, and draws."""
    x, t = np.ones((3, 4), "float32"), np.array([0, 1, 0])
    with xpdl.use_backend("numpy"):
        network = Network([Dropout(0.5), Affine(2)], 4).to("generic")
        before = network.random_state()
        network.forward_backward(x, t)
        after = network.random_state()
        assert after != before
        network.forward_backward(x, t)
        second = network.random_state()
        network.reseed(0)
        network.set_random_state(after)
        network.forward_backward(x, t)
        assert network.random_state() == second


def test_what_a_layer_learnt_on_its_own_it_brings_along(backend: Backend, rng: Any) -> None:
    norm = BatchNormalization()
    norm.build((3,), np.random.default_rng(0))
    norm.forward(backend.asarray(rng.random((8, 3)).astype("float32")), train=True)
    learnt = {name: backend.to_numpy(a).copy() for name, a in norm.state.items()}
    network = Network([norm, Affine(2)], 3)
    for name, a in learnt.items():
        assert (a != {"running_mean": 0, "running_var": 1}[name]).any()
        np.testing.assert_array_equal(backend.to_numpy(network.state[f"norm1.{name}"]), a)


def test_a_float_policy_of_ones_own_is_not_saved_under_a_name(tmp_path: Any) -> None:
    single = np.dtype("float32")
    mine = Precision("float16", single, single, single)
    network = Network([Affine(2)], 3, dtype=mine)
    assert network.predict(xpdl.asarray(np.ones((1, 3), "float32"))).dtype == single
    for use in (copy.deepcopy, lambda network: network.save(tmp_path / "network")):
        with pytest.raises(ArgumentError, match="a float policy of its own"):
            use(network)
    assert list(tmp_path.iterdir()) == []


def test_statistics_are_not_of_a_single_number(backend: Backend) -> None:
    norm = BatchNormalization()
    norm.build((3,), np.random.default_rng(0))
    one = backend.asarray([[1.0, 2.0, 3.0]], dtype="float32")
    with pytest.warns(UserWarning, match="one number of each feature"):
        norm.forward(one, train=True)
    norm.forward(one, train=True)  # once is enough
    for name, value in (("running_mean", 0), ("running_var", 1)):
        assert (backend.to_numpy(norm.state[name]) == value).all()
    norm.forward(backend.asarray([[1.0, 2.0, 3.0]] * 2, dtype="float32"), train=True)
    np.testing.assert_allclose(backend.to_numpy(norm.state["running_mean"]), [0.1, 0.2, 0.3], 1e-6)
