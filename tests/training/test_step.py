"""A step of training: what it does, what it is equal to, what it refuses to do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Network, Step
from xpdl.backends import Backend
from xpdl.errors import ArgumentError, ShapeError
from xpdl.layers import Affine, Convolution, Dropout, ReLU, Tanh
from xpdl.losses import IdentityWithLoss, SoftmaxWithLoss
from xpdl.optimizers import SGD, Adam, Momentum
from xpdl.training import MovingAverage

ACCUMULATED = [SoftmaxWithLoss(), SoftmaxWithLoss(label_smoothing=0.1), SoftmaxWithLoss(ignored=2),
               SoftmaxWithLoss(class_weights=[0.2, 1.0, 3.0])]  # fmt: skip


def net(loss: Any = None, **options: Any) -> Network:
    layers = [Affine(6), Tanh(), Affine(3)]
    return Network(layers, 4, loss=loss, dtype="float64", weight_decay=0.01, **options)


def examples(n: int = 24) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(3)
    return rng.standard_normal((n, 4)), rng.integers(0, 3, n), rng.random(n)


def host(network: Network) -> dict[str, Any]:
    return {name: xpdl.to_numpy(a) for name, a in network.params.items()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("loss", ACCUMULATED, ids=lambda loss: str(loss.config()))
def test_parts_of_a_batch_are_the_batch(backend: Backend, loss: Any, weighted: bool) -> None:
    """Gradients over three batches, of any sizes, are those of one batch of all."""
    x, t, w = (backend.asarray(a) for a in examples())
    weights = w if weighted else None
    networks = [net(loss), net(loss)]
    whole, parts = Step(networks[0], Momentum(0.1)), Step(networks[1], Momentum(0.1), accumulate=3)
    for _ in range(3):
        whole(x, t, weights)
        for part in (slice(0, 10), slice(10, 11), slice(11, 24)):
            parts(x[part], t[part], None if weights is None else weights[part])
    for name, a in host(networks[0]).items():
        np.testing.assert_allclose(host(networks[1])[name], a, rtol=1e-12, atol=1e-13)


def test_the_last_batches_of_an_epoch_may_be_fewer(backend: Backend) -> None:
    x, t, _ = (backend.asarray(a) for a in examples())
    one, other = net(), net()
    Step(one, SGD(0.5))(x[:8], t[:8])
    step = Step(other, SGD(0.5), accumulate=4)
    step(x[:4], t[:4])
    assert not step.complete
    step(x[4:8], t[4:8], last=True)
    assert step.complete
    for name, a in host(one).items():
        np.testing.assert_allclose(host(other)[name], a, rtol=1e-12, atol=1e-13)


def test_a_trainer_that_accumulates_is_one_of_larger_batches(backend: Backend) -> None:
    x, t, w = examples(30)
    losses = []
    for size, accumulate in ((12, 1), (4, 3)):
        network = net(seed=1)
        trainer = xpdl.Trainer(network, (x, t, w), (x, t), optimizer=Adam(0.01), epochs=3,
                               batch_size=size, accumulate=accumulate, progress=False)  # fmt: skip
        history = trainer.fit()
        assert trainer.optimizer.iteration == 9
        losses.append(history.epochs[-1].test["loss"])
        assert set(history.epochs[-1].train) == {"accuracy"}
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)


def test_what_a_step_returns_is_the_callers_to_keep(backend: Backend) -> None:
    x, t, _ = (backend.asarray(a) for a in examples())
    step = Step(net(), "adam")
    kept = [step(x[i : i + 8], t[i : i + 8]) for i in (0, 8, 16, 0, 8, 16)]
    before = [(backend.item(loss), backend.to_numpy(seen).tolist()) for loss, seen in kept]
    step(x[:8], t[:8])
    assert [(backend.item(a), backend.to_numpy(b).tolist()) for a, b in kept] == before
    assert len({loss for loss, _ in before}) == 6
    assert all(seen[1] == 8 for _, seen in before)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_step_is_what_the_books_loop_does(backend: Backend, dtype: str) -> None:
    x, t, _ = examples()
    x, t = backend.asarray(x.astype("float32")), backend.asarray(t)
    with_step, by_hand = (Network([Affine(6), ReLU(), Affine(3)], 4, dtype=dtype) for _ in range(2))
    step, rule = Step(with_step, SGD(0.1)), SGD(0.1)
    for i in range(0, 24, 6):
        loss, _ = step(x[i : i + 6], t[i : i + 6])
        expected = by_hand.loss(x[i : i + 6], t[i : i + 6], train=True)
        assert backend.item(loss) == pytest.approx(backend.item(expected), rel=1e-6)
        rule.update(by_hand.params, by_hand.gradient(x[i : i + 6], t[i : i + 6]))
    tight = {"rtol": 1e-6, "atol": 1e-7} if dtype == "float32" else {"rtol": 2e-3, "atol": 1e-4}
    for name, a in host(by_hand).items():
        np.testing.assert_allclose(host(with_step)[name], a, **tight)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_loss_that_is_nan_makes_no_step(backend: Backend, dtype: str) -> None:
    """Whether or not the gradients are finite."""

    class Nan(IdentityWithLoss):
        def forward(self, x: Any, t: Any, weights: Any = None) -> Any:
            return super().forward(x, t, weights) * np.float32(np.nan)

    network = Network([Affine(2)], 3, loss=Nan(), dtype=dtype)
    before = host(network)
    step = Step(network, "adam")
    with np.errstate(all="ignore"):
        step(backend.asarray(np.ones((4, 3), "float32")), backend.asarray(np.ones((4, 2), "f4")))
    for name, a in host(network).items():
        np.testing.assert_array_equal(a, before[name])
    step.optimizer.keep_time_on_host()
    assert step.optimizer.iteration == 0


def test_what_is_frozen_or_set_acts_in_the_next_step(backend: Backend) -> None:
    """On a device the step is captured anew."""
    x, t, _ = (backend.asarray(a) for a in examples())
    network = Network([Affine(6), Tanh(), Dropout(0.5), Affine(3)], 4, dtype="float64")
    step = Step(network, SGD(0.1))
    for _ in range(4):
        step(x, t)
    network.freeze("affine1")
    before = host(network)
    step(x, t)
    after = host(network)
    assert (after["affine1.W"] == before["affine1.W"]).all()
    assert (after["affine2.W"] != before["affine2.W"]).any()
    step.optimizer.clip_norm = 1e-12
    step(x, t)
    np.testing.assert_allclose(host(network)["affine2.W"], after["affine2.W"], atol=1e-12)
    step.optimizer.clip_norm, step.optimizer.learning_rate = None, 0.0
    step(x, t)
    np.testing.assert_allclose(host(network)["affine2.W"], after["affine2.W"], atol=1e-12)
    step.optimizer.learning_rate = 0.1
    step(x, t)
    assert (host(network)["affine2.W"] != after["affine2.W"]).any()


def test_an_average_follows(backend: Backend) -> None:
    x, t, _ = (backend.asarray(a) for a in examples())
    network = net()
    average = MovingAverage(network, 0.5, warm_up=False)
    average.start()
    step = Step(network, SGD(0.1), average=average)
    expected = host(network)
    for _ in range(4):
        step(x, t)
        expected = {name: 0.5 * a + 0.5 * host(network)[name] for name, a in expected.items()}
    for name, a in average.arrays().items():
        np.testing.assert_allclose(backend.to_numpy(a), expected[name], rtol=1e-12)


def test_two_networks_that_play_against_each_other(backend: Backend) -> None:
    """A generator's gradient comes through the discriminator, which is left as it is."""
    rng = np.random.default_rng(0)
    g = Network([Affine(4), Tanh(), Affine(3)], 2, loss=IdentityWithLoss(), dtype="float64")
    d = Network([Affine(5), Tanh(), Affine(2)], 3, dtype="float64", seed=1)
    z = backend.asarray(rng.standard_normal((6, 2)))
    real = backend.asarray(np.ones(6, dtype=int))
    h, name = 1e-6, "affine1.W"

    def loss() -> float:
        return backend.item(d.loss(g.predict(z), real))

    scores = d.forward(g.forward(z, train=True), train=True)
    d.loss_layer.forward(scores, real)
    g.backward(d.backward(d.loss_layer.backward()))
    computed = backend.to_numpy(g.grads[name])
    for place in ((0, 0), (1, 3)):
        sides = []
        for sign in (1, -1):
            g.params[name][place] += sign * h
            sides.append(loss())
            g.params[name][place] -= sign * h
        assert (sides[0] - sides[1]) / (2 * h) == pytest.approx(computed[place], rel=1e-4, abs=1e-9)


