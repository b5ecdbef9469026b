"""The learning-rate finder: what it trains, when it stops, what it suggests and what it leaves."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpdl
from xpdl import Network, Trainer, plots
from xpdl.backends import get_backend
from xpdl.errors import ArgumentError, DivergenceError, NonFiniteError, ShapeError, UnknownNameError
from xpdl.layers import Affine, BatchNormalization, Convolution, Dropout, Normalize, ReLU
from xpdl.losses import IdentityWithLoss
from xpdl.optimizers import SGD, Adam, Momentum
from xpdl.tuning import RateSweep, find_learning_rate
from xpdl.tuning.learning_rate import _around, _until_divergence


def net(**options):
    layers = [Affine(12), BatchNormalization(), ReLU(), Dropout(0.2), Affine(3)]
    return Network(layers, (2,), **options)


def corners(n=90, seed=0):
    """Return points (N, 2) around three corners, and which corner each is near."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) % 3
    places = np.array([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return (places[t] + 0.5 * rng.standard_normal((n, 2))).astype("float32"), t


def sweep_of(losses, smoothed=None, diverged=False):
    rates = tuple(10.0**i for i in range(-6, len(losses) - 6))
    return RateSweep("a title", rates, tuple(losses), tuple(smoothed or losses), diverged)


def host(backend, arrays):
    return {name: backend.to_numpy(a) for name, a in arrays.items()}


# ---- what it does ------------------------------------------------------------------------------


def test_a_bowl_has_the_losses_of_its_formula(backend):
    """Of L = (w1^2 + w2^2 / 100) / 4 each step leaves (1 - rate/2) w1 and (1 - rate/200) w2."""
    network = Network([Affine(1, weight_init=1.0, bias=False)], (2,), loss=IdentityWithLoss())
    network.params["affine1.W"] = 3.0
    x = backend.asarray(np.array([[1.0, 0.0], [0.0, 0.1]], "float32"))
    t = backend.asarray(np.zeros((2, 1), "float32"))
    sweep = find_learning_rate(
        network, (x, t), optimizer=SGD(7.0), batch_size=2, low=0.01, high=100.0, steps=41
    )
    w, losses = np.array([3.0, 3.0]), []
    for i in range(41):
        losses.append((w[0] ** 2 + w[1] ** 2 / 100) / 4)
        rate = 0.01 * 10 ** (i / 10)
        w *= [1 - rate / 2, 1 - rate / 200]
    assert sweep.diverged
    n = len(sweep.rates)
    np.testing.assert_allclose(sweep.rates, [0.01 * 10 ** (i / 10) for i in range(n)], rtol=1e-12)
    np.testing.assert_allclose(sweep.losses, losses[:n], rtol=1e-3)
    means = [np.mean(losses[max(0, i - 2) : i + 1]) for i in range(41)]
    assert n == 1 + next(i for i in range(41) if means[i] > 4 * min(means[: i + 1])) < 41
    middle = [np.median(sweep.losses[max(0, i - 1) : i + 2]) for i in range(n)]
    smoothed = [np.mean(middle[max(0, i - 1) : i + 2]) for i in range(n)]
    np.testing.assert_allclose(sweep.smoothed, smoothed, rtol=1e-12)
    assert 0.1 < sweep.suggestion < sweep.lowest
    assert 2 < sweep.lowest < sweep.rates[-1]  # beyond rate 4, w1 grows


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_learns_as_the_trainer_does(backend, dtype):
    """At one rate, which hardly rises, its losses are those of the first epoch of a training."""
    data, rate, found = corners(), 0.05, []
    for frozen in ((), ("affine1", "norm1")):
        network = net(seed=3, dtype=dtype)
        if frozen:
            network.freeze(*frozen)
        sweep = find_learning_rate(
            network, data, optimizer="momentum", batch_size=9, low=rate,
            high=rate * (1 + 1e-12), steps=10, seed=5,
        )  # fmt: skip
        trainer = Trainer(
            network, data, optimizer=Momentum(rate), batch_size=9, epochs=1, seed=5,
            progress=False,
        )  # fmt: skip
        np.testing.assert_allclose(sweep.losses, trainer.fit().losses, rtol=1e-6)
        found.append(sweep.losses)
    assert found[0] != found[1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_it_suggests_a_rate_that_learns(backend, dtype):
    network, data = net(dtype=dtype), corners()
    sweep = find_learning_rate(network, data, optimizer="sgd", batch_size=15, steps=120)
    assert 1e-3 < sweep.suggestion < sweep.lowest <= 10
    assert len(sweep.rates) == len(sweep.losses) == len(sweep.smoothed) <= 120
    assert all(type(rate) is float for rate in (*sweep.rates, *sweep.losses, *sweep.smoothed))
    trainer = Trainer(
        network, data, optimizer=SGD(sweep.suggestion), epochs=12, batch_size=15, progress=False
    )
    assert trainer.fit().epochs[-1].train_accuracy > 0.9


def test_one_seed_one_sweep(backend):
    def sweep(seed, on=backend):
        with xpdl.use_backend(on):
            return find_learning_rate(net(), corners(), batch_size=20, steps=20, seed=seed)

    assert sweep(1) == sweep(1)
    assert sweep(1) != sweep(2)
    expected = sweep(1, get_backend("generic"))
    np.testing.assert_allclose(sweep(1).losses[:10], expected.losses[:10], rtol=1e-4)


def test_pixels_stay_bytes_and_pictures_are_augmented(backend):
    rng = np.random.default_rng(0)
    x, t = rng.integers(0, 256, (40, 1, 6, 6)).astype("uint8"), rng.integers(0, 3, 40)
    network = Network([Normalize(255), Convolution(2, 3), ReLU(), Affine(3)], (1, 6, 6))
    seen = []

    def darker(batch, generator):
        assert batch.dtype == "float32"
        assert 0.5 < backend.item(batch.max()) <= 1
        seen.append(generator.random((), "float32"))
        return 0 * batch

    sweep = find_learning_rate(network, (x, t), batch_size=20, steps=10, high=1e-5, augment=darker)
    assert len(seen) == 10
    # Of black pictures the untrained network, whose biases are 0, knows nothing.
    assert sweep.losses[0] == pytest.approx(math.log(3), rel=1e-5)


# ---- what it leaves ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_network_and_optimizer_are_left_to_the_bit(backend, dtype):
    network, (x, t) = net(dtype=dtype), corners()
    optimizer = Adam(0.003, weight_decay=0.01)
    trainer = Trainer(network, (x, t), optimizer=optimizer, epochs=1, batch_size=20, progress=False)
    trainer.fit()
    arrays, grads = host(backend, network.arrays()), host(backend, network.grads)
    state = optimizer.state_dict()
    x = backend.asarray(x)
    sweep = find_learning_rate(network, (x, t), optimizer=optimizer, batch_size=20, steps=30)
    assert len(sweep.losses) > 10
    for name, array in host(backend, network.arrays()).items():
        np.testing.assert_array_equal(array, arrays[name], err_msg=name)
    for name, array in host(backend, network.grads).items():
        np.testing.assert_array_equal(array, grads[name], err_msg=name)
    now = optimizer.state_dict()
    assert (now["iteration"], now["learning_rate"]) == (state["iteration"], 0.003)
    for slot, memory in state["state"].items():
        for name, array in memory.items():
            np.testing.assert_array_equal(now["state"][slot][name], array, err_msg=name)
    # What comes next, such as the masks of dropout, is what would have come.
    twin = net(dtype=dtype)
    Trainer(twin, (x, t), optimizer=Adam(0.003, weight_decay=0.01), epochs=1, batch_size=20,
            progress=False).fit()  # fmt: skip
    for other in (network, twin):
        other.gradient(x, backend.asarray(t))
    np.testing.assert_array_equal(
        backend.to_numpy(network.grads.buffer), backend.to_numpy(twin.grads.buffer)
    )


def test_what_was_learnt_before_counts(backend):
    """The sweep goes on from the network and from the optimizer's memory as they are."""
    network = Network([Affine(1, weight_init=1.0, bias=False)], (1,), loss=IdentityWithLoss())
    network.params["affine1.W"] = 1.0
    x = backend.asarray(np.ones((10, 1), "float32"))
    optimizer = Momentum(0.5, momentum=0.5)
    optimizer.update(network.params, network.gradient(x, 0 * x))  # w = 0.5, v = -0.5
    sweep = find_learning_rate(
        network, (x, 0 * x), optimizer=optimizer, batch_size=10, low=1e-9, high=1e-8, steps=10
    )
    w, v, losses = 0.5, -0.5, []
    for _ in range(10):
        losses.append(w * w / 2)
        v *= 0.5
        w += v
    kept = len(sweep.losses)
    np.testing.assert_allclose(sweep.losses, losses[:kept], rtol=1e-4, atol=1e-9)
    assert kept > 2


# ---- where it stops ----------------------------------------------------------------------------


def test_it_stops_at_four_times_the_best():
    assert _until_divergence([4.0, 2.0, 1.0, 2.0, 3.0, 4.0, 5.0], 1) == (7, True)
    assert _until_divergence([4.0, 2.0, 1.0, 2.0, 3.0, 4.0], 1) == (6, False)
    assert _until_divergence([1.0, 9.0, 1.0, 1.0], 3) == (2, True)  # a mean of 5
    assert _until_divergence([1.0, 1.0, 1.0, 9.0, 1.0], 3) == (5, False)  # a mean of 11/3
    assert _until_divergence([1.0, math.nan, 1.0], 3) == (1, True)
    assert _until_divergence([1.0, math.inf], 3) == (1, True)
    assert _until_divergence([math.nan], 3) == (0, True)


def test_it_stops_soon_and_reads_seldom(monkeypatch):
    with xpdl.use_backend("strict") as strict:
        data = tuple(strict.asarray(a) for a in corners(40))
        calls = []
        read = type(strict).to_numpy
        monkeypatch.setattr(
            type(strict), "to_numpy", lambda self, a: calls.append(a.shape) or read(self, a)
        )
        network = net()
        calls.clear()
        sweep = find_learning_rate(network, data, optimizer="sgd", batch_size=20, steps=60)
        losses = [shape for shape in calls if shape in ((10,), (1,))]
        assert len(losses) == math.ceil(len(sweep.losses) / 10)


def test_a_gpu_captures_its_step(backend, monkeypatch):
    if not backend.compiles:
        pytest.skip(f"{backend.name} is a CPU")
    captured = []
    capture = type(backend).capture
    monkeypatch.setattr(
        type(backend), "capture", lambda *args: captured.append(None) or capture(*args)
    )
    find_learning_rate(net(), corners(60), batch_size=20, steps=20, high=1e-3)
    assert len(captured) == 1


def test_a_loss_that_is_not_finite_from_the_first(backend):
    network = net()
    network.params["affine2.W"] = math.inf
    with pytest.raises(DivergenceError, match=r"the loss is (nan|inf) before anything is trained"):
        find_learning_rate(network, corners(), steps=10)


# ---- what is to be seen in it ------------------------------------------------------------------


def test_the_suggestion_is_where_it_falls_most():
    sweep = sweep_of([3.0, 2.9, 2.5, 1.5, 1.2, 1.3, 0.5 + 5, 9.0])
    assert sweep.suggestion == 1e-4  # of slopes -0.1, -0.25, -0.7, -0.65, -0.3
    assert sweep.lowest == pytest.approx(1e-2)
    assert sweep_of([3.0, 1.0, 0.9, 5.0, 1.0]).suggestion == 1e-6  # a steeper fall comes too late


@pytest.mark.parametrize(
    "losses",
    [
        [1.0],
        [1.0, 2.0],
        [1.0, 1.0, 1.0],
        [1.0, 2.0, 4.0],
        [1.0, 0.99, 0.97, 0.96, 2.0],
        [0.0, 0.0, 0.0],
    ],
)
def test_where_the_loss_does_not_fall_there_is_no_suggestion(losses):
    assert sweep_of(losses).suggestion is None
    assert "steepest" not in sweep_of(losses).table()
    assert sweep_of(losses).chart().axes[0].lines


def test_a_middle_of_what_is_around():
    assert _around([1.0, 9.0, 2.0, 3.0], 1, sorted) == [
        [1.0, 9.0], [1.0, 2.0, 9.0], [2.0, 3.0, 9.0], [2.0, 3.0],
    ]  # fmt: skip


def test_spikes_and_the_end_do_not_move_the_suggestion():
    """Half a wave down from 2 to 1 in the middle of the sweep; then it explodes."""
    n = 160
    clean = [1.5 + 0.5 * math.cos(math.pi * min(1.0, max(0.0, (i - 60) / 40))) for i in range(n)]
    noise = np.random.default_rng(0).standard_normal(n)
    losses = [loss + 0.03 * float(e) for loss, e in zip(clean, noise, strict=True)]
    losses[20] = losses[50] = 40.0
    losses[140:] = [1.5**i for i in range(20)]
    smoothed = _around(_around(losses, 5, np.median), 5, np.mean)
    rates = tuple(10 ** (i / 20 - 6) for i in range(n))
    sweep = RateSweep("", rates, tuple(losses), tuple(map(float, smoothed)), True)
    assert rates[70] < sweep.suggestion < rates[90]
    assert rates[95] < sweep.lowest < rates[140]


def test_the_table_shows_some_steps_and_what_stands_out():
    losses = [2.0] * 40 + [2.0 - i / 20 for i in range(20)] + [1.0 + i / 10 for i in range(40)]
    sweep = RateSweep("", tuple(1e-6 * 1.1**i for i in range(100)), *[tuple(losses)] * 2, False)
    head, *lines = sweep.table().splitlines()
    assert head.split() == ["rate", "loss", "smoothed"]
    assert 10 <= len(lines) <= 20
    steep = [line for line in lines if line.endswith("steepest")]
    low = [line for line in lines if line.endswith("lowest")]
    assert [float(line.split()[0]) for line in steep] == [pytest.approx(sweep.suggestion, rel=1e-2)]
    assert [float(line.split()[0]) for line in low] == [pytest.approx(sweep.lowest, rel=1e-2)]
    assert float(lines[0].split()[0]) == 1e-6
    assert float(lines[-1].split()[1]) == pytest.approx(losses[-1])
    rates = [float(line.split()[0]) for line in lines]
    assert rates == sorted(rates)


def test_the_chart_shows_losses_and_the_suggestion():
    sweep = sweep_of([3.0, 2.0, 1.5, 8.0], [3.0, 2.4, 1.6, 4.0])
    (axes,) = sweep.chart().axes
    step, smooth, mark = axes.lines
    np.testing.assert_array_equal(step.get_ydata(), sweep.losses)
    np.testing.assert_array_equal(smooth.get_ydata(), sweep.smoothed)
    np.testing.assert_array_equal(step.get_xdata(), sweep.rates)
    assert set(mark.get_xdata()) == {sweep.suggestion}
    assert axes.get_xscale() == "log"
    low, high = axes.get_ylim()
    assert low < 1.6 < 4.0 < high < 8.0  # a single step may lie outside
    assert len(plots.rate_curve([1.0], [2.0], [2.0]).axes[0].lines) == 2


@pytest.mark.parametrize(
    "bad",
    [
        ([], [], []),
        ([1.0, 2.0], [1.0], [1.0]),
        ([[1.0]], [[1.0]], [[1.0]]),
        ([0.0, 1.0], [1.0, 1.0], [1.0, 1.0]),
    ],
)
def test_a_chart_of_nonsense_is_refused(bad):
    with pytest.raises(ArgumentError, match="rates, losses and smoothed must be"):
        plots.rate_curve(*bad)


# ---- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"low": 0.0}, ArgumentError, "low must be a number above 0, got 0"),
        ({"low": math.nan}, ArgumentError, "low"),
        ({"low": 1.0, "high": 1.0}, ArgumentError, "high must be a number above 1, got 1"),
        ({"high": math.inf}, ArgumentError, "high"),
        ({"steps": 9}, ArgumentError, "steps must be an int of at least 10, got 9"),
        ({"batch_size": 0}, ArgumentError, "batch_size"),
        ({"batch_size": {0: 10, 2: 20}}, ArgumentError, "batch_size must be an int"),
        ({"optimizer": "adm"}, UnknownNameError, "adam"),
        ({"seed": -1}, ArgumentError, "seed"),
        ({"augment": 3}, ArgumentError, "augment"),
        ({"train": (np.ones((3, 5)), np.zeros(3, int))}, ShapeError, "x must be"),
        ({"train": (np.ones((3, 2)), np.full(3, 7))}, ArgumentError, "class numbers 0 to 2"),
        ({"train": (np.full((3, 2), np.nan), np.zeros(3, int))}, NonFiniteError, "x holds NaN"),
        ({"network": "DeepConvNet"}, ArgumentError, "network must be a Network"),
    ],
)
def test_bad_arguments(options, kind, words):
    arguments = {"network": net(), "train": corners()} | options
    with pytest.raises(kind, match=words):
        find_learning_rate(**arguments)
