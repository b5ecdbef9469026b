"""A batch size that changes during the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from promised import assert_as_promised

import xpdl
from xpdl import Network, Trainer
from xpdl.backends import Backend, get_backend
from xpdl.datasets.batches import Batches
from xpdl.errors import ArgumentError, DivergenceError
from xpdl.layers import Affine, Dropout, ReLU
from xpdl.losses import IdentityWithLoss
from xpdl.optimizers import SGD, Adam
from xpdl.training.history import Epoch, History
from xpdl.training.progress import Progress
from xpdl.training.settings import training_settings

SIZES = {0: 7, 1: 10, 3: 30}


def data(n: int = 30) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 2)).astype("float32"), np.arange(n) % 3


def trainer(**options: Any) -> Trainer:
    defaults = {"epochs": 4, "batch_size": SIZES, "progress": False, "optimizer": Adam(0.02)}
    options = {**defaults, **options}
    network = options.pop("network", None) or Network(
        [Affine(6), ReLU(), Dropout(0.1), Affine(3)], (2,), dtype=options.pop("dtype", "float32")
    )
    return Trainer(network, data(), data(12), **options)


# ---- batches


def test_each_epoch_has_batches_of_its_size(backend: Backend) -> None:
    x, t = np.arange(30.0, dtype="float32").reshape(30, 1), np.arange(30)
    batches = Batches(x, t, {3: 30, 0: 7, 1: 10}, backend=backend)
    lengths = [[len(t) for _, t in batches.epoch(epoch)] for epoch in range(5)]
    assert lengths == [[7, 7, 7, 7, 2], [10, 10, 10], [10, 10, 10], [30], [30]]
    assert [batches.in_epoch(epoch) for epoch in range(5)] == [5, 3, 3, 1, 1]
    assert [batches.size(epoch) for epoch in range(5)] == [7, 10, 10, 30, 30]
    assert len(batches) == 5
    assert batches.batch_size == {0: 7, 1: 10, 3: 30}
    for epoch in range(4):
        found = [backend.to_numpy(t) for _, t in batches.epoch(epoch)]
        assert sorted(np.concatenate(found)) == list(range(30))
    assert [len(t) for _, t in batches.steps(7)] == [7, 7, 7, 7, 2, 10, 10]
    assert [len(t) for _, t in batches.in_order()] == [7, 7, 7, 7, 2]


def test_the_order_does_not_depend_on_the_size(backend: Backend) -> None:
    def order(batch_size: Any, epoch: int) -> list[int]:
        batches = Batches(np.zeros((30, 1)), np.arange(30), batch_size, backend=backend, seed=5)
        return [int(label) for _, t in batches.epoch(epoch) for label in backend.to_numpy(t)]

    assert order(SIZES, 3) == order(4, 3) != order(4, 2)


def test_one_size_is_a_number() -> None:
    batches = Batches(*data(), {0: np.int64(5)}, backend=get_backend("numpy"))
    assert batches.batch_size == 5
    assert type(batches.batch_size) is int


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({}, r"from epoch 0 on, as in \{0: 100, 3: 400\}, got \{\}"),
        ({1: 5}, r"from epoch 0 on.*got \{1: 5\}"),
        ({0: 5, 2: 0}, "batch_size from epoch 2 on must be an int of at least 1, got 0"),
        ({0: 5, 2: 1.5}, "batch_size from epoch 2 on.*1.5"),
        ({0: 5, -1: 5}, "an epoch in batch_size must be an int of at least 0, got -1"),
        ({0: 5, "3": 5}, "an epoch in batch_size.*'3'"),
        ([(0, 5)], "batch_size must be an int"),
        (lambda epoch: 5, "batch_size must be an int"),
    ],
)
def test_bad_sizes(sizes: Any, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        trainer(batch_size=sizes)


# ---- the loop


def test_sizes_that_never_come_are_refused() -> None:
    trainer(batch_size={0: 5, 2: 10}, epochs=3)
    with pytest.raises(
        ArgumentError, match="batch_size is 10 after 3 epochs, and there are only 3"
    ):
        trainer(batch_size={0: 5, 3: 10}, epochs=3)


def test_the_history_has_all_steps_and_says_their_size(backend: Backend) -> None:
    history = trainer().fit()
    assert len(history.losses) == 5 + 3 + 3 + 1
    assert [epoch.batch_size for epoch in history.epochs] == [7, 10, 10, 30]
    assert history.epochs[1].loss == pytest.approx(np.mean(history.losses[5:8]))
    assert history.epochs[3].loss == pytest.approx(history.losses[11])
    assert History.from_dict(history.as_dict()) == history


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_same_size_throughout_is_no_change(backend: Backend, dtype: str) -> None:
    one = trainer(dtype=dtype, batch_size=7).fit()
    assert trainer(dtype=dtype, batch_size={0: 7, 2: 7}).fit().losses == one.losses
    changed = trainer(dtype=dtype).fit()
    assert changed.losses[:5] == one.losses[:5]
    assert changed.losses[5:8] != one.losses[5:8]


def test_captured_is_as_it_stands(backend: Backend) -> None:
    both = [trainer(epochs=6, capture=c).fit() for c in (True, False)]
    assert_as_promised(backend, *({"losses": history.losses} for history in both))


def test_a_schedule_goes_by_the_position_in_the_epochs(backend: Backend) -> None:
    asked: list[float] = []

    def schedule(position: float, epochs: float) -> float:
        asked.append(position)
        return 1.0

    trainer(schedule=schedule).fit()
    expected = [
        step / steps + epoch for epoch, steps in enumerate((5, 3, 3, 1)) for step in range(steps)
    ]
    assert asked == pytest.approx(expected)


def test_a_step_is_the_mean_over_its_batch() -> None:
    """One step over all examples is gradient descent on the mean loss, whatever came before."""
    x, _ = data()
    t = (x @ np.array([[2.0], [-1.0]], "float32")).astype("float64")
    network = Network([Affine(1)], (2,), loss=IdentityWithLoss(), dtype="float64")
    seen: list[Any] = []

    def keep(trainer: Trainer, epoch: Epoch) -> None:
        seen.append([xpdl.to_numpy(network.params[f"affine1.{key}"]).copy() for key in "Wb"])

    Trainer(
        network, (x, t), epochs=2, batch_size={0: 11, 1: 30}, optimizer=SGD(0.1), progress=False,
        callbacks=[keep],
    ).fit()  # fmt: skip
    (W, b), (W2, b2) = seen
    difference = x.astype("float64") @ W + b - t
    # The loss of a sample is half its squared error; see IdentityWithLoss.
    np.testing.assert_allclose(W2, W - 0.1 * x.T.astype("float64") @ difference / 30, rtol=1e-6)
    np.testing.assert_allclose(b2, b - 0.1 * difference.mean(axis=0), rtol=1e-6)


def test_the_bar_has_the_epochs_own_steps() -> None:
    class Watched(Progress):
        def __init__(self) -> None:
            super().__init__(every=0.0)
            self.begun: list[tuple[int, int]] = []
            self.shown: list[int] = []

        def begin(self, epoch: int, epochs: int, steps: int, images: int, done: int = 0) -> None:
            super().begin(epoch, epochs, steps, images, done)
            self.begun.append((steps, images))

        def show(self, step: int, loss: float, accuracy: float | None) -> None:
            super().show(step, loss, accuracy)
            self.shown.append(step)

    progress = Watched()
    trainer(progress=progress).fit()
    assert progress.begun == [(5, 30), (3, 30), (3, 30), (1, 30)]
    assert progress.shown == [1, 2, 3, 4, 5, 1, 2, 3, 1, 2, 3, 1]


def test_a_step_that_diverges_is_counted_over_all_epochs(backend: Backend) -> None:
    def schedule(position: float, epochs: float) -> float:
        return 1e38 if position > 1.5 else 1.0  # from the third step of the second epoch on

    with pytest.raises(DivergenceError, match="at step 8:"):
        trainer(optimizer=SGD(1.0), schedule=schedule).fit()


# ---- checkpoints


def test_going_on_is_as_if_never_interrupted(backend: Backend, tmp_path: Path) -> None:
    def interrupt(t: Trainer, epoch: Epoch) -> None:
        if epoch.number == 0:
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        trainer(checkpoint=path, callbacks=[interrupt]).fit()
    whole, again = trainer().fit(), trainer(checkpoint=path).fit()
    assert again.losses == whole.losses
    assert [epoch.batch_size for epoch in again.epochs] == [7, 10, 10, 30]


def test_a_checkpoint_of_other_sizes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    trainer(checkpoint=path).fit()
    for sizes, words in (
        ({**SIZES, 3: 15}, r"batch_size.3 \(then 30, now 15\)"),
        ({0: 7, 1: 10}, r"batch_size.3 \(then 30, now None\)"),
        (7, r"batch_size \(then None, now 7\)"),
    ):
        with pytest.raises(ArgumentError, match=words):
            trainer(checkpoint=path, batch_size=sizes).fit()


def test_searches_and_ensembles_know_the_sizes() -> None:
    assert training_settings(trainer())["batch_size"] == {"0": 7, "1": 10, "3": 30}
    assert training_settings(trainer(batch_size=7))["batch_size"] == 7