@pytest.mark.usefixtures("on_numpy")
def test_what_a_step_refuses() -> None:
    with pytest.raises(ArgumentError, match="network must be a Network"):
        Step([Affine(2)])  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="accumulate must be an int"):
        Step(net(), accumulate=0)
    x, t, w = examples()
    with pytest.raises(ShapeError, match=r"x must be \(N, 4\)"):
        Step(net())(x[:, :3], t)
    with pytest.raises(ShapeError, match=r"weights must be \(24,\)"):
        Step(net())(x, t, w[:3])


def test_a_rate_that_a_callback_sets_counts(backend: Backend) -> None:
    x, t, _ = examples()
    seen: list[float] = []

    def slower(trainer: Any, epoch: Any) -> None:
        trainer.optimizer.learning_rate = trainer.optimizer.host_learning_rate() / 2

    trainer = xpdl.Trainer(net(), (x, t), optimizer=SGD(0.4), epochs=3, batch_size=8,
                           callbacks=[slower], progress=False)  # fmt: skip
    seen = [epoch.learning_rate for epoch in trainer.fit().epochs]
    assert seen == pytest.approx([0.4, 0.2, 0.1])
    assert trainer.optimizer.learning_rate == pytest.approx(0.05)
    trainer.epochs, trainer.optimizer.learning_rate = 5, 0.03
    assert trainer.fit().epochs[3].learning_rate == pytest.approx(0.03)


