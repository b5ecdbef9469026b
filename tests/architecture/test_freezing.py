"""Frozen layers: they stay as they are, whatever trains, and the others learn as they would."""

from __future__ import annotations

import copy
import itertools
import json
import math
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
from promised import assert_as_promised

import xpdl
from xpdl import Network, Trainer, gradient_check
from xpdl.errors import ArgumentError, ModelFileError, UnknownNameError
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Flatten,
    Layer,
    MaxPooling,
    ReLU,
    Residual,
    Sequential,
    Tanh,
)
from xpdl.optimizers import BY_NAME, SGD, Adam, Momentum, get_optimizer, gradient_norm
from xpdl.parameters import ArrayDict, Layout

BOTTOM = {"conv1", "norm1", "relu1", "pool1"}


def net(**options):
    layers = [
        *(Convolution(3, 3, pad=1), BatchNormalization(), ReLU(), MaxPooling(2)),
        *(Affine(6), BatchNormalization(), ReLU(), Dropout(0.2), Affine(4)),
    ]
    return Network(layers, (2, 6, 6), **options)


def data(backend, n=30, dtype="float32"):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((n, 2, 6, 6)).astype(dtype), rng.integers(0, 4, n)
    x[np.arange(n), :, t] += 2
    return backend.asarray(x), backend.asarray(t)


def host(backend, arrays):
    return {name: backend.to_numpy(a) for name, a in arrays.items()}


def layer_of(name):
    return name.rpartition(".")[0]


# ---- what stays and what learns ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rule", BY_NAME)
def test_what_is_frozen_stays_to_the_bit_and_the_rest_learns(backend, rule, dtype):
    network = net(dtype=dtype, weight_decay=1e-3)
    x, t = data(backend)
    optimizer = get_optimizer(
        rule, learning_rate=0.01, weight_decay=0.1, decay_all=True, clip_norm=1.0
    )
    optimizer.update(network.params, network.gradient(x, t))  # there is momentum now
    network.freeze("conv1", "norm1", "affine2")
    before = host(backend, network.arrays())
    memory = host(backend, {f"{s}{n}": a for s, d in optimizer.state.items() for n, a in d.items()})
    for _ in range(3):
        optimizer.update(network.params, network.gradient(x, t))
    for name, array in host(backend, network.arrays()).items():
        same = np.array_equal(array, before[name])
        assert same == (layer_of(name) in {"conv1", "norm1", "affine2"}), name
    for slot, arrays in optimizer.state.items():
        for name, array in arrays.items():
            if layer_of(name) in network.frozen:
                np.testing.assert_array_equal(backend.to_numpy(array), memory[f"{slot}{name}"])
    for name, gradient in network.grads.items():
        assert backend.to_numpy(gradient).any() == (layer_of(name) not in network.frozen), name
    compute = host(backend, network.parameters.compute)
    for name, array in host(backend, network.params).items():
        np.testing.assert_array_equal(compute[name], array.astype(compute[name].dtype))


@pytest.mark.parametrize("rule", BY_NAME)
def test_the_others_learn_as_if_they_were_alone(backend, rule):
    """A rule over their arrays by themselves, given as a plain dictionary, does the same."""
    network = net()
    network.freeze("norm1", "affine1")
    optimizer, alone = (get_optimizer(rule, learning_rate=0.02) for _ in range(2))
    own = {n: a.copy() for n, a in network.params.items() if layer_of(n) not in network.frozen}
    rng = np.random.default_rng(3)
    for _ in range(4):
        for gradient in network.grads.values():
            gradient[...] = backend.asarray(rng.standard_normal(gradient.shape), "float32")
        optimizer.update(network.params, network.grads)
        # What decays among them is decided by names; a plain dictionary goes by axes.
        alone.update(own, {name: network.grads[name] for name in own})
    for name, array in own.items():
        np.testing.assert_allclose(
            backend.to_numpy(network.params[name]), backend.to_numpy(array), rtol=2e-6, atol=1e-7
        )


