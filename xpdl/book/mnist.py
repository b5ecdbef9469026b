"""The book's ``dataset.mnist``, on data that xpdl fetches and verifies."""

from __future__ import annotations

import numpy as np

from xpdl import datasets
from xpdl.backends import Array, use_backend
from xpdl.datasets.mnist import read_mnist

__all__ = ["init_mnist", "load_mnist", "np"]

Pair = tuple[Array, Array]


def init_mnist() -> None:
    """Fetch the data into xpdl's folder, if it is not there, and verify it."""
    read_mnist()


def load_mnist(
    normalize: bool = True, flatten: bool = True, one_hot_label: bool = False
) -> tuple[Pair, Pair]:
    """Return ((x_train, t_train), (x_test, t_test)), NumPy arrays of 60,000 and 10,000 examples.

    Parameters
    ----------
    normalize : bool
        True gives float32 pixels from 0 to 1, False uint8 pixels from 0 to 255.
    flatten : bool
        True gives images (N, 784), False (N, 1, 28, 28).
    one_hot_label : bool
        True gives labels (N, 10) in float64, False class numbers (N,) in uint8, as the book's.
    """
    with use_backend("numpy"):
        train, test = datasets.load_mnist(bool(normalize), bool(flatten), bool(one_hot_label))
    dtype = np.float64 if one_hot_label else np.uint8
    (x_train, t_train), (x_test, t_test) = train, test
    return (x_train, t_train.astype(dtype)), (x_test, t_test.astype(dtype))
