"""A small made-up MNIST, for tests in this process and in others."""

from __future__ import annotations

from typing import Any

import numpy as np

import xpdl


def digits(n: int, seed: int) -> tuple[Any, Any]:
    """Return images (N, 1, 28, 28) of bars, one place a class, and their classes."""
    rng = np.random.default_rng(seed)
    t = rng.integers(0, 10, n)
    x = 0.1 * rng.random((n, 1, 28, 28), dtype=np.float32)
    for image, label in zip(x, t, strict=True):
        image[0, 4:24, 4 + 2 * label : 6 + 2 * label] = 1
    return as_bytes(x) / np.float32(255), t  # what pixels of bytes can be


def as_bytes(x: Any) -> Any:
    return np.round(255 * x).astype(np.uint8)


def load_small(normalize: bool = True, flatten: bool = True, one_hot_label: bool = False) -> Any:
    shape = (-1, 784) if flatten else (-1, 1, 28, 28)
    return tuple(
        (xpdl.asarray((x if normalize else as_bytes(x)).reshape(shape)), xpdl.asarray(t))
        for x, t in (digits(300, 0), digits(60, 1))
    )