@pytest.mark.parametrize("blocked", [True, False])
def test_frozen_gradients_do_not_count_when_clipping(backend, blocked):
    network = net()
    network.freeze("conv", "affine1")
    learning = [name for name in network.params if layer_of(name) not in network.frozen]
    rng = np.random.default_rng(4)
    for name, gradient in network.grads.items():
        size = 1.0 if name in learning else 1e6  # as if somebody had put them there
        gradient[...] = backend.asarray(size * rng.standard_normal(gradient.shape), "float32")
    grads, before = host(backend, network.grads), host(backend, network.params)
    norm = math.sqrt(sum((grads[name].astype("float64") ** 2).sum() for name in learning))
    assert backend.item(gradient_norm(network.grads)) == pytest.approx(norm, rel=1e-6)
    given = network.grads if blocked else dict(network.grads)
    SGD(1.0, clip_norm=0.5).update(network.params, given)
    for name, array in host(backend, network.params).items():
        step = 0.5 / norm * grads[name] if name in learning else 0
        np.testing.assert_allclose(array, before[name] - step, rtol=1e-5, atol=1e-6)


def test_the_networks_own_decay_leaves_frozen_weights(backend):
    plain, decayed = net(dtype="float64"), net(dtype="float64", weight_decay=0.3)
    x, t = data(backend, dtype="float64")
    for network in (plain, decayed):
        network.freeze("affine1")
        network.gradient(x, t)
    gap = backend.item(decayed.loss(x, t)) - backend.item(plain.loss(x, t))
    weights = [a for name, a in host(backend, decayed.params).items() if name.endswith("W")]
    assert gap == pytest.approx(0.15 * sum((W**2).sum() for W in weights))  # of all, as ever
    for name in plain.params:
        extra = backend.to_numpy(decayed.grads[name]) - backend.to_numpy(plain.grads[name])
        decays = name in ("conv1.W", "affine2.W")
        expected = 0.3 * backend.to_numpy(decayed.params[name]) if decays else 0
        np.testing.assert_allclose(extra, np.broadcast_to(expected, extra.shape), atol=1e-12)


def test_a_frozen_normalisation_computes_as_at_inference(backend, rng):
    network = Network([Convolution(3, 3), BatchNormalization(), Affine(4)], (2, 6, 6))
    x, t = data(backend)
    for name, values in (("running_mean", rng.random(3)), ("running_var", 1 + rng.random(3))):
        network.state[f"norm1.{name}"][...] = backend.asarray(values, "float32")
    with_the_batch = backend.item(network.loss(x, t, train=True))
    expected = backend.item(network.loss(x, t))
    assert with_the_batch != pytest.approx(expected, rel=1e-3)
    network.freeze("norm1")
    assert backend.item(network.loss(x, t, train=True)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "frozen",
    [(), ("norm1",), ("norm1", "norm2"), ("conv1",), ("affine1", "norm2"), ("conv2", "norm1")],
)
def test_gradients_are_right_beside_what_is_frozen(backend, frozen):
    layers = [
        *(Convolution(2, 3), BatchNormalization(), Tanh(), Convolution(2, 2), Tanh()),
        *(Affine(3), BatchNormalization(), Tanh(), Affine(3)),
    ]
    network = Network(layers, (1, 4, 4), dtype="float64", weight_decay=0.01)
    rng = np.random.default_rng(1)
    for array in network.state.values():
        array[...] = backend.asarray(0.5 + rng.random(array.shape))
    if frozen:
        network.freeze(*frozen)
    x, t = backend.asarray(rng.standard_normal((6, 1, 4, 4))), backend.asarray(np.arange(6) % 3)
    gaps = gradient_check(network, x, t, h=1e-5)
    assert list(gaps) == [name for name in network.params if layer_of(name) not in frozen]
    assert max(gaps.values()) < 1e-7
    for name, gradient in network.grads.items():
        largest = abs(backend.to_numpy(gradient)).max()
        if layer_of(name) in frozen:
            assert largest == 0, name
        elif name.endswith("W"):
            assert largest > 1e-4, name


