"""Winograd's minimal filtering F(2x2, 3x3): 3x3 convolutions of stride 1 with 2.25 times less.

An image is cut into tiles of 4x4 pixels that overlap by two, each with 2x2 results:

Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A        (Lavin and Gray, arXiv:1509.09308)

for a tile d and a filter g; * is element by element, so over all tiles and filters it is 16 matrix
products. Backward for filters is the same read backwards, dg = G^T [sum over tiles of (B^T d B) *
(A dY A^T)] G; dL/dx is a convolution of dL/dy with the filters turned round.

A block of tiles is transformed, multiplied and transformed back while it stays in a core's cache.
The channels of all of them lie in registers' widths: (16, C / LANES, tiles, LANES).
"""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np

from xpdl.backends.base import Array, Pair, Shape
from xpdl.backends.numba.kernels import tile
from xpdl.backends.numba.sharing import Shares, begin, compiled, cut, next_part, share
from xpdl.backends.numba.vectors import (
    FILTERS,
    FILTERS_GRADIENT,
    IMAGE,
    LANES,
    RESULT,
    RESULT_GRADIENT,
    ROWS,
    transform_tile,
)
from xpdl.backends.numpy.memory import pool, scratch
from xpdl.errors import ArgumentError

BLOCK_BYTES = 768 * 1024
"""What a block's tiles and their products take, of a core's second cache."""

FEWEST_TILES, MOST_TILES = 32, 256
"""So many in a block: filters are read from far for each block, and sums written."""

OUTSIDE = -(1 << 40)
"""Added to any place, it is before the array's beginning."""

_SINGLE = np.dtype(np.float32)
_SUMS_BYTES = 32 * 1024 * 1024


def chosen(shape: Shape, W: Shape, stride: Pair, pad: Pair) -> bool:
    """Tell whether a convolution of images of `shape` is computed so: by its shapes alone.

    Unless ``XPDL_CONVOLUTION=direct``.
    """
    way = os.environ.get("XPDL_CONVOLUTION") or "fastest"
    if way not in ("fastest", "direct"):
        raise ArgumentError(f"XPDL_CONVOLUTION must be 'fastest' or 'direct', got {way!r}.")
    fn, c, *size = W
    fits = size == [3, 3] and stride == (1, 1) and c % LANES == 0 and fn % LANES == 0
    return way == "fastest" and fits and shape[0] > 0 and max(pad) <= 2


