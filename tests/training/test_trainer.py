"""The training loop, its batches and its checkpoints."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Network, Trainer
from xpdl.backends import Backend, get_backend
from xpdl.datasets.batches import Batches
from xpdl.errors import (
    ArgumentError,
    BackendMismatchError,
    DivergenceError,
    DTypeError,
    ModelFileError,
    NonFiniteError,
    ShapeError,
    UnknownNameError,
)
from xpdl.layers import Affine, BatchNormalization, Convolution, Dropout, MaxPooling, ReLU
from xpdl.losses import IdentityWithLoss
from xpdl.optimizers import SGD, Adam, Momentum
from xpdl.schedules import Cosine, Step
from xpdl.training.history import Epoch
from xpdl.training.progress import Progress


def spirals(n: int = 90, seed: int = 0) -> tuple[Any, Any]:
    """Return three arms of points (N, 2) and which arm each is on: easy to learn, not linear."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) % 3
    radius = rng.random(n)
    angle = 2 * radius + 2 * np.pi / 3 * t + 0.1 * rng.standard_normal(n)
    x = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1)
    return x.astype("float32"), t


def net(**options: Any) -> Network:
    layers = [Affine(16), BatchNormalization(), ReLU(), Dropout(0.1), Affine(3)]
    return Network(layers, (2,), **options)


def trainer(**options: Any) -> Trainer:
    options = {"epochs": 3, "batch_size": 20, "progress": False, "optimizer": Adam(0.02)} | options
    return Trainer(options.pop("network", None) or net(), spirals(), spirals(30, 1), **options)


# ---- batches


def test_an_epoch_holds_every_example_once(backend: Backend) -> None:
    x, t = np.arange(23, dtype="float32").reshape(23, 1), np.arange(23)
    batches = Batches(x, t, 5, backend=backend, seed=3)
    assert len(batches) == 5
    parts = [(backend.to_numpy(a), backend.to_numpy(b)) for a, b in batches.epoch(0)]
    assert [len(a) for a, _ in parts] == [5, 5, 5, 5, 3]
    labels = np.concatenate([b for _, b in parts])
    assert sorted(labels) == list(range(23))
    np.testing.assert_array_equal(np.concatenate([a for a, _ in parts])[:, 0], labels)


def test_order_depends_on_seed_and_epoch_alone(backend: Backend) -> None:
    def order(seed: int, epoch: int, on: Backend = backend) -> list[int]:
        batches = Batches(np.zeros((30, 1)), np.arange(30), 7, backend=on, seed=seed)
        return [int(label) for _, t in batches.epoch(epoch) for label in on.to_numpy(t)]

    assert order(1, 0) == order(1, 0) == order(1, 0, get_backend("generic"))
    assert len({tuple(order(*key)) for key in ((1, 0), (1, 1), (2, 0))}) == 3


def test_steps_go_on_from_epoch_to_epoch(backend: Backend) -> None:
    batches = Batches(np.zeros((12, 1)), np.arange(12), 5, backend=backend, seed=1)

    def labels(parts: Any) -> list[list[int]]:
        return [backend.to_numpy(t).tolist() for _, t in parts]

    expected = [part for epoch in range(3) for part in labels(batches.epoch(epoch))]
    assert labels(batches.steps(7)) == expected[:7]
    assert labels(batches.steps(0)) == []
    with pytest.raises(ArgumentError, match="count must be an int of at least 0, got -1"):
        batches.steps(-1)


def test_data_is_put_on_the_device_once() -> None:
    strict = get_backend("strict")
    x, t = spirals()
    with xpdl.use_backend("strict"):
        batches = Batches(x, t, 10, backend=strict)
        before = strict.transfers.to_device
        for _ in batches.epoch(0):
            pass
        assert strict.transfers.to_device - before == 1  # the order of the epoch


def test_data_that_does_not_fit_stays_on_the_host_and_says_so(monkeypatch: Any) -> None:
    with xpdl.use_backend("strict") as strict:
        resident = trainer().fit().losses
        monkeypatch.setattr(type(strict), "has_room_for", lambda self, size: False)
        with pytest.warns(UserWarning, match="do not fit on the device"):
            crowded = trainer()
        before = strict.transfers.to_device
        assert crowded.fit().losses == resident
        assert strict.transfers.to_device - before >= 2 * 3 * 5