# ---- what is not computed ----------------------------------------------------------------------


class Wide(Layer):
    """A container of one's own, whose ways are its own affair: y = a(x) + b(x)."""

    kind = "wide"

    def __init__(self):
        self.a, self.b = Affine(4), Affine(4)

    def plan(self, input_shape):
        assert self.a.plan(input_shape) == self.b.plan(input_shape)
        return (4,)

    def forward(self, x, train=False):
        return self.a.forward(x, train) + self.b.forward(x, train)

    def backward(self, dout):
        return self.a.backward(dout) + self.b.backward(dout)

    def leaves(self, prefix=""):
        yield f"{prefix}.a", self.a
        yield f"{prefix}.b", self.b


def deep():
    return Network(
        [
            Affine(4), Tanh(), Residual([Affine(4), Tanh(), Sequential([Affine(4), Tanh()])]),
            Sequential({"in": Affine(4), "curve": Tanh()}), Wide(), Affine(3),
        ],
        (4,), dtype="float64",
    )  # fmt: skip


LEARNING = [
    "affine1", "residual1.affine1", "residual1.block1.affine1", "block1.in", "wide1.a", "wide1.b",
    "affine2",
]  # fmt: skip


def test_whatever_is_frozen_the_others_gradients_are_as_ever():
    with xpdl.use_backend("numpy") as backend:
        rng = np.random.default_rng(2)
        x, t = rng.standard_normal((5, 4)), rng.integers(0, 3, 5)
        network = deep()
        assert list(dict.fromkeys(layer_of(name) for name in network.params)) == LEARNING
        whole = host(backend, network.gradient(x, t))
        for size in range(len(LEARNING) + 1):
            for frozen in itertools.combinations(LEARNING, size):
                network.unfreeze()
                if frozen:
                    network.freeze(*frozen)
                assert network.frozen == frozen
                for name, gradient in network.gradient(x, t).items():
                    expected = 0 * whole[name] if layer_of(name) in frozen else whole[name]
                    np.testing.assert_allclose(gradient, expected, atol=1e-15, err_msg=name)


def backward_calls(network, backend, x, t):
    """Return which leaves were asked for a gradient."""
    asked = set()

    def watch(name, call):
        return lambda dout: asked.add(name) or call(dout)

    leaves = dict(network.body.leaves())
    for name, leaf in leaves.items():
        vars(leaf)["backward"] = watch(name, leaf.backward)
    try:
        network.gradient(x, t)
    finally:
        for leaf in leaves.values():
            del vars(leaf)["backward"]
    return asked


@pytest.mark.parametrize(
    ("frozen", "asked"),
    [
        ((), {"affine1", "tanh1", "residual1", "block1", "wide1", "affine2"}),
        (("affine1",), {"residual1", "block1", "wide1", "affine2"}),
        (("affine1", "residual1"), {"block1", "wide1", "affine2"}),
        (("affine1", "residual1", "block1"), {"wide1", "affine2"}),
        (("affine1", "residual1", "block1", "wide1.a"), {"wide1", "affine2"}),
        (("affine1", "residual1", "block1", "wide1"), {"affine2"}),
        (("affine1", "residual1", "block1", "wide1", "affine2"), set()),
        (("affine2",), {"affine1", "tanh1", "residual1", "block1", "wide1", "affine2"}),
    ],
)
def test_backward_ends_at_the_first_layer_that_learns(backend, frozen, asked):
    network = deep()
    x = backend.asarray(np.ones((2, 4)))
    if frozen:
        network.freeze(*frozen)
    calls = backward_calls(network, backend, x, backend.asarray(np.array([0, 1])))
    if network.backend.name == "numpy" and "wide1" in asked:
        assert "wide1.a" in calls
    assert {name.split(".")[0] for name in calls} == asked


