"""Data sets by name, and in files of arrays: .npz, IDX, CIFAR-10's archive."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xpdl.datasets import DATA_SETS, encode_idx, load, load_idx, load_npz, read_cifar10, read_mnist
from xpdl.datasets.catalogue import Archive, DataSet, RawFile
from xpdl.errors import (
    ArgumentError,
    DataError,
    DataFileError,
    DataUnavailableError,
    FileAccessError,
    NonFiniteError,
    UnknownNameError,
)

RNG = np.random.default_rng(5)
X = RNG.integers(0, 256, (12, 5, 4)).astype(np.uint8)
T = np.arange(12) % 3


@pytest.fixture(autouse=True)
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


# ---- .npz


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "t_train", "x_test", "t_test"),
        ("X_train", "y_train", "X_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images_train", "targets_train", "images_test", "targets_test"),
    ],
)
def test_the_usual_names_of_arrays(tmp_path: Path, names: Any) -> None:
    path = npz(tmp_path / "a.npz", **dict(zip(names, (X, T, X[:3], T[:3]), strict=True)))
    data = load(path)
    np.testing.assert_array_equal(data.train[0], X[:, None])
    np.testing.assert_array_equal(data.train[1], T)
    np.testing.assert_array_equal(data.test[0], X[:3, None])
    assert data.train[0].dtype == np.uint8
    assert data.train[1].dtype == np.int64
    assert data.class_names == ("0", "1", "2")
    assert data.notes == ("12 training pictures of 3 classes, 5 x 4 pixels, grey",)
    assert data.digest == load_npz(str(path)).digest
    other = npz(tmp_path / "b.npz", x_train=X, t_train=T[::-1], x_test=X, t_test=T)
    assert load(other).digest != data.digest


def test_without_test_pictures_some_are_set_aside(tmp_path: Path) -> None:
    data = load_npz(npz(tmp_path / "a.npz", x=X, y=T), split=0.4)
    parts = [{x.tobytes() for x in part[0]} for part in (data.train, data.test)]
    assert len(parts[0]) + len(parts[1]) == 12
    assert not parts[0] & parts[1]
    order = np.random.default_rng(1).permutation(12)
    again = load_npz(npz(tmp_path / "b.npz", x=X[order], y=T[order]), split=0.4)
    assert {x.tobytes() for x in again.test[0]} == parts[1]
    whole = load_npz(tmp_path / "a.npz", split=None)
    assert whole.test is None
    x_val = npz(tmp_path / "c.npz", x_train=X, y_train=T, x_val=X[:2], y_val=T[:2])
    assert len(load_npz(x_val, split=None).validation[0]) == 2


COLORS = RNG.integers(0, 256, (12, 3, 5, 4)).astype(np.uint8)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (COLORS, COLORS),
        (COLORS.transpose(0, 2, 3, 1), COLORS),
        (COLORS[:, :1].transpose(0, 2, 3, 1), COLORS[:, :1]),
        (COLORS.astype(np.int32), COLORS),
        (COLORS.astype(np.float64), COLORS),
        (COLORS / 255, (COLORS / 255).astype(np.float32)),
        (COLORS > 99, np.uint8(255) * (COLORS > 99)),
        ((COLORS > 99).astype(np.uint8), np.uint8(255) * (COLORS > 99)),
        (np.asfortranarray(COLORS), COLORS),
        (COLORS / 100 - 1, (COLORS / 100 - 1).astype(np.float32)),
    ],
)
def test_pictures_in_every_layout_and_type(tmp_path: Path, given: Any, wanted: Any) -> None:
    x, _ = load_npz(npz(tmp_path / "a.npz", x=given, t=T), split=None).train
    np.testing.assert_array_equal(x, wanted)
    assert x.dtype == wanted.dtype
    assert x.flags.c_contiguous


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (T[:, None], ("0", "1", "2")),
        (np.eye(3)[T], ("0", "1", "2")),
        (T.astype(np.float32) * 5 - 5, ("-5", "0", "5")),
        (np.array(["ant", "bee", "cat"])[T], ("ant", "bee", "cat")),
        (np.array([b"ant", b"bee", b"cat"])[T], ("ant", "bee", "cat")),
    ],
)
def test_labels_in_every_form(tmp_path: Path, given: Any, names: Any) -> None:
    data = load_npz(npz(tmp_path / "a.npz", x=X, t=given), split=None)
    np.testing.assert_array_equal(data.train[1], T)
    assert data.class_names == names


def test_class_names_may_stand_beside(tmp_path: Path) -> None:
    names = np.array(["ant", "bee", "cat", "dog"])
    data = load_npz(npz(tmp_path / "a.npz", x=X, t=T, class_names=names), split=None)
    assert data.class_names == tuple(names)
    with pytest.raises(DataError, match="2 class names, and the labels"):
        load_npz(npz(tmp_path / "a.npz", x=X, t=T, class_names=names[:2]))


@pytest.mark.parametrize(
    ("arrays", "kind", "told"),
    [
        ({}, DataFileError, "it holds no arrays"),
        ({"a": X, "b": T}, DataFileError, "must hold x_train and t_train.*'a', 'b'"),
        ({"x_train": X}, DataFileError, "must hold"),
        ({"x": X, "t": T[:5]}, DataError, r"one for each of 12 pictures, got shape \(5,\)"),
        ({"x": X[0], "t": T[:5]}, DataError, r"pictures must be of shape.*got \(5, 4\)"),
        ({"x": X[:0], "t": T[:0]}, DataError, "are none"),
        ({"x": X, "t": T * 0}, DataError, "2 classes at least"),
        ({"x": X, "t": T + 0.5}, DataError, "whole numbers or texts"),
        ({"x": X, "t": np.ones((12, 3))}, DataError, "one-hot"),
        ({"x": X.astype(int) * 9, "t": T}, DataError, "whole numbers from 0 to 255"),
        ({"x": X * np.nan, "t": T}, NonFiniteError, "the train pictures holds NaN"),
        ({"x": X.astype(str), "t": T}, DataError, "must be numbers"),
        ({"x": np.full(12, None), "t": T}, DataFileError, "Python objects"),
        (
            {"x_train": X, "t_train": T, "x_test": X[:, :3], "t_test": T},
            DataError,
            "several shapes",
        ),
        ({"x_train": X, "t_train": T, "x_test": X, "t_test": T + 1}, DataError, r"labels \[3\]"),
    ],
)
def test_arrays_that_are_no_data_set(tmp_path: Path, arrays: Any, kind: Any, told: str) -> None:
    with pytest.raises(kind, match=told) as error:
        load_npz(npz(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(error.value)


def test_a_damaged_npz_never_ends_in_a_foreign_error(tmp_path: Path) -> None:
    stream, rng, path = io.BytesIO(), np.random.default_rng(2), tmp_path / "a.npz"
    np.savez_compressed(stream, x=X, t=T)
    whole = stream.getvalue()
    for _ in range(150):
        altered = bytearray(
            whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole
        )
        for place in rng.integers(0, len(altered), 3):
            altered[place] = rng.integers(256)
        path.write_bytes(altered)
        try:
            load_npz(path, split=None)
        except (DataError, FileAccessError, NonFiniteError):
            continue


def test_an_npz_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)}
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", header.getvalue())
        file.writestr("t.npy", header.getvalue())
    with pytest.raises(DataFileError, match="it promises 784,000,000,000 bytes"):
        load_npz(tmp_path / "a.npz")
    with pytest.raises(FileAccessError, match="No such file"):
        load_npz(tmp_path / "gone.npz")


# ---- IDX


def idx(folder: Path, prefix: str = "", t: Any = T, packed: bool = False, x: Any = X) -> Path:
    folder.mkdir(exist_ok=True)
    parts = {"train": (x, t), "test": (x[:4], t[:4])}
    for part, (pictures, labels) in parts.items():
        for kind, array in (("images-idx3", pictures), ("labels-idx1", labels.astype(np.uint8))):
            content = encode_idx(array)
            name = f"{prefix}{part}-{kind}-ubyte"
            (folder / (f"{name}.gz" if packed else name)).write_bytes(
                gzip.compress(content) if packed else content
            )
    return folder


@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_of_any_number_and_classes(tmp_path: Path, packed: bool) -> None:
    data = load(idx(tmp_path / "d", t=T + 7, packed=packed))
    np.testing.assert_array_equal(data.train[0], X[:, None])
    np.testing.assert_array_equal(data.train[1], T)
    assert data.class_names == ("7", "8", "9")
    assert len(data.test[0]) == 4


@pytest.mark.parametrize(
    ("name", "first", "names"),
    [("letters", 1, "ABC"), ("balanced", 0, "012"), ("byclass", 0, "012"), ("unknown", 0, "012")],
)
def test_emnists_pictures_and_labels_are_put_right(
    tmp_path: Path, name: str, first: int, names: str
) -> None:
    data = load_idx(idx(tmp_path / "d", f"emnist-{name}-", t=T + first, packed=True))
    np.testing.assert_array_equal(data.train[0], X.transpose(0, 2, 1)[:, None])
    np.testing.assert_array_equal(data.train[1], T)
    assert data.class_names[:3] == tuple(names)
    assert (
        len(data.class_names) == {"letters": 26, "balanced": 47, "byclass": 62, "unknown": 3}[name]
    )
    assert "transposed" in data.notes[1]
    assert (first == 1) == any("A to Z" in note for note in data.notes)


def test_one_set_of_several_is_named_by_its_file(tmp_path: Path) -> None:
    idx(tmp_path / "d", "emnist-letters-", t=T + 1)
    idx(tmp_path / "d", "emnist-digits-")
    with pytest.raises(DataError, match=r"'emnist-digits-', 'emnist-letters-'\. Name one"):
        load(tmp_path / "d")
    data = load(tmp_path / "d" / "emnist-letters-train-images-idx3-ubyte")
    assert len(data.class_names) == 26


def test_idx_files_that_are_no_data_set(tmp_path: Path) -> None:
    folder = idx(tmp_path / "d")
    labels = folder / "train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(encode_idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match="12 pictures, 'train-labels-idx1-ubyte' 3 labels"):
        load(folder)
    labels.write_bytes(whole[:-1])
    with pytest.raises(DataFileError, match="truncated"):
        load(folder)
    labels.write_bytes(gzip.compress(whole)[:-3])
    with pytest.raises(DataFileError, match="gzip"):
        load(folder)
    labels.write_bytes(gzip.compress(whole + bytes(10**6)))
    with pytest.raises(DataFileError, match="holds more than the 20 bytes"):
        load(folder)
    labels.unlink()
    with pytest.raises(FileAccessError, match=r"train-labels-idx1-ubyte\.gz': No such file"):
        load(folder)
    (folder / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="test pictures and none to train with"):
        load(folder)
    with pytest.raises(DataError, match="is no IDX file"):
        load_idx(folder / "other")
    with pytest.raises(DataError, match="it holds none"):
        load_idx(tmp_path)


# ---- by name


def test_cifar_is_read_from_its_archive(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = RNG.integers(0, 256, (12, 3073)).astype(np.uint8)
    rows[:, 0] = np.arange(12) % 10
    names = [f"data_batch_{k}.bin" for k in range(1, 6)] + ["test_batch.bin"]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for k, name in enumerate(names):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = 2 * 3073
            archive.addfile(info, io.BytesIO(rows[2 * k : 2 * k + 2].tobytes()))
    content = stream.getvalue()
    published = DATA_SETS["cifar-10"]
    file = Archive(published.files[0].name, (), hashlib.sha256(content).hexdigest(), len(content))
    small = DataSet(published.name, (file,), published.class_names)
    monkeypatch.setitem(DATA_SETS, "cifar-10", small)
    with pytest.raises(DataUnavailableError, match=r"cifar-10-binary\.tar\.gz"):
        read_cifar10()
    path = data_home / "cifar-10" / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    arrays = read_cifar10()
    np.testing.assert_array_equal(arrays.x_train, rows[:10, 1:].reshape(10, 3, 32, 32))
    np.testing.assert_array_equal(arrays.t_test, rows[10:, 0])
    data = load("cifar-10")
    np.testing.assert_array_equal(data.train[0], arrays.x_train)
    assert data.class_names[3] == "cat"
    assert data.shape == (3, 32, 32)
    path.write_bytes(content[:-1] + b"x")
    with pytest.raises(DataFileError, match=r"is not the published cifar-10-binary\.tar\.gz"):
        load("cifar-10")


def test_the_archive_is_asked_for_as_it_is_called() -> None:
    (file,) = DATA_SETS["cifar-10"].files
    assert file.mirrored == "cifar-10-binary.tar.gz"
    assert file.size == 170_052_171
    assert DATA_SETS["mnist"].files[0].mirrored == "train-images-idx3-ubyte.gz"
    assert isinstance(DATA_SETS["mnist"].files[0], RawFile)
    with pytest.raises(UnknownNameError, match=r"IDX files.*mnist, fashion-mnist"):
        read_mnist("cifar-10")


def test_mnist_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from xpdl.datasets import MnistArrays, mnist

    arrays = MnistArrays(X, T.astype(np.uint8), X[:2], T[:2].astype(np.uint8))
    monkeypatch.setattr(mnist, "read_mnist", lambda name, offline: arrays)
    data = load("mnist")
    np.testing.assert_array_equal(data.train[0], X[:, None])
    assert data.class_names == tuple("0123456789")
    with pytest.raises(ArgumentError, match="size: only of a folder of pictures"):
        load("mnist", size=3)


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'mnits'.*Did you mean 'mnist'"):
        load("mnits")
    with pytest.raises(ArgumentError, match="source must be the name of"):
        load(None)  # type: ignore[arg-type]
    for label in "ab":
        (tmp_path / "d" / label).mkdir(parents=True)
        Image.new("L", (5, 4)).save(tmp_path / "d" / label / "1.png")
    data = load(tmp_path / "d", split=None, size=3, workers=0)
    assert data.shape == (1, 3, 3)
    (tmp_path / "text.txt").write_text("")
    with pytest.raises(DataError, match="is no IDX file"):
        load(tmp_path / "text.txt")