@pytest.mark.parametrize(
    ("x", "t", "size", "kind", "words"),
    [
        (np.zeros((3, 1)), np.zeros(2), 1, ShapeError, r"\(3, 1\).*\(2,\)"),
        (np.zeros((0, 1)), np.zeros(0), 1, ArgumentError, "empty"),
        (np.zeros((3, 1)), np.zeros(3), 0, ArgumentError, "batch_size.*0"),
        (np.zeros((3, 1)), np.zeros(3), 1.5, ArgumentError, "batch_size.*1.5"),
        (np.array([[1.0], [np.inf]]), np.zeros(2), 1, NonFiniteError, "example 1"),
        (np.array(1.0), np.zeros(2), 1, ShapeError, "length"),
        (np.array(["a"]), np.zeros(1), 1, DTypeError, "numbers"),
    ],
)
def test_bad_data(x: Any, t: Any, size: Any, kind: Any, words: str) -> None:
    with pytest.raises(kind, match=words):
        Batches(x, t, size, backend=get_backend("numpy"))


# ---- the loop


def test_it_learns_and_keeps_a_history(backend: Backend) -> None:
    history = trainer(epochs=40).fit()
    assert [epoch.number for epoch in history.epochs] == list(range(40))
    assert len(history.losses) == 40 * 5
    last = history.epochs[-1]
    assert last.test_accuracy is not None
    assert last.test_accuracy > 0.85
    assert last.loss == pytest.approx(np.mean(history.losses[-5:]))
    assert history.epochs[0].loss > 2 * last.loss


def test_one_seed_gives_one_curve_bit_for_bit(backend: Backend) -> None:
    first, second = trainer(seed=4).fit(), trainer(seed=4).fit()
    assert first.losses == second.losses
    assert first.losses != trainer(seed=5).fit().losses


def test_test_accuracy_is_the_networks(backend: Backend) -> None:
    t = trainer()
    history = t.fit()
    x, labels = spirals(30, 1)
    expected = t.network.accuracy(backend.asarray(x), backend.asarray(labels))
    assert history.epochs[-1].test_accuracy == expected


@pytest.mark.parametrize("average", [None, 0.9])
@pytest.mark.parametrize("one_hot", [False, True])
def test_what_was_answered_last_is_kept(
    backend: Backend, average: float | None, one_hot: bool
) -> None:
    x, labels = spirals(30, 1)
    given = np.eye(3, dtype="f4")[labels] if one_hot else labels
    options: dict[str, Any] = {"epochs": 2, "batch_size": 20, "average": average}
    t = Trainer(net(), spirals(), (x, given), progress=False, **options)
    assert t.answers is None
    history = t.fit()
    expected = backend.to_numpy(t.network.predict(backend.asarray(x))).argmax(axis=1)
    assert backend.owns(t.answers)
    np.testing.assert_array_equal(backend.to_numpy(t.answers), expected)
    assert history.epochs[-1].test_accuracy == (expected == labels).mean()


def test_answers_of_another_training_are_not_kept(tmp_path: Path) -> None:
    trainer(checkpoint=tmp_path / "checkpoint").fit()
    again = trainer(epochs=3)
    again.fit()
    assert again.answers is not None
    again.checkpoint = tmp_path / "checkpoint"
    again.fit()  # as the checkpoint says, all is done
    assert again.answers is None


def test_an_epoch_reads_the_device_a_few_times_only() -> None:
    with xpdl.use_backend("strict"):
        strict = get_backend()
        for dtype in ("float32", "float16"):
            moved = []
            for epochs in (1, 3):
                t = Trainer(
                    net(dtype=dtype),
                    spirals(200),
                    spirals(30, 1),
                    epochs=epochs,
                    batch_size=2,
                    progress=False,
                )
                t.progress.every = 1e9  # nobody looks
                before = replace(strict.transfers)
                t.fit()
                moved.append(
                    (
                        strict.transfers.to_host - before.to_host,
                        strict.transfers.to_device - before.to_device,
                    )
                )
            (host1, device1), (host3, device3) = moved
            # Losses, hits, test accuracy; in half precision the scale, before and after, and its
            # history. The order of the examples and the rates go the other way; nothing goes for a
            # batch.
            assert (host3 - host1) / 2 <= (3 if dtype == "float32" else 6)
            assert (device3 - device1) / 2 <= 2
            assert host1 <= 10
            assert device1 <= 5