def convolution(image: Array, shape: Shape, W: Array, b: Array | None, pad: Pair, relu: bool) -> Array:  # fmt: skip
    """Return y (N, OH, OW, FN) of flat images, whose shape is (N, C, H, W), and W (C, FN, 3, 3)."""
    (n, c, h, w), fn = shape, W.shape[1]
    oh, ow = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    u = _transformed_filters(W)
    down, across = _places(h, oh, 4, pad[0], w * c), _places(w, ow, 4, pad[1], c)
    y_down, y_across = _places(oh, oh, 2, 0, ow * fn), _places(ow, ow, 2, 0, fn)
    tiles = n * (len(down) // 4) * (len(across) // 4)
    block = _block(c, fn, tiles)
    y = pool.empty((n, oh, ow, fn), np.float32)
    flat, biases = y.reshape(-1), np.zeros(fn, np.float32) if b is None else b
    least = np.float32(0 if relu else -np.inf)

    rooms = (("tiles", c), ("products", fn))

    def work(shares: Shares) -> None:
        v, m = (scratch(name, (16 * _steps(k, block)[1],), _SINGLE) for name, k in rooms)
        convolve_tiles(
            *(image, (h * w * c, c), down, across, u, biases, least),
            *(flat, (oh * ow * fn, fn), y_down, y_across, v, m, tiles, block, shares, 0),
        )

    share(cut(-(-tiles // block), block * 16 * c * fn), work)
    return y


def filters_gradient(
    image: Array, shape: Shape, gradient: Array, counts: Pair, fn: int, pad: Pair
) -> tuple[Array, Array]:
    """Return dW (FN, C, 3, 3) and db (FN,), of flat images and the flat gradient of results."""
    (n, c, h, w), (oh, ow) = shape, counts
    down, across = _places(h, oh, 4, pad[0], w * c), _places(w, ow, 4, pad[1], c)
    g_down, g_across = _places(oh, oh, 2, 0, ow * fn), _places(ow, ow, 2, 0, fn)
    tiles = n * (len(down) // 4) * (len(across) // 4)
    block = _block(c, fn, tiles)
    blocks, size = -(-tiles // block), 16 * _apart(c * fn)
    most = max(2, min(16, _SUMS_BYTES // (4 * size)))
    bounds = cut(blocks, block * size, most)
    parts = pool.empty((len(bounds) - 1, size), np.float32)
    db = np.empty((len(bounds) - 1, fn), np.float32)
    dW = pool.empty((fn, c, 3, 3), np.float32)

    rooms = (("tiles", c), ("products", fn))

    def work(shares: Shares) -> None:
        v, z = (scratch(name, (16 * _steps(k, block)[1],), _SINGLE) for name, k in rooms)
        sum_tiles(
            *(image, (h * w * c, c), down, across, gradient, (oh * ow * fn, fn), g_down, g_across),
            *(parts, db, v, z, tiles, block, shares, 0),
        )

    def finish(shares: Shares) -> None:
        gradient_of_filters(parts, dW, shares, 0)

    share(bounds, work)
    share(cut(-(-fn // (2 * LANES)), len(parts) * 4 * 16 * c * 2 * LANES), finish)
    return dW, db.sum(axis=0)


def _block(c: int, fn: int, tiles: int) -> int:
    """Return how many tiles are transformed and multiplied together."""
    fit = BLOCK_BYTES // (16 * 4 * (c + fn))
    whole = -(-min(max(fit, FEWEST_TILES), MOST_TILES, tiles) // ROWS)
    return whole * ROWS


def _transformed_filters(W: Array) -> Array:
    """Return G g G^T of filters (C, FN, 3, 3), (16, panels, C, one or two registers)."""
    c, fn = W.shape[:2]
    u = pool.empty((16 * _apart(c * fn),), np.float32)

    def work(shares: Shares) -> None:
        transform_filters(W, u, shares, 0)

    share(cut(-(-fn // (2 * LANES)), 4 * 25 * c * 2 * LANES), work)
    return u


@lru_cache(maxsize=512)
def _places(extent: int, out: int, size: int, pad: int, step: int) -> Array:
    """Return where each tile's `size` pixels of one axis lie, `step` apart; two results a tile."""
    pixels = 2 * np.arange(-(-out // 2))[:, None] + np.arange(size) - pad
    return np.where((pixels >= 0) & (pixels < extent), pixels * step, OUTSIDE).reshape(-1)


@compiled
def _apart(count):
    """Return a distance of at least so many numbers, an odd number of registers' widths.

    At a large power of two from one another, all numbers of a tile would want the same few lines
    of the first cache.
    """
    return (-(-count // LANES) | 1) * LANES


@compiled
def _steps(c, block):
    """Return how far a block's channels, a register's width each, and its 16 matrices are apart."""
    step = _apart(block * LANES)
    return step, _apart(c // LANES * step)


@compiled
def _grid(size, step):
    """Return the places of a square's rows and columns, in steps."""
    return np.arange(size) * size * step, np.arange(size) * step


@compiled
def _channels(c, step):
    """Return where the channels of one tile lie in a block."""
    k = np.arange(c)
    return k // LANES * step + k % LANES


@compiled
def convolve_tiles(
    x, image, x_down, x_across, u, biases, least,
    y, results, y_down, y_across, v, m, tiles, block, shares, which,
):  # fmt: skip
    """Y = A^T [(G g G^T) (B^T d B)] A + biases of all tiles, and no less than `least`.

    `image` and `results` are the sizes of one image and of one pixel; u is (G g G^T) as
    `transform_filters` lays it, v and m are room for a block's (B^T d B) and its products.
    """
    begin(shares)
    (x_size, c), (y_size, fn) = image, results
    rows, columns = len(x_down) // 4, len(x_across) // 4
    step, v_step = _steps(c, block)
    _, m_step = _steps(fn, block)
    u_step = _apart(c * fn)
    v_down, v_across = _grid(4, v_step)
    m_down, m_across = _grid(4, m_step)
    lines, channels = np.arange(block) * LANES, _channels(c, step)
    nothing, spare = np.zeros(max(c, fn, 2 * LANES), np.float32), np.empty(max(c, fn), np.float32)
    part, first, last = next_part(shares, which)
    while part >= 0:
        for b in range(first, last):
            begun, count = b * block, min(block, tiles - b * block)
            for p in range(count):
                i, place = divmod(begun + p, rows * columns)
                row, column = divmod(place, columns)
                transform_tile(
                    IMAGE, x, i * x_size, x_down, 4 * row, x_across, 4 * column, LANES, nothing,
                    v, p * LANES, v_down, 0, v_across, 0, step, spare, c // LANES, biases, least,
                )  # fmt: skip
            for t in range(16):
                for f in range(0, fn, 2 * LANES):
                    two = fn - f > LANES
                    for r in range(0, count, ROWS):
                        tile(
                            two, v, t * v_step, lines, r, channels,
                            u, t * u_step + f * c, 2 * LANES if two else LANES, LANES, nothing,
                            0, 0, m, t * m_step + f // LANES * step, lines, r, step,
                        )  # fmt: skip
            for p in range(count):
                i, place = divmod(begun + p, rows * columns)
                row, column = divmod(place, columns)
                transform_tile(
                    RESULT, m, p * LANES, m_down, 0, m_across, 0, step, nothing, y, i * y_size,
                    y_down, 2 * row, y_across, 2 * column, LANES, spare, fn // LANES, biases, least,
                )  # fmt: skip
        part, first, last = next_part(shares, which)


@compiled
def sum_tiles(
    x, image, x_down, x_across, gradient, results, g_down, g_across,
    sums, db, v, z, tiles, block, shares, which,
):  # fmt: skip
    """sums[part] = sum over its tiles of (B^T d B) (A dY A^T); db[part] = that of dY."""
    begin(shares)
    (x_size, c), (g_size, fn) = image, results
    rows, columns = len(x_down) // 4, len(x_across) // 4
    step, v_step = _steps(c, block)
    _, z_step = _steps(fn, block)
    u_step = _apart(c * fn)
    v_down, v_across = _grid(4, v_step)
    z_down, z_across = _grid(4, z_step)
    lines, channels = np.arange(block) * LANES, _channels(c, step)
    singles, pairs = np.arange(c) * LANES, np.arange(c) * 2 * LANES
    nothing, spare = np.zeros(max(c, fn, 2 * LANES), np.float32), np.empty(max(c, fn), np.float32)
    least = np.float32(0)
    part, first, last = next_part(shares, which)
    while part >= 0:
        total = sums[part]
        db[part, :] = 0
        for b in range(first, last):
            begun, count = b * block, min(block, tiles - b * block)
            for p in range(count):
                i, place = divmod(begun + p, rows * columns)
                row, column = divmod(place, columns)
                transform_tile(
                    IMAGE, x, i * x_size, x_down, 4 * row, x_across, 4 * column, LANES, nothing,
                    v, p * LANES, v_down, 0, v_across, 0, step, spare, c // LANES, nothing, least,
                )  # fmt: skip
                transform_tile(
                    RESULT_GRADIENT, gradient, i * g_size, g_down, 2 * row, g_across, 2 * column,
                    LANES, nothing, z, p * LANES, z_down, 0, z_across, 0, step, spare, fn // LANES,
                    nothing, least,
                )  # fmt: skip
            pixels = lines[:count]
            for t in range(16):
                for f in range(0, fn, 2 * LANES):
                    two = fn - f > LANES
                    width, targets = (2 * LANES, pairs) if two else (LANES, singles)
                    at, z0 = t * u_step + f * c, t * z_step + f // LANES * step
                    for k in range(0, c, ROWS):
                        if b == first:
                            tile(
                                two, v, t * v_step, channels, k, pixels,
                                z, z0, LANES, step, nothing, 0, 0,
                                total, at, targets, k, LANES,
                            )  # fmt: skip
                        else:
                            tile(
                                two, v, t * v_step, channels, k, pixels,
                                z, z0, LANES, step, total, at + k * width, width,
                                total, at, targets, k, LANES,
                            )  # fmt: skip
            for f in range(0, fn, LANES):  # (A dY A^T) holds the sum of a tile's gradients
                for p in range(count):
                    here = 5 * z_step + f // LANES * step + p * LANES
                    _add(z[here : here + LANES], db[part, f : f + LANES])
        part, first, last = next_part(shares, which)


@compiled
def _add(numbers, total):
    for j in range(len(total)):
        total[j] += numbers[j]


@compiled
def transform_filters(filters, u, shares, which):
    """Lay G g G^T of filters (C, FN, 3, 3) out as u, (16, panels, C, one or two registers)."""
    begin(shares)
    c, fn = filters.shape[:2]
    width = 2 * LANES
    down, across = _grid(3, width)
    u_down, u_across = _grid(4, _apart(c * fn))
    turned = np.zeros(9 * width, np.float32)
    nothing, least = np.zeros(width, np.float32), np.float32(0)
    part, first, last = next_part(shares, which)
    while part >= 0:
        for f in range(first * width, min(last * width, fn), width):
            many = min(width, fn - f)
            for i in range(c):
                for j in range(many):
                    for k in range(3):
                        for l in range(3):
                            turned[(3 * k + l) * width + j] = filters[i, f + j, k, l]
                transform_tile(
                    FILTERS, turned, 0, down, 0, across, 0, LANES, nothing,
                    u, f * c + i * many, u_down, 0, u_across, 0, LANES, nothing, many // LANES,
                    nothing, least,
                )  # fmt: skip
        part, first, last = next_part(shares, which)


@compiled
def gradient_of_filters(sums, dW, shares, which):
    """dW = G^T (sum of all parts' sums) G, (FN, C, 3, 3); the first part's are overwritten."""
    begin(shares)
    fn, c = dW.shape[:2]
    width = 2 * LANES
    u_step = _apart(c * fn)
    down, across = _grid(4, u_step)
    turned_down, turned_across = _grid(3, width)
    turned = np.zeros(9 * width, np.float32)
    nothing, least = np.zeros(width, np.float32), np.float32(0)
    part, first, last = next_part(shares, which)
    while part >= 0:
        for f in range(first * width, min(last * width, fn), width):
            many = min(width, fn - f)
            for more in range(1, len(sums)):
                for t in range(16):
                    here = slice(t * u_step + f * c, t * u_step + (f + many) * c)
                    _add(sums[more][here], sums[0][here])
            for i in range(c):
                transform_tile(
                    FILTERS_GRADIENT, sums[0], f * c + i * many, down, 0, across, 0, LANES, nothing,
                    turned, 0, turned_down, 0, turned_across, 0, LANES, nothing, many // LANES,
                    nothing, least,
                )  # fmt: skip
                for j in range(many):
                    for k in range(3):
                        for l in range(3):
                            dW[f + j, i, k, l] = turned[(3 * k + l) * width + j]
        part, first, last = next_part(shares, which)
