"""A training that is interrupted anywhere, and goes on, ends as one that never was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from promised import assert_as_promised
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import xpdl
from xpdl import Network, Trainer, files
from xpdl.backends import Backend
from xpdl.datasets.augmentation import Compose, Rotate, Shift
from xpdl.errors import ArgumentError, FileAccessError, ModelFileError
from xpdl.layers import Affine, BatchNormalization, Convolution, Dropout, MaxPooling, ReLU
from xpdl.optimizers import SGD, Adam, AdamW, Momentum
from xpdl.training.history import Epoch

# The last batch of each epoch is a single example.
pytestmark = pytest.mark.filterwarnings("ignore:BatchNormalization has one number")

RNG = np.random.default_rng(8)
PICTURES = RNG.random((50, 1, 8, 8), dtype=np.float32), RNG.integers(0, 3, 50)


def make(**options: Any) -> Trainer:
    """Return the trainer of a training in which everything draws, averages and counts."""
    layers = [
        Convolution(4, 3, pad=1), BatchNormalization(), ReLU(), MaxPooling(2), Dropout(0.2),
        Affine(8), BatchNormalization(), ReLU(), Dropout(0.3, scale_at="training"), Affine(3),
    ]  # fmt: skip
    network = Network(layers, (1, 8, 8), dtype=options.pop("dtype", "float32"))
    usual: dict[str, Any] = {
        "optimizer": Adam(0.01, clip_norm=5.0, weight_decay=1e-4),
        "epochs": 3,
        "batch_size": 7,
        "schedule": "one-cycle",
        "augment": Compose([Rotate(10), Shift(1)]),
        "average": 0.9,
        "progress": False,
        "seed": 5,
    }
    return Trainer(network, PICTURES, PICTURES, **usual | options)


def interrupt_after(trainer: Trainer, steps: int) -> Trainer:
    """Let a trainer be interrupted after so many steps in all."""
    count, step = trainer.batches.take, 0

    def take(part: Any) -> Any:
        nonlocal step
        step += 1
        if step == steps:
            trainer.interrupt()
        return count(part)

    trainer.batches.take = take  # type: ignore[method-assign]
    return trainer


def what_is_left(trainer: Trainer) -> dict[str, Any]:
    """Return all that a training comes to, but for what it took."""
    to_numpy = trainer.network.backend.to_numpy
    told = trainer.history.as_dict()
    for epoch in told["epochs"]:
        del epoch["seconds"]
    state = trainer.optimizer.state_dict()
    arrays = {name: to_numpy(a).tolist() for name, a in trainer.network.arrays().items()}
    memory = {
        f"{slot} of {name}": a.tolist()
        for slot, of in state.pop("state").items()
        for name, a in of.items()
    }
    scale = None if trainer.step.loss_scale is None else trainer.step.loss_scale.state()
    return {**told, **arrays, **memory, "optimizer": state, "scale": scale}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_interruption_in_an_epoch_leaves_no_trace(
    backend: Backend, tmp_path: Path, dtype: str
) -> None:
    path = tmp_path / "checkpoint"
    whole = make(dtype=dtype)
    whole.fit()
    for steps in (3, 8, 1):  # of 8 an epoch; each sitting goes on where the one before was left
        with pytest.raises(KeyboardInterrupt):
            interrupt_after(make(dtype=dtype, checkpoint=path), steps).fit()
    last = make(dtype=dtype, checkpoint=path)
    last.fit()
    assert_as_promised(backend, what_is_left(last), what_is_left(whole), dtype)


def test_an_interruption_before_the_first_step_is_heeded(tmp_path: Path) -> None:
    trainer = make(checkpoint=tmp_path / "checkpoint")
    trainer.interrupt()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert trainer.steps_of_epoch == (1, 8)
    assert not trainer.interrupted
    trainer.fit()  # and the next goes on
    whole = make()
    whole.fit()
    assert what_is_left(trainer) == what_is_left(whole)


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1), Momentum(0.1), AdamW(0.01)], ids=lambda rule: type(rule).__name__
)
def test_every_step_can_be_the_last(backend: Backend, tmp_path: Path, optimizer: Any) -> None:
    def again(**more: Any) -> Trainer:
        rule = type(optimizer)(optimizer.learning_rate)
        return make(optimizer=rule, epochs=1, augment=None, average=None, **more)

    whole = again()
    whole.fit()
    for _ in range(7):
        trainer = interrupt_after(again(checkpoint=tmp_path / "checkpoint"), 1)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
    last = again(checkpoint=tmp_path / "checkpoint")
    last.fit()
    assert_as_promised(backend, what_is_left(last), what_is_left(whole))


def test_an_epoch_can_be_saved_in_parts(tmp_path: Path, monkeypatch: Any) -> None:
    """Every few seconds, whatever the epoch; what was saved last is gone on from."""
    from xpdl.training import resuming as module

    saved: list[int | None] = []
    save = module.save_checkpoint

    def watch(path: Any, trainer: Trainer, tally: Any) -> None:
        saved.append(None if tally is None else tally.done)
        save(path, trainer, tally)
        if len(saved) == 5:
            raise SystemExit  # as if killed, without a chance to do anything

    monkeypatch.setattr(module, "save_checkpoint", watch)
    often = make(checkpoint=tmp_path / "checkpoint", checkpoint_every=1e-9)
    with pytest.raises(SystemExit):
        often.fit()
    assert saved == [1, 2, 3, 4, 5]
    saved.clear()
    seldom = make(checkpoint=tmp_path / "checkpoint", checkpoint_every=1e9)
    seldom.fit()
    assert saved == [None, None, None]
    whole = make()
    whole.fit()
    assert what_is_left(seldom) == what_is_left(whole)


def test_what_a_callback_did_is_in_the_checkpoint(backend: Backend, tmp_path: Path) -> None:
    """Also what is frozen: a layer that a callback froze is so when the training goes on."""

    def freeze(trainer: Trainer, epoch: Epoch) -> None:
        if epoch.number == 0:
            trainer.network.freeze("conv1")

    path = tmp_path / "checkpoint"
    whole = make(callbacks=[freeze])
    whole.fit()
    with pytest.raises(KeyboardInterrupt):
        interrupt_after(make(callbacks=[freeze], checkpoint=path), 11).fit()
    last = make(checkpoint=path, callbacks=[freeze])
    assert last.network.frozen == ()
    last.fit()
    assert last.network.frozen == ("conv1",)
    assert_as_promised(backend, what_is_left(last), what_is_left(whole))


def test_a_callback_that_fails_costs_no_epoch(tmp_path: Path) -> None:
    def fail(trainer: Trainer, epoch: Epoch) -> None:
        raise RuntimeError("a mistake of the caller's")

    with pytest.raises(RuntimeError, match="mistake"):
        make(checkpoint=tmp_path / "checkpoint", callbacks=[fail]).fit()
    seen: list[int] = []
    again = make(checkpoint=tmp_path / "checkpoint", callbacks=[lambda t, e: seen.append(e.number)])
    again.fit()
    assert seen == [1, 2]
    whole = make()
    whole.fit()
    assert what_is_left(again) == what_is_left(whole)


def test_a_training_on_another_device_goes_on(backend: Backend, tmp_path: Path) -> None:
    """With the same pictures, masks and rates, so that the losses are those but for rounding."""
    whole = make(epochs=1)
    whole.fit()
    with xpdl.use_backend("numpy"), pytest.raises(KeyboardInterrupt):
        interrupt_after(make(epochs=1, checkpoint=tmp_path / "c"), 3).fit()
    there = make(epochs=1, checkpoint=tmp_path / "c")
    there.fit()
    np.testing.assert_allclose(there.history.losses, whole.history.losses, rtol=1e-3)


@pytest.mark.parametrize("backend", ["numpy", "numba"], indirect=True)
def test_a_checkpoint_knows_how_convolutions_were_computed(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on by the other sum would not be bit for bit, without a word."""
    path = tmp_path / "checkpoint"
    make(epochs=1, checkpoint=path).fit()
    monkeypatch.setenv("XPDL_CONVOLUTION", "direct")
    with pytest.raises(ArgumentError, match=r"XPDL_CONVOLUTION \(then 'fastest', now 'direct'\)"):
        make(epochs=1, checkpoint=path).fit()
    with xpdl.use_backend("generic"):
        make(epochs=1, checkpoint=path).fit()


