"""A step that comes to NaN or infinity is never made, and what is done then is as was asked."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Network, Trainer
from xpdl.backends import Backend
from xpdl.errors import DivergenceError, UnknownNameError
from xpdl.layers import Affine, BatchNormalization, Dropout, ReLU, Residual
from xpdl.losses import IdentityWithLoss
from xpdl.models import DeepConvNet
from xpdl.optimizers import SGD
from xpdl.training.divergence import explain
from xpdl.training.progress import Progress
from xpdl.training.tally import Tally

X = np.random.default_rng(4).standard_normal((60, 5)).astype("float32")
T = (X[:, 0] > 0).astype("int64")
BAD = 3  # the step, of 12 an epoch, that comes to infinity


def make(bad: int | None = BAD, value: float = 3e38, **options: Any) -> Trainer:
    """Return the trainer of a training in whose epoch 0 a batch overflows; None is for none."""
    layers = [Affine(8), BatchNormalization(), ReLU(), Dropout(0.2), Affine(2)]
    network = Network(layers, (5,), dtype=options.pop("dtype", "float32"))
    usual: dict[str, Any] = {
        "optimizer": "adam",
        "epochs": 2,
        "batch_size": 5,
        "average": 0.9,
        "progress": False,
    }
    trainer = Trainer(network, (X, T), **usual | options)
    if bad is not None:
        trainer.feeding.augment = Overflow(bad, value)
    return trainer


class Overflow:
    """An augmentation that makes the pictures of one step of a training as large as `value`."""

    def __init__(self, step: int, value: float) -> None:
        self.step, self.value, self.seen = step, value, -1

    def __call__(self, x: Any, generator: Any) -> Any:
        self.seen += 1
        return x + self.value if self.seen == self.step else x

    def __repr__(self) -> str:
        return "Overflow"


def arrays(trainer: Trainer) -> dict[str, Any]:
    to_numpy = trainer.network.backend.to_numpy
    average = {} if trainer.average is None else trainer.average.arrays()
    memory = trainer.optimizer.state_dict()
    return (
        {name: to_numpy(a).tolist() for name, a in trainer.network.arrays().items()}
        | {f"average {name}": to_numpy(a).tolist() for name, a in average.items()}
        | {f"{s} {n}": a.tolist() for s, of in memory["state"].items() for n, a in of.items()}
        | {"iteration": memory["iteration"]}
    )


def until(steps: int, **options: Any) -> Trainer:
    """Return the trainer of a training without the bad batch, interrupted after `steps` steps."""
    trainer = make(None, **options)
    trainer.feeding.augment = Stop(trainer, steps)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    return trainer


class Stop:
    def __init__(self, trainer: Trainer, after: int) -> None:
        self.trainer, self.left = trainer, after

    def __call__(self, x: Any, generator: Any) -> Any:
        self.left -= 1
        if not self.left:
            self.trainer.interrupt()
        return x

    def __repr__(self) -> str:
        return "Stop"


# ---- the three ways


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_it_stops_with_all_as_it_was_before(tmp_path: Path, value: float) -> None:
    for name in ("numpy", "numba", "generic"):
        with xpdl.use_backend(name):
            trainer = make(value=value, checkpoint=tmp_path / name)
            with pytest.raises(DivergenceError, match=rf"diverged at step {BAD}: .*Use a lower"):
                trainer.fit()
            assert arrays(trainer) == arrays(until(BAD))


def test_a_device_stops_when_it_is_looked_at(backend: Backend, tmp_path: Path) -> None:
    """With every other step made, and none that is not finite."""
    trainer = make(checkpoint=tmp_path / "checkpoint")
    with pytest.raises(DivergenceError, match=f"diverged at step {BAD}: "):
        trainer.fit()
    assert all(np.isfinite(a).all() for a in arrays(trainer).values())
    assert trainer.steps_of_epoch == (12 if backend.compiles else BAD + 1, 12)


def test_a_stopped_training_goes_on_with_the_next_batch(backend: Backend, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(DivergenceError):
        make(checkpoint=path).fit()
    again = make(bad=99, checkpoint=path)
    again.fit()
    skipping = make(on_divergence="skip")
    skipping.fit()
    assert arrays(again) == arrays(skipping)
    assert again.history.as_dict()["losses"] == skipping.history.as_dict()["losses"]


def test_a_skipped_step_is_not_made_and_is_told(backend: Backend) -> None:
    trainer = make(on_divergence="skip")
    history = trainer.fit()
    assert [math.isfinite(loss) for loss in history.losses] == [i != BAD for i in range(24)]
    assert history.epochs[0].skipped_steps == 1
    assert history.epochs[1].skipped_steps == 0
    assert history.epochs[0].loss == pytest.approx(np.nanmean(history.losses[:12]))
    assert history.as_dict()["losses"][BAD] is None
    assert trainer.optimizer.iteration == 23
    assert type(history).from_dict(history.as_dict()).as_dict() == history.as_dict()


def test_reduce_lr_goes_on_at_half_the_rate(backend: Backend, tmp_path: Path) -> None:
    trainer = make(on_divergence="reduce-lr", optimizer=SGD(0.1), checkpoint=tmp_path / "c")
    history = trainer.fit()
    assert trainer.rate_factor == 0.5
    assert history.epochs[1].learning_rate == pytest.approx(0.05)
    assert trainer.optimizer.learning_rate == 0.1
    again = make(bad=99, optimizer=SGD(0.1), checkpoint=tmp_path / "c", epochs=3)
    assert again.fit().epochs[2].learning_rate == pytest.approx(0.05)  # it is remembered


@pytest.mark.parametrize("way", ["skip", "reduce-lr"])
def test_it_stops_in_any_case_when_no_step_can_be_made(backend: Backend, way: str) -> None:
    trainer = make(on_divergence=way, epochs=9)
    trainer.feeding.augment = lambda x, generator: 0 * x + 3e38
    before = arrays(trainer)
    with pytest.raises(DivergenceError, match="diverged at step"):
        trainer.fit()
    assert 49 <= len(trainer.history.losses) + (trainer.steps_of_epoch or (0, 0))[0] <= 72
    after = arrays(trainer)
    assert after["affine1.W"] == before["affine1.W"]
    assert after["iteration"] == 0


def test_gradients_are_looked_at_too(backend: Backend) -> None:
    """A loss that is finite, with a gradient that is not."""

    class Steep(IdentityWithLoss):
        def backward(self, dout: Any = 1.0) -> Any:
            return super().backward(dout) * math.inf

    network = Network([Affine(3)], (5,), loss=Steep())
    trainer = Trainer(network, (X, np.ones((60, 3), "float32")), progress=False)
    before = backend.to_numpy(network.params["affine1.W"])
    words = "the gradient of affine1.[Wb] is|finite"
    with pytest.raises(DivergenceError, match=words):
        trainer.fit()
    np.testing.assert_array_equal(backend.to_numpy(network.params["affine1.W"]), before)


def test_half_precision_tells_a_loss_that_is_not_finite(backend: Backend) -> None:
    with pytest.raises(DivergenceError, match=f"at step {BAD}: "):
        make(dtype="float16", value=6e4).fit()
    history = make(dtype="float16", value=6e4, on_divergence="skip").fit()
    assert history.epochs[0].skipped_steps == 1


def test_on_divergence_is_one_of_three() -> None:
    with pytest.raises(UnknownNameError, match=r"on_divergence 'skipp'.*Did you mean 'skip'"):
        make(on_divergence="skipp")


def test_what_was_not_made_is_said(capsys: Any) -> None:
    make(on_divergence="skip", progress=True).fit()
    out, err = capsys.readouterr()
    assert err == f"the training diverged at step {BAD}, which was not made\n"
    assert out.splitlines()[0].endswith("1 step skipped")
    assert "skipped" not in out.splitlines()[1]
    make(on_divergence="reduce-lr", progress=Progress()).fit()
    assert "the learning rate is 0.5 of what it was" in capsys.readouterr().err


# ---- the explanation


def large(network: Network, name: str, value: float) -> Network:
    network.params[name][...] = value
    return network


def deep(**options: Any) -> Network:
    return Network([Affine(4), ReLU(), Affine(4), ReLU(), Affine(2)], (5,), **options)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("affine1.W", 1e38), "the output of affine1 is infinite, for inputs up to 3"),
        (("affine2.W", 3e38), "the output of affine2 is "),
        (("affine3.b", math.nan), "the output of affine3 is NaN"),
    ],
)
def test_the_layer_is_named(backend: Backend, change: Any, words: str) -> None:
    network = large(deep(), *change)
    x, t = backend.asarray(np.abs(X[:9]) + 1), backend.asarray(T[:9])
    told = explain(network, x, t)
    assert told.startswith(words)
    assert f"the largest parameters are {change[0]}" in told


def test_the_loss_is_named_where_it_is_the_first(backend: Backend) -> None:
    network = Network([Affine(1)], (5,), loss=IdentityWithLoss())
    network.params["affine1.W"][...] = 1e25
    told = explain(network, backend.asarray(X[:5]), backend.asarray(X[:5, :1]))
    assert told.startswith("the loss is inf, for outputs up to ")


def test_explaining_changes_nothing(backend: Backend) -> None:
    trainer = make(None)
    trainer.fit()
    network = trainer.network
    before, masks = arrays(trainer), network.random_state()
    x, t = backend.asarray(X[:9]), backend.asarray(T[:9])
    assert explain(network, x, t).startswith("computed again, the loss and the gradients are fin")
    assert arrays(trainer) == before
    assert network.random_state() == masks


# ---- what it costs


def test_the_check_takes_less_than_a_hundredth_of_a_step(monkeypatch: Any) -> None:
    """All that is done for it in a step of DeepConvNet, against the step; each the median."""
    x = np.random.default_rng(0).random((800, 1, 28, 28), dtype=np.float32)
    trainer = Trainer(DeepConvNet(), (x, np.arange(800) % 10), epochs=1, progress=False)
    backend, network = trainer.network.backend, trainer.network
    checks: list[float] = []
    steps: list[float] = []

    def timed(function: Any, seconds: list[float]) -> Any:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            seconds.append(time.perf_counter() - start)
            return result

        return call

    monkeypatch.setattr(trainer.step, "make", timed(trainer.step.make, steps))
    trainer.fit()

    def check() -> None:
        [a.copy() for a in network.state.values()]
        loss = backend.xp.float32(1)
        go, _ = backend.all_finite(loss, network.grads.buffer)
        assert backend.item(go)
        tally.done += 1
        trainer.watch.look(tally)

    tally = Tally(network, 100)
    for _ in range(40):
        timed(check, checks)()
    share = np.median(checks) / np.median(steps)
    print(f"{1e6 * np.median(checks):.0f} us of {1e3 * np.median(steps):.1f} ms: {share:.3%}")
    assert share < 0.01


def test_the_way_around_a_residual_is_part_of_what_is_looked_at(backend: Backend) -> None:
    """The second layer overflows only for the sum that it really gets."""

    def net() -> Network:
        block = Residual([Affine(np.eye(2, dtype="float32"), np.zeros(2, "float32"))])
        last = Affine(np.full((2, 2), 1e18, "float32"), np.zeros(2, "float32"))
        return Network([block, last], (2,))

    x = np.full((3, 2), 1e20, "float32")
    told = explain(net(), backend.asarray(x), backend.asarray(np.array([0, 1, 0])))
    assert "the output of affine1 is infinite, for inputs up to 2e+20" in told
    network = net()
    huge = backend.asarray(np.full((3, 2), 2e38, "float32"))
    told = explain(network, huge, backend.asarray(np.array([0, 1, 0])))
    assert "the output of residual1.sum is infinite, for inputs up to 2e+38" in told
    assert all("forward" not in vars(leaf) for _, leaf in network.body.leaves())


def test_it_is_said_that_pictures_were_looked_at_as_they_are() -> None:
    with pytest.raises(DivergenceError, match=r"finite.* \(looked at without augmentation\)"):
        make().fit()


def test_a_pause_between_two_sittings_is_not_counted(monkeypatch: Any) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    trainer = make(None, epochs=1)

    def a_second_each(x: Any, generator: Any) -> Any:
        now[0] += 1
        if now[0] == 5:
            trainer.interrupt()
        return x

    trainer.feeding.augment = a_second_each
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    now[0] += 3600
    trainer.fit()
    assert trainer.history.epochs[0].seconds == 12