def test_the_schedule_sets_the_rate(backend: Backend) -> None:
    rates: list[float] = []

    class Recording(SGD):
        def update(self, params: Any, grads: Any, **more: Any) -> None:
            rates.append(self.host_learning_rate())
            super().update(params, grads, **more)

    options: dict[str, Any] = {"epochs": 2, "batch_size": 45, "capture": False}
    trainer(optimizer=Recording(0.5), schedule=Step(1.0, 0.1), **options).fit()
    assert rates == pytest.approx([0.5, 0.5, 0.05, 0.05])
    rates.clear()
    trainer(optimizer=Recording(0.5), schedule="cosine", **options).fit()
    expected = [0.25 * (1 + np.cos(np.pi * s / 4)) for s in range(4)]
    assert rates == pytest.approx(expected)


def test_callbacks_see_each_epoch_and_may_stop(backend: Backend) -> None:
    seen: list[int] = []

    def stop_at_two(t: Trainer, epoch: Epoch) -> None:
        seen.append(epoch.number)
        t.stop = epoch.number == 1

    assert len(trainer(epochs=9, callbacks=[stop_at_two]).fit().epochs) == 2
    assert seen == [0, 1]


def test_regression_has_no_accuracy(backend: Backend) -> None:
    network = Network([Affine(1)], (2,), loss=IdentityWithLoss())
    x, _ = spirals()
    t = x @ np.array([[2.0], [-1.0]], "float32")
    history = Trainer(network, (x, t), epochs=30, batch_size=10, optimizer=SGD(0.3), progress=False)
    epochs = history.fit().epochs
    assert epochs[-1].loss < 1e-4
    assert epochs[-1].train_accuracy is None


def test_divergence_is_named(backend: Backend) -> None:
    network = Network([Affine(3)], (2,), loss=IdentityWithLoss())
    x, _ = spirals()
    with np.errstate(all="ignore"), pytest.raises(DivergenceError, match=r"at step \d+.*learning"):
        Trainer(
            network, (100 * x, np.zeros((90, 3), "float32")), optimizer=SGD(1e6), progress=False
        ).fit()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions_learn(backend: Backend, dtype: str) -> None:
    t = trainer(network=net(dtype=dtype), epochs=40)
    history = t.fit()
    assert history.epochs[-1].test_accuracy is not None
    assert history.epochs[-1].test_accuracy > 0.8
    if dtype == "float16":
        assert t.step.loss_scale is not None
        assert t.step.loss_scale.read()["skipped"] <= 3
        assert sum(epoch.skipped_steps for epoch in history.epochs) <= 3
        assert history.epochs[-1].loss_scale == t.step.loss_scale.read()["value"]
        assert history.loss_scales[0] == (0, 2.0**15)
    else:
        assert history.loss_scales == []


def with_scale(t: Trainer, value: float) -> Trainer:
    assert t.step.loss_scale is not None
    t.step.loss_scale.restore({"value": value, "good_steps": 0, "bad_steps": 0, "skipped": 0})
    return t


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "adamw"])
def test_half_precision_skips_an_overflow(backend: Backend, optimizer: str) -> None:
    """A skipped step leaves all as it was, and the record says which were skipped."""
    t = with_scale(trainer(network=net(dtype="float16"), epochs=1, optimizer=optimizer), 2.0**40)
    t.optimizer.weight_decay = 0.01
    before = {name: backend.to_numpy(a) for name, a in t.network.params.items()}
    history = t.fit()
    steps = len(history.losses)
    assert history.epochs[0].skipped_steps == steps < 50
    assert [s for _, s in history.loss_scales] == [2.0 ** (40 - i) for i in range(steps)]
    for name, a in t.network.params.items():
        np.testing.assert_array_equal(backend.to_numpy(a), before[name])
    for slot in t.optimizer.state_dict()["state"].values():
        assert all((a == 0).all() for a in slot.values())
    assert t.optimizer.iteration == 0