class Around(Sequential):
    """A block of one's own that adds its input itself: y = x + f(x)."""

    def forward(self, x, train=False):
        return x + super().forward(x, train)

    def backward(self, dout):
        return dout + super().backward(dout)


def test_a_block_of_ones_own_gets_all_that_it_may_want(backend):
    x, t = backend.asarray(np.ones((2, 3))), backend.asarray(np.array([0, 1]))
    gradients = []
    for block in (Around, Residual):
        network = Network(
            {"first": block([Affine(3), Tanh(), Affine(3)]), "out": Affine(2)}, (3,),
            dtype="float64",
        )  # fmt: skip
        network.freeze("first.affine1")
        gradients.append(host(backend, network.gradient(x, t)))
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradient, gradients[1][name], atol=1e-15)
        assert gradient.any() == (name not in ("first.affine1.W", "first.affine1.b"))


def test_the_first_layer_that_learns_is_not_asked_for_more(backend):
    network = deep()
    leaves = dict(network.body.leaves())
    network.freeze("affine1", "residual1.affine1")
    network.gradient(backend.asarray(np.ones((2, 4))), backend.asarray(np.array([0, 1])))
    inner = leaves["residual1.block1.affine1"]
    assert inner.backward(backend.asarray(np.ones((2, 4)))) is None
    assert leaves["block1.in"].backward(backend.asarray(np.ones((2, 4)))).shape == (2, 4)
    network.unfreeze()
    network.gradient(backend.asarray(np.ones((2, 4))), backend.asarray(np.array([0, 1])))
    assert inner.backward(backend.asarray(np.ones((2, 4)))).shape == (2, 4)
    assert leaves["affine1"].backward(backend.asarray(np.ones((2, 4)))) is None


def test_a_product_whose_gradient_nobody_wants_is_not_made(backend, monkeypatch):
    network = Network([Flatten(), Affine(5), Tanh(), Affine(3)], (1, 2, 2))
    products, within = [], []
    matmul = type(backend).matmul

    def counted(*arguments, **options):
        if not within:  # one product may be made by another
            products.append(None)
        within.append(None)
        try:
            return matmul(*arguments, **options)
        finally:
            within.pop()

    monkeypatch.setattr(type(backend), "matmul", counted)
    x, t = backend.asarray(np.ones((2, 1, 2, 2)), "float32"), backend.asarray(np.array([0, 1]))
    counts = []
    for frozen in ((), ("affine1",), ("affine2",), ("affine1", "affine2")):
        network.unfreeze()
        if frozen:
            network.freeze(*frozen)
        products.clear()
        network.gradient(x, t)
        counts.append(len(products))
    assert counts == [2 + 3, 2 + 1, 2 + 2, 2]  # forward, and dW, dx, dW of which some are left out


def test_with_all_frozen_there_is_a_loss_and_nothing_to_update(backend):
    network = net()
    x, t = data(backend)
    network.freeze("conv", "norm", "affine")
    loss, scores = network.forward_backward(x, t)
    assert math.isfinite(backend.item(loss))
    assert scores.shape == (30, 4)
    assert not backend.to_numpy(network.grads.buffer).any()
    with pytest.raises(ArgumentError, match=r"all parameters are frozen.*network\.unfreeze"):
        SGD(0.1).update(network.params, network.grads)
    with pytest.raises(ArgumentError, match="all parameters are frozen"):
        Trainer(network, (x, t), epochs=1, progress=False).fit()


# ---- Adam's count ------------------------------------------------------------------------------