def test_other_data_is_another_training(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    make(checkpoint=path).fit()
    other = make(checkpoint=path)
    x = PICTURES[0].copy()
    x[3, 0, 2, 2] += 1e-6
    other.batches.x[...] = xpdl.asarray(x)
    with pytest.raises(ArgumentError, match=r"another training: data \(then '[0-9a-f]{64}', now"):
        other.fit()


def test_more_epochs_where_the_rate_does_not_ask_how_many(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    for schedule in ("constant", "step"):
        make(epochs=2, schedule=schedule, checkpoint=path).fit()
        longer = make(epochs=3, schedule=schedule, checkpoint=path)
        longer.fit()
        whole = make(epochs=3, schedule=schedule)
        whole.fit()
        assert what_is_left(longer) == what_is_left(whole)
        path.unlink()
    make(epochs=2, checkpoint=path).fit()
    with pytest.raises(ArgumentError, match=r"epochs \(then 2, now 3\)"):
        make(epochs=3, checkpoint=path).fit()


def test_fewer_epochs_than_are_begun_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        interrupt_after(make(schedule="constant", checkpoint=path), 11).fit()  # of 8 an epoch
    before = path.read_bytes()
    for epochs in (1, 3):
        shorter = make(schedule="constant", epochs=epochs, checkpoint=path)
        if epochs == 1:
            left, masks = what_is_left(shorter), shorter.network.random_state()
            with pytest.raises(ArgumentError, match="epochs must be at least 2, got 1: as many"):
                shorter.fit()
            assert what_is_left(shorter) == left
            assert shorter.network.random_state() == masks
            assert path.read_bytes() == before
        else:
            shorter.fit()
    make(schedule="constant", checkpoint=path).fit()  # of three epochs, all done: nothing to do
    with pytest.raises(ArgumentError, match="epochs must be at least 3, got 2"):
        make(schedule="constant", epochs=2, checkpoint=path).fit()


# ---- files that are not whole


def resting(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        interrupt_after(make(checkpoint=path), 11).fit()
    return path


def edit(path: Path, change: Any) -> None:
    tensors = load_file(path)
    with safe_open(path, "numpy") as file:
        about = json.loads(file.metadata()["xpdl"])
    change(tensors, about)
    save_file(tensors, path, metadata={"xpdl": json.dumps(about)})


CHANGES: dict[str, Any] = {
    "no settings": lambda t, a: a.pop("settings"),
    "no digest": lambda t, a: a.pop("sha256"),
    "no history": lambda t, a: a.pop("history"),
    "no epochs": lambda t, a: a["history"].pop("epochs"),
    "an epoch without a loss": lambda t, a: a["history"]["epochs"][0].pop("loss"),
    "no epoch, and its steps": lambda t, a: a["history"].update(epochs=[]),
    "an epoch twice": lambda t, a: a["history"]["epochs"].append(a["history"]["epochs"][0]),
    "another number": lambda t, a: a["history"]["epochs"][0].update(number=1),
    "no losses of the epochs": lambda t, a: t.pop("history/losses"),
    "losses of another shape": lambda t, a: t.update({"history/losses": np.zeros((2, 2))}),
    "no parameter": lambda t, a: t.pop("network/conv1.W"),
    "another parameter": lambda t, a: t.update({"network/conv9.W": t["network/conv1.W"]}),
    "another shape": lambda t, a: t.update({"network/conv1.b": np.zeros(5, "f4")}),
    "whole numbers": lambda t, a: t.update({"network/conv1.b": np.zeros(4, "i4")}),
    "NaN": lambda t, a: t["network/conv1.b"].fill(np.nan),
    "no average": lambda t, a: t.pop("average/conv1.b"),
    "an average of infinity": lambda t, a: t["average/conv1.b"].fill(np.inf),
    "no count of updates": lambda t, a: a.pop("averaged_updates"),
    "updates below 0": lambda t, a: a.update(averaged_updates=-1),
    "no memory": lambda t, a: t.pop("optimizer/m/conv1.W"),
    "another slot": lambda t, a: t.update({"optimizer/w/conv1.W": t["optimizer/m/conv1.W"]}),
    "memory of another shape": lambda t, a: t.update({"optimizer/m/conv1.W": np.zeros(3, "f4")}),
    "an optimizer of another rule": lambda t, a: a["optimizer"].update(rule="SGD"),
    "iterations below 0": lambda t, a: a["optimizer"].update(iteration=-3),
    "a rate of text": lambda t, a: a["optimizer"].update(learning_rate="fast"),
    "an unknown part": lambda t, a: t.update({"extra/x": np.zeros(1, "f4")}),
    "a layer frozen that is none": lambda t, a: a.update(frozen=["conv7"]),
    "frozen by number": lambda t, a: a.update(frozen=3),
    "a factor of 0": lambda t, a: a.update(rate_factor=0),
    "no steps": lambda t, a: a["epoch"].update(done=0),
    "more steps than there are": lambda t, a: a["epoch"].update(done=9),
    "steps without their losses": lambda t, a: a["epoch"].update(done=2),
    "no losses": lambda t, a: t.pop("epoch/losses"),
    "masks of other layers": lambda t, a: a["epoch"]["masks"].pop("dropout1"),
    "masks before their start": lambda t, a: a["epoch"]["masks"].update(dropout1={"halves": -1}),
    "masks of text": lambda t, a: a["epoch"]["masks"].update(dropout1="x"),
    "no masks": lambda t, a: a["epoch"].pop("masks"),
    "no augmentation": lambda t, a: a["epoch"].update(augmentation=None),
    "an epoch that is a list": lambda t, a: a.update(epoch=[1]),
    "an older format": lambda t, a: a.update(format="xpdl-checkpoint-1"),
    "another format": lambda t, a: a.update(format=3),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_checkpoint_changes_nothing(tmp_path: Path, change: str) -> None:
    path = resting(tmp_path)
    edit(path, CHANGES[change])
    trainer = make(checkpoint=path)
    before = what_is_left(trainer)
    with pytest.raises(ModelFileError) as caught:
        trainer.fit()
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 500
    assert what_is_left(trainer) == before
    trainer.checkpoint = None  # and the trainer is as good as new
    trainer.fit()
    whole = make()
    whole.fit()
    assert what_is_left(trainer) == what_is_left(whole)


def test_an_unharmed_edit_goes_on(tmp_path: Path) -> None:
    """The edits of the test above fail by what they change, not by being edits."""
    path = resting(tmp_path)
    edit(path, lambda tensors, about: None)
    last, whole = make(checkpoint=path), make()
    last.fit()
    whole.fit()
    assert what_is_left(last) == what_is_left(whole)


# ---- places that cannot be written


def test_a_save_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: Any) -> None:
    path = resting(tmp_path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(FileAccessError, match="No space left on device"):
        make(checkpoint=path, checkpoint_every=1e-9).fit()
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    last, whole = make(checkpoint=path), make()
    last.fit()
    whole.fit()
    assert what_is_left(last) == what_is_left(whole)


@pytest.mark.parametrize("value", [0, -1, "often", float("nan")])
def test_how_often_must_be_a_time(value: Any) -> None:
    with pytest.raises(ArgumentError, match="checkpoint_every must be a number above 0"):
        make(checkpoint_every=value)
