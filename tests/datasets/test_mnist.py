"""MNIST as arrays on a backend, and the validation split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpdl.backends import get_backend
from xpdl.datasets import (
    CLASS_NAMES,
    DATA_SETS,
    encode_idx,
    load_fashion_mnist,
    load_mnist,
    read_mnist,
    split_validation,
)
from xpdl.errors import ArgumentError, BackendMismatchError, DTypeError, ShapeError

_rng = np.random.default_rng(3)
IMAGES = _rng.integers(0, 256, (12, 28, 28)).astype(np.uint8)
LABELS = _rng.integers(0, 10, 12).astype(np.uint8)


@pytest.fixture
def _few(monkeypatch):
    """Let 8 training and 4 test images stand for the whole of MNIST."""
    parts = (IMAGES[:8], LABELS[:8], IMAGES[8:], LABELS[8:])
    contents = [encode_idx(part) for part in parts]
    monkeypatch.setattr("xpdl.datasets.mnist.read_files", lambda name, offline=None: contents)


@pytest.mark.usefixtures("_few")
class TestLoading:
    def test_read_mnist_gives_the_published_bytes_on_the_host(self):
        data = read_mnist()
        for got, want in zip(data, (IMAGES[:8], LABELS[:8], IMAGES[8:], LABELS[8:]), strict=True):
            assert type(got) is np.ndarray
            assert got.dtype == np.uint8
            np.testing.assert_array_equal(got, want)
        data.x_train[0] = 0
        assert read_mnist().x_train[0].any()

    def test_the_books_defaults(self, backend):
        (x_train, t_train), (x_test, t_test) = load_mnist()
        assert x_train.shape == (8, 784)
        assert x_test.shape == (4, 784)
        assert x_train.dtype == x_test.dtype == np.float32
        assert t_train.dtype == t_test.dtype == np.int64
        for array in (x_train, t_train, x_test, t_test):
            assert backend.owns(array)
        np.testing.assert_array_equal(
            backend.to_numpy(x_train), IMAGES[:8].reshape(8, 784).astype(np.float32) / 255
        )
        np.testing.assert_array_equal(backend.to_numpy(t_test), LABELS[8:])

    def test_raw_pixels_in_the_shape_for_convolution(self, backend):
        (x_train, _), (x_test, _) = load_mnist(normalize=False, flatten=False)
        assert x_train.shape == (8, 1, 28, 28)
        assert x_test.dtype == np.uint8
        np.testing.assert_array_equal(backend.to_numpy(x_test)[:, 0], IMAGES[8:])

    def test_one_hot_labels(self, backend):
        (_, t_train), (_, t_test) = load_mnist(one_hot_label=True)
        hot = backend.to_numpy(t_train)
        assert hot.shape == (8, 10)
        assert hot.dtype == np.float32
        assert t_test.shape == (4, 10)
        np.testing.assert_array_equal(hot.argmax(axis=1), LABELS[:8])
        np.testing.assert_array_equal(hot.sum(axis=1), 1)

    def test_fashion_mnist_has_the_same_form(self, monkeypatch):
        asked = []

        def noting(name, offline=None):
            asked.append(name)
            return [encode_idx(part) for part in (IMAGES[:8], LABELS[:8], IMAGES[8:], LABELS[8:])]

        monkeypatch.setattr("xpdl.datasets.mnist.read_files", noting)
        (x_train, t_train), _ = load_fashion_mnist(flatten=False)
        assert asked == ["fashion-mnist"]
        assert x_train.shape == (8, 1, 28, 28)
        assert t_train.shape == (8,)


def test_every_data_set_names_its_ten_classes():
    assert set(CLASS_NAMES) == set(DATA_SETS)
    assert CLASS_NAMES["mnist"] == tuple("0123456789")
    assert CLASS_NAMES["fashion-mnist"][9] == "Ankle boot"
    for names in CLASS_NAMES.values():
        assert len(set(names)) == 10


def test_the_published_files_have_the_lengths_that_their_shapes_take():
    for name in ("mnist", "fashion-mnist"):
        data = DATA_SETS[name]
        assert [file.size for file in data.files] == [47040016, 60008, 7840016, 10008]


@given(st.integers(2, 60), st.integers(0, 2**32), st.data())
def test_a_split_holds_every_example_once_with_its_label(examples, seed, data):
    count = data.draw(st.integers(1, examples - 1))
    x = np.arange(examples * 2, dtype=np.float32).reshape(examples, 2)
    t = np.arange(examples)
    (x_train, t_train), (x_val, t_val) = split_validation(x, t, count, seed)
    assert len(x_val) == len(t_val) == count
    assert len(x_train) == len(t_train) == examples - count
    np.testing.assert_array_equal(x_train[:, 0], 2 * t_train)
    np.testing.assert_array_equal(x_val[:, 0], 2 * t_val)
    assert sorted([*t_train, *t_val]) == list(range(examples))


def test_a_split_is_the_same_on_every_device_and_stays_there(backend):
    x, t = np.arange(40, dtype=np.float32).reshape(20, 2), np.eye(20, dtype=np.float32)
    host = split_validation(x, t, 0.25, seed=5)
    born = split_validation(backend.asarray(x), backend.asarray(t), 0.25, seed=5)
    for host_part, born_part in zip(host, born, strict=True):
        for want, got in zip(host_part, born_part, strict=True):
            assert backend.owns(got)
            assert got.dtype == want.dtype
            np.testing.assert_array_equal(backend.to_numpy(got), want)


def test_host_arrays_stay_on_the_host_whatever_is_active(backend):
    (x_train, _), _ = split_validation(np.zeros((4, 2)), np.arange(4), 1)
    assert type(x_train) is np.ndarray
    assert get_backend() is backend


def test_a_split_is_shuffled_seeded_and_a_copy():
    x, t = np.zeros((100, 1)), np.arange(100)
    first, again, other = (split_validation(x, t, 20, seed)[1][1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (np.diff(first) < 0).any()
    split_validation(x, t, 20)[0][0][:] = 1
    assert not x.any()


@pytest.mark.parametrize(
    ("share", "count"), [(0.2, 2), (0.25, 2), (0.26, 3), (np.float32(0.5), 5), (np.int64(3), 3)]
)
def test_a_share_is_rounded_to_whole_examples(share, count):
    assert len(split_validation(np.zeros((10, 1)), np.arange(10), share)[1][1]) == count


@pytest.mark.parametrize(
    "wrong", [0, 10, 11, -1, 0.0, 1.0, 2.5, -0.5, 0.01, 0.99, float("nan"), True, "0.2", None]
)
def test_a_split_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ArgumentError, match="fraction_or_count") as caught:
        split_validation(np.zeros((10, 1)), np.arange(10), wrong)
    assert repr(wrong) in str(caught.value)


def test_lengths_and_kinds_must_agree():
    with pytest.raises(ShapeError, match=r"\(10, 1\).*\(9,\)"):
        split_validation(np.zeros((10, 1)), np.arange(9), 2)
    with pytest.raises(ShapeError, match=r"\(\)"):
        split_validation(np.zeros(()), np.zeros(()), 1)
    with pytest.raises(DTypeError):
        split_validation([1, 2], [3, 4], 1)  # type: ignore[arg-type]


def test_two_devices_in_one_split_are_refused():
    t = get_backend("strict").asarray(np.arange(4))
    with pytest.raises(BackendMismatchError):
        split_validation(np.zeros((4, 1)), t, 1)
