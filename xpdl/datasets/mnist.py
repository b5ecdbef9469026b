"""MNIST and Fashion-MNIST as arrays, and a part of them set aside for validation."""

from __future__ import annotations

import operator
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from xpdl.arguments import flag, real_array, whole_number
from xpdl.backends import backend_of, get_backend
from xpdl.backends.base.types import Array
from xpdl.datasets.catalogue import DATA_SETS, find_data_set
from xpdl.datasets.idx import ByteArray, decode_idx
from xpdl.datasets.sources import read_files
from xpdl.errors import ArgumentError, ShapeError, UnknownNameError, shown

CLASSES = 10

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    name: data.class_names for name, data in DATA_SETS.items()
}
"""What the labels 0 to 9 stand for, by the name of the data set."""

Pair: TypeAlias = tuple[Array, Array]
"""Images or other examples, and their labels."""


class MnistArrays(NamedTuple):
    """A data set as it was published: uint8 arrays on the host.

    Images are (N, 28, 28), ink 255 on a ground of 0; labels are (N,), 0 to 9.
    """

    x_train: ByteArray
    t_train: ByteArray
    x_test: ByteArray
    t_test: ByteArray


def read_mnist(name: str = "mnist", offline: bool | None = None) -> MnistArrays:
    """Return the images and labels of a data set as they were published.

    What is not in the local data folder is fetched into it; see `xpdl.datasets.sources`.

    Parameters
    ----------
    name : str
        'mnist' or 'fashion-mnist'.
    offline : bool, optional
        True never uses the network; None lets the variable ``XPDL_OFFLINE`` say so.

    Returns
    -------
    MnistArrays
        Host arrays of uint8: 60,000 training images (N, 28, 28) and labels (N,), then 10,000
        test images and labels.

    Raises
    ------
    UnknownNameError
        If there is no data set of that name.
    DataFileError
        If a file in the data folder is truncated or altered.
    DataUnavailableError
        If no source has the data.
    FileAccessError
        If the data folder cannot be read or written.
    """
    files = find_data_set(name).files
    if len(files) != len(MnistArrays._fields):
        fitting = [
            each for each, data in DATA_SETS.items() if len(data.files) == len(MnistArrays._fields)
        ]
        raise UnknownNameError("data set of IDX files", name, fitting)
    contents = read_files(name, offline)
    return MnistArrays(
        *(
            decode_idx(content, file.name, len(file.shape))
            for content, file in zip(contents, files, strict=True)
        )
    )


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[Pair, Pair]:
    """Return MNIST on the active backend, in the form of the book's function of this name.

    Parameters
    ----------
    normalize : bool
        True gives float32 pixels from 0 to 1, False uint8 pixels from 0 to 255.
    flatten : bool
        True gives images (N, 784), False (N, 1, 28, 28).
    one_hot_label : bool
        True gives labels (N, 10) in float32, with a 1 in the column of the class; False gives
        class numbers (N,) in int64.

    Returns
    -------
    ((x_train, t_train), (x_test, t_test))
        60,000 training and 10,000 test examples.

    Raises
    ------
    ArgumentError
        If one of the three is neither True nor False.
    DataFileError, DataUnavailableError, FileAccessError
        As `read_mnist`.
    """
    return _load("mnist", normalize, flatten, one_hot_label)


def load_fashion_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[Pair, Pair]:
    """Return Fashion-MNIST, articles of clothing in MNIST's form, as `load_mnist` does.

    ``CLASS_NAMES["fashion-mnist"]`` says what the classes are.
    """
    return _load("fashion-mnist", normalize, flatten, one_hot_label)


def _load(name: str, normalize: bool, flatten: bool, one_hot_label: bool) -> tuple[Pair, Pair]:
    normalize, flatten = flag("normalize", normalize), flag("flatten", flatten)
    one_hot_label = flag("one_hot_label", one_hot_label)
    data = read_mnist(name)
    asarray = get_backend().asarray

    def born(x: ByteArray, t: ByteArray) -> Pair:
        return (
            asarray(_prepare_images(x, normalize, flatten)),
            asarray(_prepare_labels(t, one_hot_label)),
        )

    return born(data.x_train, data.t_train), born(data.x_test, data.t_test)


def _prepare_images(images: ByteArray, normalize: bool, flatten: bool) -> np.ndarray[Any, Any]:
    shaped = images.reshape(len(images), -1) if flatten else images[:, np.newaxis]
    if not normalize:
        return shaped
    # On the host, so that the pixels are the same to the bit on every device.
    pixels = shaped.astype(np.float32)
    pixels /= 255
    return pixels


def _prepare_labels(labels: ByteArray, one_hot: bool) -> np.ndarray[Any, Any]:
    if one_hot:
        return np.eye(CLASSES, dtype=np.float32)[labels]
    return labels.astype(np.int64)


def split_validation(
    x: Array, t: Array, fraction_or_count: float, seed: int = 0
) -> tuple[Pair, Pair]:
    """Set a random part of the training data aside for validation.

    Parameters
    ----------
    x : array (N, ...)
        Examples, on any backend.
    t : array (N,) or (N, classes)
        Their labels, on the same backend.
    fraction_or_count : float or int
        A float between 0 and 1 is the share of examples to set aside; the number of them is
        ``round(fraction * N)``, so 0.25 of 10 examples is 2. An int of 1 or more is that number
        itself.
    seed : int
        The same seed gives the same split, on every backend.

    Returns
    -------
    ((x_train, t_train), (x_validation, t_validation))
        Copies in shuffled order, on the backend of `x` and `t`. Together they hold every
        example once.

    Raises
    ------
    DTypeError
        If `x` or `t` is no array of real numbers.
    BackendMismatchError
        If they live on different backends.
    ShapeError
        If `x` and `t` have no or different lengths.
    ArgumentError
        If `fraction_or_count` is neither of the two, or leaves one of the parts empty; or if
        `seed` is no int of 0 or more.
    """
    backend = backend_of(real_array("x", x), real_array("t", t))
    seed = whole_number("seed", seed, least=0)
    if x.ndim == 0 or t.ndim == 0 or len(x) != len(t):
        raise ShapeError(
            f"x and t must have one label per example, got the shapes {x.shape} and {t.shape}."
        )
    count = _validation_count(len(x), fraction_or_count)
    order = np.random.default_rng(seed).permutation(len(x))
    train, validation = backend.asarray(order[count:]), backend.asarray(order[:count])
    return (x[train], t[train]), (x[validation], t[validation])


def _validation_count(examples: int, fraction_or_count: float) -> int:
    wanted = (
        "fraction_or_count must be a float between 0 and 1 (a share) or an int of 1 or more "
        f"(a number of examples), got {shown(fraction_or_count)}"
    )
    if isinstance(fraction_or_count, (bool, np.bool_)):
        raise ArgumentError(f"{wanted}.")
    try:
        count = operator.index(fraction_or_count)  # type: ignore[arg-type]
    except TypeError:
        if not (isinstance(fraction_or_count, (float, np.floating)) and 0 < fraction_or_count < 1):
            raise ArgumentError(f"{wanted}.") from None
        count = round(float(fraction_or_count) * examples)
    if not 0 < count < examples:
        raise ArgumentError(
            f"{wanted}: of {examples} example(s), {shown(count)} for validation leave one part "
            "empty."
        )
    return count
