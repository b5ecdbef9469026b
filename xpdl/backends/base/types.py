"""What primitives are written in: arrays, shapes, numbers, and how they are summed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from xpdl.errors import BackendMismatchError, DTypeError, ShapeError, shown

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
"""An array of some backend. CuPy's has the same methods, so NumPy's type stands for all."""

Pair: TypeAlias = tuple[int, int]

Pads: TypeAlias = tuple[Pair, Pair]
"""Rows above and below an image, columns left and right of it."""

Pairs: TypeAlias = tuple[Pair, Pair]
"""Of a convolution: its stride and its pad. Of a pooling: its size and its stride."""

Geometry: TypeAlias = tuple[Pair, Pair, Pair, int]
"""Of a convolution: stride, pad, dilation, groups."""

Normal: TypeAlias = tuple[Array, Array, Array]
"""A normalisation factor (x - mean) + shift: mean, factor and shift, one number a feature."""

Shape: TypeAlias = tuple[int, ...]

Number: TypeAlias = float | Array
"""A number of the host, or one that lives on the device as an array ()."""

Step: TypeAlias = Callable[..., Any]
"""A function of arrays, tuples of them, or None, that returns an array or a tuple of them."""


def accumulation_dtype(dtype: Any) -> np.dtype[Any]:
    """Return the type in which numbers of `dtype` are summed: float32 at least.

    Integers are summed in float32 as well, since float64 is slow on most devices.
    """
    dtype = np.dtype(dtype)
    return np.promote_types(dtype, np.float32) if dtype.kind == "f" else np.dtype(np.float32)


def output_size(size: int, window: int, stride: int, pad: int) -> int:
    """Return how many windows fit along an axis: (size + 2 pad - window) // stride + 1."""
    return (size + 2 * pad - window) // stride + 1


def spread(window: int, dilation: int) -> int:
    """Return over how many pixels a window reaches, its numbers `dilation` apart."""
    return (window - 1) * dilation + 1


def counts_of(image: Sequence[int], size: Pair, stride: Pair, pad: Pair, dilation: Pair) -> Pair:
    """Return how many windows fit down and across an image (H, W)."""
    axes = zip(image, size, stride, pad, dilation, strict=True)
    down, across = (output_size(n, spread(k, d), s, p) for n, k, s, p, d in axes)
    return down, across


def written(value: Array, place: Array | None) -> Array:
    """Return `place` with `value` written into it; without a place, the value itself."""
    if place is None:
        return value
    place[...] = value
    return place


def others(x: Array) -> tuple[int, ...]:
    """Return all axes but that of the features."""
    return (0, *range(2, x.ndim))


def along(features: Array, x: Array) -> Array:
    """Shape `features` (C,) so that it lies along axis 1 of x."""
    return features.reshape(-1, *(1,) * (x.ndim - 2))


def by_group(rows: Array, groups: int) -> Array:
    """Return a view (groups, R, K/groups) of rows (R, K)."""
    return rows.reshape(len(rows), groups, rows.shape[1] // groups).transpose(1, 0, 2)


def host_array(a: Any) -> Array:
    """Return `a` as a NumPy array, if it is on the host and holds numbers."""
    if isinstance(a, np.ndarray):
        array: Array = a
    elif hasattr(a, "__cuda_array_interface__") or hasattr(a, "__xpdl_device__"):
        raise BackendMismatchError(
            f"an array of type {type(a).__module__}.{type(a).__name__} lives on another device; "
            "bring it to the host with xpdl.to_numpy(a) first."
        )
    else:
        try:
            array = np.asarray(a)
        except ValueError as error:
            raise ShapeError(f"an array must be rectangular, got {shown(a)}.") from error
    if array.dtype.kind not in "biuf":
        raise DTypeError(
            f"an array must hold numbers, got dtype {array.dtype}; "
            "give integers, floats or booleans."
        )
    return array