def adam(p, gradients, rate=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """Return what Adam makes of one number, in float64; its first gradient is its first update."""
    m = v = 0.0
    for n, g in enumerate(gradients, start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        p -= rate * (m / (1 - beta1**n)) / (math.sqrt(v / (1 - beta2**n)) + epsilon)
    return p


FREEZING = [  # the layers that are frozen at each of ten updates
    {"affine1", "affine2"}, {"affine1", "affine2"}, {"affine1"}, set(), set(),
    {"affine2"}, {"affine2"}, {"affine1"}, set(), set(),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("saved", [None, 2, 4, 6, 9])
def test_adam_counts_each_parameters_own_updates(backend, dtype, on_device, saved):
    """Corrected by the count of all, the first steps of one that wakes late would be too long."""
    network = Network([Affine(2), Affine(2), Affine(2)], (2,), dtype=dtype)
    optimizer, starts = Adam(0.1), host(backend, network.params)
    met = {name: [] for name in network.params}
    rng = np.random.default_rng(6)

    def steps(first, last):
        for frozen in FREEZING[first:last]:
            network.unfreeze()
            if frozen:
                network.freeze(*frozen)
            for name, gradient in network.grads.items():
                values = rng.standard_normal(gradient.shape).astype("float32")
                gradient[...] = backend.asarray(values)
                if layer_of(name) not in frozen:
                    met[name].append(values)
            optimizer.update(network.params, network.grads)

    def train(first, last):
        clock = optimizer.time_kept_on(backend, network.precision.parameters)
        with clock if on_device else nullcontext():
            steps(first, last)

    if saved is None:
        train(0, 10)
    else:
        train(0, saved)
        state = optimizer.state_dict()
        arrays = state.pop("state")
        state = json.loads(json.dumps(state)) | {"state": arrays}  # as a checkpoint keeps it
        optimizer = Adam(0.1)
        optimizer.load_state_dict(state)
        train(saved, 10)
    assert optimizer.iteration == 10
    for name, array in host(backend, network.params).items():
        for place in np.ndindex(array.shape):
            expected = adam(float(starts[name][place]), [float(g[place]) for g in met[name]])
            assert array[place] == pytest.approx(expected, rel=1e-4, abs=1e-5), name
    assert [len(met[f"affine{i}.W"]) for i in (1, 2, 3)] == [6, 6, 10]


def test_counts_are_kept_only_where_they_differ(backend):
    network, optimizer = Network([Affine(2), Affine(2)], (2,)), Adam()
    optimizer.update(network.params, network.grads)
    network.freeze("affine1")
    assert "counts" not in optimizer.state_dict()
    for _ in range(2):
        optimizer.update(network.params, network.grads)
    assert optimizer.state_dict()["counts"] == {"affine1.W": 1, "affine1.b": 1}
    network.unfreeze()
    optimizer.update(network.params, network.grads)
    assert optimizer.state_dict()["counts"] == {"affine1.W": 2, "affine1.b": 2}
    assert optimizer.settings() == Adam().settings()
    momentum = Momentum()
    network.freeze("affine1")
    momentum.update(network.params, network.grads)
    assert "counts" not in momentum.state_dict()  # it asks for none


@pytest.mark.parametrize(
    "counts", [[1], {"affine1.W": -1}, {"affine1.W": 2}, {"affine1.W": 0.5}, {"affine1.W": True}]
)
def test_damaged_counts_are_refused(counts):
    network, optimizer = Network([Affine(2)], (2,)), Adam()
    optimizer.update(network.params, network.grads)
    with pytest.raises(ModelFileError, match="counts of updates"):
        Adam().load_state_dict(optimizer.state_dict() | {"counts": counts})


def test_counts_of_foreign_parameters_are_refused():
    network, optimizer, other = Network([Affine(2)], (2,)), Adam(), Adam()
    optimizer.update(network.params, network.grads)
    other.load_state_dict(optimizer.state_dict() | {"counts": {"affine9.W": 1}})
    with pytest.raises(ModelFileError, match=r"counts updates of affine9\.W"):
        other.update(network.params, network.grads)


# ---- in a training -----------------------------------------------------------------------------


def thaw(trainer, epoch):
    trainer.network.unfreeze("norm1" if epoch.number == 0 else "conv1")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_layers_thaw_in_a_training_captured_or_not(backend, dtype):
    """A captured step is made anew in each epoch, with what is frozen then."""
    x, t = data(backend)
    left = []
    for capture in (True, False):
        network = net(dtype=dtype)
        start = host(backend, network.arrays())
        network.freeze("conv1", "norm1")
        seen = []

        def keep(trainer, epoch, seen=seen):
            seen.append(host(backend, trainer.network.arrays()))

        Trainer(
            network, (x, t), epochs=3, batch_size=5, progress=False, capture=capture,
            callbacks=[keep, thaw],
        ).fit()  # fmt: skip
        for name, array in seen[0].items():
            assert np.array_equal(array, start[name]) == (layer_of(name) in ("conv1", "norm1"))
        for name, array in seen[1].items():
            assert np.array_equal(array, seen[0][name]) == (layer_of(name) == "conv1"), name
        for name, array in seen[2].items():
            assert not np.array_equal(array, seen[1][name]), name
        left.append(seen[-1])
    assert_as_promised(backend, *left, dtype)


# ---- names -------------------------------------------------------------------------------------


def many():
    layers = {
        **{f"conv{i}": Affine(2) for i in (1, 2, 10)},
        "stage": Sequential({"conv1": Affine(2), "norm1": BatchNormalization(), "relu": ReLU()}),
        "stage2": Affine(2),
        "out": Affine(2),
    }
    return Network(layers, (2,))


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        (["conv1"], ["conv1"]),  # and not conv10
        (["conv"], ["conv1", "conv2", "conv10"]),
        (["stage"], ["stage.conv1", "stage.norm1"]),  # the block, and not stage2
        (["sta"], ["stage.conv1", "stage.norm1", "stage2"]),
        (["stage.conv"], ["stage.conv1"]),
        (["stage.conv1", "out", "conv2"], ["conv2", "stage.conv1", "out"]),
        (["stage.relu"], []),  # which has nothing to freeze
    ],
)
def test_names_and_what_they_begin_with(names, frozen):
    network = many()
    network.freeze(*names)
    assert network.frozen == tuple(frozen)
    network.freeze("out")
    network.unfreeze(*names)
    assert network.frozen == (() if "out" in names else ("out",))
    network.freeze("conv")
    network.unfreeze()
    assert network.frozen == ()


@pytest.mark.parametrize(
    "name", ["conv3", "stage.c2", "conv1.W", "", ".", "Conv1", 1, ["conv1"], None]
)
def test_an_unknown_name_changes_nothing(name):
    network = many()
    network.freeze("conv2")
    for call in (network.freeze, network.unfreeze):
        with pytest.raises(UnknownNameError, match=r"unknown layer .*conv1, conv2, conv10, stage"):
            call("conv1" if call == network.freeze else "conv2", name)
    assert network.frozen == ("conv2",)
    with pytest.raises(ArgumentError, match="names is empty"):
        network.freeze()


# ---- moves, copies, files, words ---------------------------------------------------------------


def test_copies_are_frozen_as_the_network_and_files_are_not(backend, tmp_path):
    network = net()
    network.freeze("conv1", "norm1")
    copies = {
        "deep": copy.deepcopy(network),
        "pickled": pickle.loads(pickle.dumps(network)),
        "in another type": network.astype("float64"),
        "moved": copy.deepcopy(network).to(backend.name),
    }
    for what, other in copies.items():
        assert other.frozen == ("conv1", "norm1"), what
        start = host(backend, other.params)
        decaying = Momentum(0.1, weight_decay=0.1, decay_all=True)
        decaying.update(other.params, other.gradient(*data(backend)))
        for name, array in host(backend, other.params).items():
            same = np.array_equal(array, start[name])
            assert same == (layer_of(name) in other.frozen), (what, name)
        other.unfreeze()
    assert network.frozen == ("conv1", "norm1")
    network.save(tmp_path / "m")
    assert xpdl.load(tmp_path / "m").frozen == ()
    assert network.config() == net().config()


def test_an_optimizer_goes_on_with_a_network_that_was_moved(backend):
    """Its memory is laid out as the network was, before other layers were frozen."""
    network, optimizer = net(), Momentum(0.1)
    x, t = data(backend)
    optimizer.update(network.params, network.gradient(x, t))
    network.to(backend.name)
    network.freeze("conv1")
    before = host(backend, network.params)
    optimizer.update(network.params, network.gradient(x, t))
    for name, array in host(backend, network.params).items():
        assert np.array_equal(array, before[name]) == (layer_of(name) == "conv1")


def test_the_summary_says_what_is_frozen():
    network = net()
    plain = network.summary()
    assert "frozen" not in plain
    network.freeze("conv1", "norm1", "relu1")
    lines = network.summary().splitlines()
    count = 3 * 2 * 3 * 3 + 3 + 2 * 3
    assert f" parameters ({count} frozen), " in lines[0]
    frozen = {line.split()[0] for line in lines[1:] if line.endswith(", frozen")}
    assert frozen == {"conv1", "norm1"}
    network.unfreeze()
    assert network.summary() == plain


# ---- the layout --------------------------------------------------------------------------------

SHAPES = {
    "a.W": (3, 2, 5, 5), "a.b": (3,), "n.gamma": (33,), "n.beta": (32,), "c.W": (8, 8),
    "c.b": (1,), "d.W": (4, 9), "gate": (),
}  # fmt: skip
WEIGHTS = frozenset({"a.W", "c.W", "d.W"})


def test_blocks_hold_all_that_learns_in_as_few_pieces_as_can_be():
    layout = Layout(SHAPES, WEIGHTS)
    size = layout.size
    for count in range(len(SHAPES) + 1):
        for frozen in itertools.combinations(SHAPES, count):
            layout.freeze(frozenset(frozen))
            assert layout.frozen == set(frozen)
            taken = np.zeros(size, int)
            for run in layout.blocks.values():
                taken[run] += 1
            expected = np.zeros(size, int)
            for name in set(SHAPES) - set(frozen):
                start = layout.offsets[name]
                expected[start : start + 32 * math.ceil(math.prod(SHAPES[name]) / 32)] = 1
            np.testing.assert_array_equal(taken, expected)
            bounds = np.flatnonzero(np.diff(expected, prepend=0, append=0) == 1)
            across = expected[layout.weights_end - 1] and expected[layout.weights_end]
            assert len(layout.blocks) == len(bounds) + across  # weights and others are apart
            for name, run in layout.blocks.items():
                assert (run.stop <= layout.weights_end) == (name in layout.decayed)
                assert run.stop <= layout.weights_end or run.start >= layout.weights_end


def test_blocks_are_cut_alike_from_arrays_of_another_layout(backend):
    ours, theirs = (
        ArrayDict(layout, backend.xp.zeros(layout.size, dtype="float32"))
        for layout in (Layout(SHAPES, WEIGHTS), Layout(SHAPES, WEIGHTS))
    )
    ours.layout.freeze(frozenset({"c.W", "a.b"}))
    assert theirs.frozen == frozenset()
    for run in ours.runs().values():
        theirs.buffer[run] = 1.0
    for name, array in theirs.items():
        filled = backend.to_numpy(array).any()
        assert filled == (name not in ("c.W", "a.b")), name


def test_backward_follows_what_forward_did(backend):
    """Not the flag as it is by then."""
    norm = BatchNormalization()
    norm.build((3,), np.random.default_rng(0))
    x, dout = (backend.asarray(np.random.default_rng(i).random((5, 3), np.float32)) for i in (1, 2))
    norm.forward(x + 1, train=True)
    norm.frozen = True
    norm.forward(x, train=True)
    norm.frozen = False
    expected = backend.to_numpy(dout / backend.xp.sqrt(norm.state["running_var"] + norm.epsilon))
    np.testing.assert_allclose(backend.to_numpy(norm.backward(dout)), expected, rtol=1e-5)
