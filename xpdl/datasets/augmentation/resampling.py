"""Pictures seen through a map of the plane."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from xpdl.backends import Array, accumulation_dtype, array_module, backend_of


def resample(x: Array, maps: Array, fill: float = 0.0, bends: Array | None = None) -> Array:
    """Return pictures seen through affine maps.

    (r, s, 1) = A (i - (H-1)/2, j - (W-1)/2, 1) + ((H-1)/2, (W-1)/2, 0) is where pixel (i, j) of
    the new picture comes from: row r and column s, which need not be whole. With i' = floor(r),
    a = r - i', j' = floor(s) and b = s - j', by bilinear interpolation,

    y[i, j] = (1-a) (1-b) x[i', j'] + (1-a) b x[i', j'+1] + a (1-b) x[i'+1, j'] + a b x[i'+1, j'+1]

    with `fill` in place of pixels beyond the edges. Where r and s are whole, y[i, j] is x[r, s] to
    the last bit.

    Parameters
    ----------
    x : array (N, C, H, W)
    maps : array (N, 3, 3)
        One A for each picture, about its centre, in pixels, rows downwards. What it is computed
        in is their type, float32 or float64.
    fill : float
    bends : array (N, 2, H, W), optional
        What is added to i and to j before A, of the type of `maps`: then the map is not affine.
    """
    xp, (n, c, h, w) = array_module(x), x.shape
    A = maps[:, :2, :, None, None]
    i, j = (xp.arange(size, dtype=maps.dtype) - (size - 1) / 2 for size in (h, w))
    i = i[:, None]
    if bends is not None:
        i, j = i + bends[:, 0], j + bends[:, 1]
    # No matrix product: a GPU may round its factors (TF32), and whole numbers must stay whole.
    r, s = (A[:, k, 0] * i + A[:, k, 2] + A[:, k, 1] * j for k in (0, 1))
    (top, a), (left, b) = _split(r + (h - 1) / 2, h), _split(s + (w - 1) / 2, w)
    padded = backend_of(x).pad(x.astype(maps.dtype, copy=False), (1, 1), fill)
    planes = xp.arange(n * c).reshape(n, c, 1, 1) * ((h + 2) * (w + 2))
    corner = planes + ((top + 1) * (w + 2) + left + 1)[:, None]
    a, b = a[:, None], b[:, None]

    def rows(first: int) -> Array:
        """Interpolate along the rows that begin `first` numbers behind the upper one."""
        left, right = (xp.take(padded.reshape(-1)[first + k :], corner) for k in (0, 1))
        return (1 - b) * left + b * right

    y = (1 - a) * rows(0) + a * rows(w + 2)
    return y.astype(x.dtype, copy=False)


def _split(position: Array, size: int) -> tuple[Array, Array]:
    """Return the whole part, from -1 to size - 1, and the rest, from 0 to 1, of positions."""
    xp = array_module(position)
    position = xp.clip(position, -1, size)  # further out there is nothing else to be seen
    whole = xp.minimum(xp.floor(position), size - 1)
    return whole.astype(np.int64), position - whole


def _product(a: Array, b: Array) -> Array:
    """Return the matrix products of a (N, 3, 3) and b, with no factor rounded (see `resample`)."""
    return (a[:, :, :, None] * b[:, None, :, :]).sum(axis=2)


def in_turn(x: Array, maps: Sequence[Array]) -> Array:
    """Return one map of pictures x for all of `maps`; none of them is the identity.

    y(p) = x(A1 q) at q = A2 p: the first step's map is applied last.
    """
    return reduce(_product, maps) if maps else make_maps(x, [(1, 0, 0), (0, 1, 0)])


def make_maps(x: Array, rows: Sequence[Sequence[Array | float]]) -> Array:
    """Return the maps of pictures x, (N, 3, 3), of two rows of numbers or arrays (N,)."""
    maps: Array = array_module(x).zeros((len(x), 3, 3), dtype=accumulation_dtype(x.dtype))
    for i, row in enumerate([*rows, (0, 0, 1)]):
        for j, entry in enumerate(row):
            maps[:, i, j] = entry
    return maps
