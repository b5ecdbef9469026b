"""Convolutions of any size and stride on the backend ``numba``, as the direct sum.

The heart is one small product, `multiply_places`. It reads a matrix that is never laid out,
A[t, k] = x[rows[t] + columns[k]]: with rows the places of windows in an image and columns the
places within a window, A is im2col, and A F a convolution; with the two exchanged, A is im2col
transposed, and A G the gradient of the filters. Its sums stay in the processor's vector registers;
`direct` has the loops around it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Pair, Shape, output_size
from xpdl.backends.numba.direct import add_parts, multiply_windows, panels, sum_windows
from xpdl.backends.numba.sharing import cut, share
from xpdl.backends.numba.vectors import LANES, ROWS
from xpdl.backends.numpy.memory import pool

# The sums of all parts of the images, for the gradient of filters, may take so many bytes; where
# there are fewer parts than this, filters are cut, too.
SUMS_BYTES = 4 * 1024 * 1024
PARTS = 8

_PANEL = 2 * LANES


def convolution(
    image: Array,
    shape: Shape,
    W: Array,
    b: Array | None,
    stride: Pair,
    pad: Pair,
    relu: bool,
    factors: Array | None = None,
) -> Array:
    """Return y (N, OH, OW, FN) of flat images of a shape (N, C, H, W), and W (FN, C, FH, FW).

    The filters are multiplied by `factors` (FN,), if these are given.
    """
    (n, c, h, w), (fn, _, fh, fw) = shape, W.shape
    oh, ow = output_size(h, fh, stride[0], pad[0]), output_size(w, fw, stride[1], pad[1])
    rows, columns = _places(h, w, c, (fh, fw), stride, pad)
    targets = _lines(oh * ow, fn)
    filters = _panels(W.transpose(1, 0, 2, 3), factors)
    biases = np.zeros(-(-fn // _PANEL) * _PANEL, np.float32)
    if b is not None:
        biases[:fn] = b
    y = pool.empty((n, oh, ow, fn), np.float32)
    flat = y.reshape(-1)
    numbers = (image, (h, w, c), pad, rows, columns, filters, biases, fn, relu)
    bounds = cut(n, len(rows) * len(columns) * fn)
    share(bounds, multiply_windows, *numbers, flat, oh * ow * fn, targets)
    return y


def backward(
    gradient: Array,
    image: Array,
    shape: Shape,
    W: Array,
    counts: Pair,
    stride: Pair,
    pad: Pair,
    need_dx: bool,
) -> tuple[Array | None, Array, Array]:
    """Return dx (N, H, W, C), dW and db, of flat images and the flat gradient of results."""
    dx = _image_gradient(gradient, shape, W, counts, stride, pad) if need_dx else None
    return dx, *_filters_gradient(gradient, image, shape, W.shape, stride, pad)


def _image_gradient(
    gradient: Array, shape: Shape, W: Array, counts: Pair, stride: Pair, pad: Pair
) -> Array:
    (n, c, h, w), (fn, _, *size), (oh, ow) = shape, W.shape, counts
    border, phases = _phases((h, w), (oh, ow), c, fn, (size[0], size[1]), stride, pad)
    dx = pool.empty((n, h, w, c), np.float32)
    flat, no_biases = dx.reshape(-1), np.zeros(-(-c // _PANEL) * _PANEL, np.float32)
    for there, taps, pixels, down, across in phases:
        packed = _panels(W[:, :, down, across])
        numbers = (gradient, (oh, ow, fn), border, there, taps, packed, no_biases, c, False)
        bounds = cut(n, len(there) * len(taps) * c)
        share(bounds, multiply_windows, *numbers, flat, h * w * c, pixels)
    return dx


def _filters_gradient(
    gradient: Array, image: Array, shape: Shape, W: Shape, stride: Pair, pad: Pair
) -> tuple[Array, Array]:
    """Return dW (FN, C, FH, FW) and db (FN,).

    The images are cut into parts, each with sums of its own; where those are large, there are few,
    and the filters are cut into ranges, too.
    """
    (n, c, h, w), (fn, _, *size) = shape, W
    rows, columns = _places(h, w, c, (size[0], size[1]), stride, pad)
    columns, line = _whole_tiles(columns), -(-fn // LANES) * LANES
    panels = -(-fn // _PANEL)
    numbers = len(columns) * line
    parts = max(1, min(n, 16, SUMS_BYTES // (4 * numbers)))
    splits = max(1, min(panels, -(-PARTS // parts)))
    targets = _lines(len(columns), line)
    sums, db = pool.empty((parts, numbers), np.float32), np.empty((parts, fn), np.float32)
    dW = pool.empty((fn, c, *size), np.float32)
    if n == 0:
        sums[...] = 0
    bounds = cut(parts * splits, n * len(rows) * numbers // (parts * splits))
    where = (image, (h, w, c), pad, rows, columns, gradient, fn)
    share(bounds, sum_windows, *where, sums, db, targets, n, splits)
    share(cut(panels, 4 * parts * numbers // panels), add_parts, sums, line, dW)
    return dW, db.sum(axis=0)


def _panels(filters: Array, factors: Array | None = None) -> Array:
    """Return filters (C, FN, FH, FW), in any memory, as `panels` lays them out."""
    c, fn, fh, fw = filters.shape
    factors = np.ones(fn, np.float32) if factors is None else factors
    packed = np.empty(fh * fw * c * -(-fn // LANES) * LANES, np.float32)
    share(cut(-(-fn // _PANEL), 4 * fh * fw * c * _PANEL), panels, filters, factors, packed)
    return packed


@lru_cache(maxsize=512)
def _lines(count: int, width: int) -> Array:
    """Return where each of `count` lines begins."""
    return np.arange(count) * width


def _whole_tiles(places: Array) -> Array:
    """Return places with the last repeated, up to a multiple of a tile's rows."""
    return np.concatenate([places, np.repeat(places[-1:], -len(places) % ROWS)])