def test_a_callback_after_each_step(backend: Backend) -> None:
    x, t, _ = examples()
    rates: list[float] = []

    def falling(trainer: Any) -> None:
        rates.append(trainer.optimizer.host_learning_rate())
        trainer.optimizer.learning_rate = rates[-1] / 2

    network = net()
    before = host(network)
    xpdl.Trainer(network, (x, t), optimizer=SGD(0.4), epochs=2, batch_size=8,
                 step_callbacks=[falling], progress=False).fit()  # fmt: skip
    assert rates == pytest.approx([0.4 / 2**i for i in range(6)])
    assert (host(network)["affine1.W"] != before["affine1.W"]).any()


def test_patience_stops_and_brings_the_best_back(backend: Backend, tmp_path: Any) -> None:
    x, t, _ = examples()
    wrong = (t + 1) % 3  # the more it learns, the worse

    def trainer(**options: Any) -> xpdl.Trainer:
        return xpdl.Trainer(net(), (x, t), (x, t), validation=(x, wrong), optimizer=Adam(0.1),
                            epochs=20, batch_size=8, progress=False, **options)  # fmt: skip

    stopped = trainer(patience=2, checkpoint=tmp_path / "c")
    history = stopped.fit()
    found = [epoch.validation["accuracy"] for epoch in history.epochs]
    best = int(np.argmax(found))
    assert len(found) == best + 3 < 20
    assert stopped.patience.best == best
    assert stopped.network.accuracy(backend.asarray(x), backend.asarray(wrong)) == pytest.approx(
        found[best]
    )
    with pytest.raises(ArgumentError, match="patience wants validation data"):
        xpdl.Trainer(net(), (x, t), (x, t), patience=2)


def test_a_regression_is_tested_too(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3))
    t = x @ rng.standard_normal((3, 1))  # (N, 1); (N,) will do
    network = Network([Affine(1)], 3, loss=IdentityWithLoss(), dtype="float64")
    history = xpdl.Trainer(network, (x, t[:, 0]), (x, t[:, 0]), optimizer=SGD(0.3), epochs=30,
                           batch_size=20, progress=False).fit()  # fmt: skip
    last = history.epochs[-1]
    assert last.test["RMSE"] < 1e-3
    assert last.test["R²"] > 0.999
    assert last.test["loss"] == pytest.approx(last.test["RMSE"] ** 2 / 2, rel=1e-6)
    assert last.test_accuracy is None


def test_pictures_of_pixels(backend: Backend) -> None:
    """A class for each pixel, of which some are ignored."""
    rng = np.random.default_rng(0)
    x = rng.random((12, 1, 6, 6))
    t = (x[:, 0] > 0.5).astype(int)
    t[:, 0] = 255
    network = Network([Convolution(4, 1), Tanh(), Convolution(2, 1)], (1, 6, 6),
                      loss=SoftmaxWithLoss(ignored=255), dtype="float64")  # fmt: skip
    history = xpdl.Trainer(network, (x, t), (x, t), optimizer=Adam(0.05), epochs=40, batch_size=4,
                           progress=False).fit()  # fmt: skip
    assert history.epochs[-1].test["mean IoU"] > 0.9
    assert list(history.epochs[-1].train) == ["mean IoU", "pixel accuracy"]