def test_skipped_steps_leave_no_trace(backend: Backend) -> None:
    """With the same batches after it, a training whose first steps were skipped is the other."""

    def without_masks(epochs: int) -> Trainer:  # one step an epoch, of all examples
        network = Network([Affine(16), ReLU(), Affine(3)], (2,), dtype="float16")
        return trainer(network=network, epochs=epochs, batch_size=90)

    quiet, late = without_masks(2), with_scale(without_masks(3), 2.0**60)
    late.callbacks.append(lambda t, epoch: with_scale(t, 2.0**15) if epoch.number == 0 else None)
    orders = [0, 0, 1]
    order = late.batches.order
    late.batches.order = lambda number: order(orders[number])  # type: ignore[method-assign]
    quiet.fit()
    late.fit()
    assert late.history.epochs[0].skipped_steps == 1
    for name, a in quiet.network.params.items():
        np.testing.assert_array_equal(
            backend.to_numpy(a), backend.to_numpy(late.network.params[name])
        )


def test_a_scale_that_collapses_stops_the_run_with_advice(backend: Backend) -> None:
    t = with_scale(trainer(network=net(dtype="float16"), epochs=99), 2.0**120)
    with pytest.raises(DivergenceError, match=r"in a row, whatever the loss scale.*float32"):
        t.fit()
    assert len(t.history.epochs) < 50


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "epochs": ({"epochs": 0}, ArgumentError, "epochs.*0"),
    "batch size": ({"batch_size": -1}, ArgumentError, "batch_size.*-1"),
    "seed": ({"seed": -1}, ArgumentError, "seed.*-1"),
    "optimizer": ({"optimizer": "adma"}, UnknownNameError, "adma.*Did you mean 'adam'"),
    "schedule": ({"schedule": "cos"}, UnknownNameError, "schedule 'cos'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case: str) -> None:
    options, kind, words = BAD[case]
    with pytest.raises(kind, match=words):
        trainer(**options)


@pytest.mark.parametrize(
    ("x", "t", "kind", "words"),
    [
        (np.zeros((4, 3), "f4"), [0, 1, 2, 0], ShapeError, r"\(N, 2\).*\(4, 3\)"),
        (np.zeros((4, 2), "f4"), [0, 1, 3, 0], ArgumentError, "got 3 at index 2"),
        (np.zeros((4, 2), "f4"), [0, 1, -1, 0], ArgumentError, "got -1 at index 2"),
        (np.zeros((4, 2), "f4"), [0, 1, 2], ShapeError, "length"),
        (np.zeros((4, 2), "f4"), [0.0, 1, 2, 2], DTypeError, "float64"),
        (np.full((4, 2), np.nan, "f4"), [0, 1, 2, 2], NonFiniteError, "example 0"),
    ],
)
def test_bad_data_is_refused_before_training(
    backend: Backend, x: Any, t: Any, kind: Any, words: str
) -> None:
    with pytest.raises(kind, match=words):
        Trainer(net(), (x, np.array(t)), progress=False)


def test_data_of_another_device_is_refused() -> None:
    with xpdl.use_backend("strict") as strict:
        x, t = (strict.asarray(a) for a in spirals())
    with xpdl.use_backend("numpy"), pytest.raises(BackendMismatchError, match="to_numpy"):
        Trainer(net(), (x, t), progress=False)


# ---- checkpoints


@pytest.mark.parametrize("optimizer", [Adam, Momentum, SGD])
def test_going_on_is_as_if_never_interrupted(
    backend: Backend, tmp_path: Path, optimizer: Any
) -> None:
    def make(**more: Any) -> Trainer:
        return trainer(optimizer=optimizer(0.05), schedule=Cosine(), epochs=4, **more)

    whole = make()
    expected = whole.fit()

    def interrupt(t: Trainer, epoch: Epoch) -> None:
        if epoch.number == 1:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        make(checkpoint=path, callbacks=[interrupt]).fit()
    again = make(checkpoint=path)
    assert again.fit().losses == expected.losses
    for name, array in whole.network.arrays().items():
        np.testing.assert_array_equal(
            backend.to_numpy(again.network.arrays()[name]), backend.to_numpy(array)
        )


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    trainer(checkpoint=path).fit()
    other = trainer(checkpoint=path, batch_size=30, seed=9)
    before = {name: xpdl.to_numpy(a) for name, a in other.network.params.items()}
    with pytest.raises(ArgumentError, match=r"batch_size \(then 20, now 30\), seed"):
        other.fit()
    for name, array in before.items():
        np.testing.assert_array_equal(xpdl.to_numpy(other.network.params[name]), array)
    with pytest.raises(ArgumentError, match=r"'Adam'.*now.*'Momentum'"):
        trainer(checkpoint=path, optimizer=Momentum(0.02)).fit()
    net().save(path)
    with pytest.raises(ModelFileError, match="not a checkpoint"):
        trainer(checkpoint=path).fit()


def test_a_convolutional_network_goes_on_too(backend: Backend, tmp_path: Path, rng: Any) -> None:
    x, t = rng.random((20, 1, 6, 6)).astype("float32"), rng.integers(0, 3, 20)

    def make(**more: Any) -> Trainer:
        network = Network([Convolution(2, 3, pad=1), MaxPooling(2), Affine(3)], (1, 6, 6))
        return Trainer(network, (x, t), epochs=3, batch_size=8, progress=False, **more)

    def stop(t: Trainer, epoch: Epoch) -> None:
        t.stop = True

    path = tmp_path / "checkpoint"
    make(checkpoint=path, callbacks=[stop]).fit()
    assert make(checkpoint=path).fit().losses == make().fit().losses


def test_what_differs_from_the_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    trainer(checkpoint=path).fit()
    other = Network([Affine(16), BatchNormalization(0.5), ReLU(), Dropout(0.1), Affine(3)], (2,))
    with pytest.raises(ArgumentError) as caught:
        trainer(checkpoint=path, network=other).fit()
    assert "norm1.momentum (then 0.9, now 0.5)" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_optimizer_used_again_starts_from_its_own_rate(backend: Backend) -> None:
    for dtype in ("float32", "float16"):
        optimizer = SGD(0.1)
        trainer(network=net(dtype=dtype), optimizer=optimizer, schedule="cosine").fit()
        assert optimizer.learning_rate == 0.1  # and not what float32 makes of it


def test_schedules_may_answer_with_numpy_numbers(tmp_path: Path) -> None:
    for kind in (np.float64, np.float32):
        with xpdl.use_backend("strict"):
            t = trainer(
                schedule=lambda e, n, kind=kind: kind(0.5), checkpoint=tmp_path / kind.__name__
            )
            t.fit()
            assert t.history.epochs[-1].learning_rate == 0.01
    with pytest.raises(ArgumentError, match=r"schedule's factor.*-1"):
        trainer(schedule=lambda e, n: -1).fit()


def test_bad_targets_are_named() -> None:
    network = Network([Affine(1)], (2,), loss=IdentityWithLoss())
    with pytest.raises(NonFiniteError, match=r"t holds NaN.*example 1"):
        Trainer(network, (np.zeros((2, 2), "f4"), np.array([[0.0], [np.nan]])), progress=False)
    with pytest.raises(ArgumentError, match="pair"):
        Trainer(network, np.zeros((2, 2)), progress=False)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="network"):
        Trainer("net", (0, 0), progress=False)  # type: ignore[arg-type]


def test_pictures_without_channels_are_told_as_they_were_given() -> None:
    network = Network([Affine(2)], (1, 4, 4))
    x, t = np.zeros((50, 4, 4), np.float32), np.zeros(50, int)
    for given in ({"train": (x, t)}, {"train": (x[:, None], t), "test": (x, t)}):
        with pytest.raises(ShapeError, match=r"got \(50, 4, 4\)\..*use x\[:, None\]"):
            Trainer(network, progress=False, **given)


# ---- what is shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_an_epoch(capsys: Any) -> None:
    trainer(progress=True).fit()
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith("epoch  3/3  loss ")
    for word in ("train accuracy", "test accuracy", "images/s", " s"):
        assert word in lines[2]
    assert err == ""  # no bar where no terminal is


def test_a_bar_on_a_terminal(monkeypatch: Any) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    trainer(progress=Progress(every=0.0)).fit()
    shown = terminal.getvalue()
    for word in ("epoch 2/3", "loss", "accuracy", "left"):
        assert word in shown