@lru_cache(maxsize=512)
def _places(h: int, w: int, c: int, size: Pair, stride: Pair, pad: Pair) -> tuple[Array, Array]:
    """Return where windows begin in a padded image (H, W, C), and where their numbers lie."""
    oh, ow = (output_size(*axis) for axis in zip((h, w), size, stride, pad, strict=True))
    wide = w + 2 * pad[1]
    down, right = np.arange(oh) * stride[0], np.arange(ow) * stride[1]
    rows = (down[:, None] * wide + right) * c
    places = (np.arange(size[0])[:, None] * wide + np.arange(size[1])) * c
    return rows.reshape(-1), (places[..., None] + np.arange(c)).reshape(-1)


@lru_cache(maxsize=512)
def _phases(
    image: Pair, counts: Pair, c: int, fn: int, size: Pair, stride: Pair, pad: Pair
) -> tuple[Pair, list[tuple[Array, Array, Array, slice, slice]]]:
    """Return how to gather dx (H, W, C) from the gradient (OH, OW, FN), without adding back.

    A pixel y was seen by window i through tap u where y + pad = i stride + u. So pixels with equal
    (y + pad) mod stride, a phase, share their taps, and their windows are i0, i0 - 1, ...

    Returns
    -------
    border : (int, int)
        Zeros that the gradient wants around it.
    phases : list of (rows, columns, targets, taps down, taps across)
        The first three for `multiply_windows`; the last two say which filters' numbers.
    """
    axes = []
    for extent, out, f, s, p in zip(image, counts, size, stride, pad, strict=True):
        axis = []
        for phase in range(min(s, extent)):
            pixels = np.array([y for y in range(extent) if (y + p) % s == (phase + p) % s])
            axis.append((pixels, (pixels + p) // s, slice((phase + p) % s, f, s)))
        before = max(len(range(f)[taps]) - 1 - int(windows[0]) for _, windows, taps in axis)
        after = max(int(windows[-1]) - (out - 1) for _, windows, _ in axis)
        axes.append((axis, max(0, before, after)))
    (vertical, top), (horizontal, left) = axes
    wide = counts[1] + 2 * left
    phases: list[tuple[Any, Any, Any, slice, slice]] = []
    for ys, i, u in vertical:
        for xs, j, v in horizontal:
            rows = ((i[:, None] + top) * wide + j + left) * fn
            steps = (np.arange(len(range(f)[taps])) for f, taps in zip(size, (u, v), strict=True))
            back = -(next(steps)[:, None] * wide + next(steps)) * fn
            columns = back[..., None] + np.arange(fn)
            targets = (ys[:, None] * image[1] + xs) * c
            phases.append((rows.reshape(-1), columns.reshape(-1), targets.reshape(-1), u, v))
    return (top, left), phases
