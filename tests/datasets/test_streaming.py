"""Pictures that stay in their file while a network learns from them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Network, Trainer
from xpdl.backends import Backend, get_backend
from xpdl.datasets import Batches, StoredPictures
from xpdl.datasets.reading_ahead import ReadAhead
from xpdl.errors import ArgumentError, DataFileError, DTypeError, FileAccessError
from xpdl.layers import Affine, Convolution, Flatten, Normalize, ReLU

SHAPE = (3, 4, 5)


@pytest.fixture
def pictures() -> Any:
    return np.random.default_rng(1).integers(0, 256, (40, *SHAPE)).astype(np.uint8)


@pytest.fixture
def stored(pictures: Any, tmp_path: Path) -> StoredPictures:
    """The same, every second row of a file, from its end on."""
    rows = np.zeros((80, *SHAPE), np.uint8)
    rows[::-2] = pictures
    (tmp_path / "pixels").write_bytes(rows.tobytes() + b"end")
    return StoredPictures(tmp_path / "pixels", np.arange(79, 0, -2), SHAPE, "garden")


LABELS = np.arange(40) % 4


def test_batches_are_those_of_pictures_in_memory(
    backend: Backend, pictures: Any, stored: StoredPictures
) -> None:
    def batches(x: Any) -> list[Any]:
        made = Batches(x, LABELS, 7, backend=backend, seed=3, dtype="float32", divisor=255)
        taken = [*made.epoch(0), *made.steps(8), *made.in_order()]
        assert all(backend.owns(a) for pair in taken for a in pair)
        return [backend.to_numpy(a) for pair in taken for a in pair]

    for got, wanted in zip(batches(stored), batches(pictures), strict=True):
        np.testing.assert_array_equal(got, wanted)
        assert got.dtype == wanted.dtype


def test_a_training_is_that_of_pictures_in_memory(
    backend: Backend, pictures: Any, stored: StoredPictures, tmp_path: Path
) -> None:
    def trained(x: Any, name: str, stop_after: int = 9) -> Any:
        layers = [Normalize(), Convolution(2, 3), ReLU(), Flatten(), Affine(4)]
        net = Network(layers, input_shape=SHAPE, seed=1)
        trainer = Trainer(
            net, (x, LABELS), (x, LABELS), epochs=2, batch_size=9, progress=False,
            checkpoint=tmp_path / name,
        )  # fmt: skip

        def stop(trainer: Any, epoch: Any) -> None:
            trainer.stop = epoch.number + 1 == stop_after

        trainer.callbacks.append(stop)
        return trainer.fit().losses, {k: backend.to_numpy(v) for k, v in net.params.items()}

    losses, params = trained(pictures, "a")
    trained(stored, "b", stop_after=1)
    again, others = trained(stored, "b")
    assert losses == again
    for name, value in params.items():
        np.testing.assert_array_equal(others[name], value)


def test_the_next_part_is_read_beside_the_last(pictures: Any) -> None:
    log: list[tuple[list[int], bool]] = []

    class Logged:
        def __getitem__(self, part: Any) -> Any:
            log.append((part.tolist(), threading.current_thread() is threading.main_thread()))
            return pictures[part]

    ahead = ReadAhead(Logged())
    parts = [np.arange(k, k + 2) for k in range(0, 12, 2)]
    turn = ahead.in_turn(iter(parts))
    for _ in range(2):
        part = next(turn)
        np.testing.assert_array_equal(ahead.take(part), pictures[part])
    next(turn)  # passed over
    out_of_turn = np.array([30])
    np.testing.assert_array_equal(ahead.take(out_of_turn), pictures[[30]])
    for part in turn:
        np.testing.assert_array_equal(ahead.take(part), pictures[part])
    here = [[0, 1], [30], [6, 7]]
    beside = [[2, 3], [4, 5], [8, 9], [10, 11]]
    assert sorted(log) == sorted([*((a, True) for a in here), *((a, False) for a in beside)])


def test_what_goes_wrong_in_the_thread_is_told(pictures: Any) -> None:
    class Failing:
        def __getitem__(self, part: Any) -> Any:
            if part[0]:
                raise OSError("the disk is gone")
            return pictures[part]

    ahead = ReadAhead(Failing())
    turn = ahead.in_turn(iter([np.array([0]), np.array([1])]))
    ahead.take(next(turn))
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.take(next(turn))


def test_parts_of_it_are_not_read(pictures: Any, stored: StoredPictures) -> None:
    even = stored.part(np.arange(40) % 2 == 0)
    np.testing.assert_array_equal(np.asarray(even), pictures[::2])
    np.testing.assert_array_equal(np.asarray(stored.part(np.array([5, 3]))), pictures[[5, 3]])
    assert np.asarray(even, np.float32).dtype == np.float32
    assert even.nbytes == even.shape[0] * 60 == 1200
    with pytest.raises(ValueError, match="without being read"):
        np.asarray(even, copy=False)


def test_it_is_told_apart_by_its_source_and_rows(stored: StoredPictures, tmp_path: Path) -> None:
    again = StoredPictures(tmp_path / "pixels", np.arange(79, 0, -2), SHAPE, "garden")
    other = StoredPictures(tmp_path / "pixels", np.arange(79, 0, -2), SHAPE, "forest")
    digests = {a.digest() for a in (stored, again, other, stored.part(np.arange(39)))}
    assert again.digest() == stored.digest()
    assert len(digests) == 3


def test_what_cannot_be_read_is_said(stored: StoredPictures, tmp_path: Path) -> None:
    with pytest.raises(FileAccessError, match="No such file"):
        StoredPictures(tmp_path / "gone", np.arange(3), SHAPE)
    with pytest.raises(DataFileError, match="holds 80 pictures"):
        StoredPictures(stored.path, np.array([80]), SHAPE)
    with pytest.raises(DataFileError, match="holds 80 pictures"):
        StoredPictures(stored.path, np.array([-1]), SHAPE)
    (tmp_path / "empty").touch()
    with pytest.raises(FileAccessError, match="empty"):
        StoredPictures(tmp_path / "empty", np.arange(1), SHAPE)
    with pytest.raises(DTypeError, match="rows"):
        StoredPictures(stored.path, np.ones(3), SHAPE)
    made = Batches(stored, LABELS, 5, backend=get_backend("numpy"))
    with pytest.raises(ArgumentError, match="below 40"):
        made.take(np.array([40]))
    with xpdl.use_backend("numpy"):
        assert made.x is stored
