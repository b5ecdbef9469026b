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
from xpdl.backends.numba.sharing import Shares, begin, compiled, cut, next_part, share
from xpdl.backends.numba.vectors import (
    FILTERS,
    FILTERS_GRADIENT,
    IMAGE,
    LANES,
    RESULT,
    RESULT_GRADIENT,
    ROWS,
    multiply_rows,
    transform_tile,
)
from xpdl.backends.numpy.memory import pool, scratch
from xpdl.errors import ArgumentError

BLOCK_BYTES = 768 * 1024
"""What a block's tiles and their products take, of a core's second cache."""

FEWEST_TILES, MOST_TILES = 128, 256
"""So many in a block: filters are read from far for each block, and sums written."""

GROUP = int(os.environ.get("GROUP", 16))
PARTS = 8
BLOCK_BYTES = 1024 * int(os.environ.get("BB", 768))
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


def convolution(
    image: Array, shape: Shape, W: Array, b: Array | None, pad: Pair, relu: bool
) -> Array:
    """Return y (N, OH, OW, FN) of flat images, whose shape is (N, C, H, W), and W (C, FN, 3, 3)."""
    (n, c, h, w), fn = shape, W.shape[1]
    oh, ow = h + 2 * pad[0] - 2, w + 2 * pad[1] - 2
    u = _transformed_filters(W)
    down, across = _places(h, oh, 4, pad[0], w * c), _places(w, ow, 4, pad[1], c)
    y_down, y_across = _places(oh, oh, 2, 0, ow * fn), _places(ow, ow, 2, 0, fn)
    tiles = n * (len(down) // 4) * (len(across) // 4)
    block = _block(c, fn, tiles)
    group, blocks = min(GROUP, block), -(-tiles // block)
    splits = _splits(blocks, fn)
    y = pool.empty((n, oh, ow, fn), np.float32)
    flat, biases = y.reshape(-1), np.zeros(fn, np.float32) if b is None else b
    least = np.float32(0 if relu else -np.inf)
    rooms = (("tiles", c, block), ("products", 2 * LANES, group))

    def work(shares: Shares) -> None:
        v, m = (scratch(name, (16 * _steps(*room)[1],), _SINGLE) for name, *room in rooms)
        convolve_tiles(
            *(image, (h * w * c, c), down, across, u, biases, least),
            *(flat, (oh * ow * fn, fn), y_down, y_across, v, m, tiles),
            *(block, group, splits, shares, 0),
        )

    share(cut(blocks * splits, block * 16 * c * fn // splits), work)
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
    count = max(1, min(blocks, 16, _SUMS_BYTES // (4 * size)))
    splits = _splits(count, fn)
    parts = pool.empty((count, size), np.float32)
    db = np.empty((count, fn), np.float32)
    dW = pool.empty((fn, c, 3, 3), np.float32)

    most = -(-fn // (2 * LANES * splits)) * 2 * LANES
    rooms = (("tiles", c, block), ("products", most, block))

    def work(shares: Shares) -> None:
        v, z = (scratch(name, (16 * _steps(*room)[1],), _SINGLE) for name, *room in rooms)
        sum_tiles(
            *(image, (h * w * c, c), down, across, gradient, (oh * ow * fn, fn), g_down, g_across),
            *(parts, db, v, z, tiles, block, splits, shares, 0),
        )

    def finish(shares: Shares) -> None:
        gradient_of_filters(parts, dW, shares, 0)

    share(cut(count * splits, blocks * block * 16 * c * fn // (count * splits)), work)
    share(cut(-(-fn // (2 * LANES)), len(parts) * 4 * 16 * c * 2 * LANES), finish)
    return dW, db.sum(axis=0)


def _block(c: int, fn: int, tiles: int) -> int:
    """Return how many tiles are transformed and multiplied together."""
    fit = BLOCK_BYTES // (16 * 4 * (c + fn))
    whole = -(-min(max(fit, FEWEST_TILES), MOST_TILES, tiles) // ROWS)
    return whole * ROWS


def _splits(count: int, fn: int) -> int:
    """Return into how many ranges filters are cut, where there are few parts without."""
    return max(1, min(PARTS // count, fn // (4 * LANES)))


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
    """Return how far a block's tiles of c channels, and its 16 matrices, are apart."""
    step = _apart(c)
    return step, _apart(block * step)


@compiled
def _grid(size, step):
    """Return the places of a square's rows and columns, in steps."""
    return np.arange(size) * size * step, np.arange(size) * step


@compiled
def _multiply(two, more, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles):
    if two and more:
        multiply_rows(2, 1, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)
    elif two:
        multiply_rows(2, 0, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)
    elif more:
        multiply_rows(1, 1, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)
    else:
        multiply_rows(1, 0, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)


@compiled
def convolve_tiles(
    x, image, x_down, x_across, u, biases, least,
    y, results, y_down, y_across, v, m, tiles, block, group, splits, shares, which,
):  # fmt: skip
    """Y = A^T [(G g G^T) (B^T d B)] A + biases of all tiles, and no less than `least`.

    `image` and `results` are the sizes of one image and of one pixel; u is (G g G^T) as
    `transform_filters` lays it, v and m are room for a block's (B^T d B) and a group's products.
    A part is some of the blocks' filters, of each block's in `splits` ranges.
    """
    begin(shares)
    (x_size, c), (y_size, fn) = image, results
    rows, columns = len(x_down) // 4, len(x_across) // 4
    v_row, v_step = _steps(c, block)
    m_row, m_step = _steps(2 * LANES, group)
    u_step = _apart(c * fn)
    v_down, v_across = _grid(4, v_step)
    m_down, m_across = _grid(4, m_step)
    nothing, spare = np.zeros(max(c, fn), np.float32), np.empty(max(c, fn), np.float32)
    ready = -1  # the block that v holds
    part, first, last = next_part(shares, which)
    while part >= 0:
        for unit in range(first, last):
            b, split = divmod(unit, splits)
            begun, count = b * block, min(block, tiles - b * block)
            if b != ready:
                ready = b
                for p in range(count):
                    i, place = divmod(begun + p, rows * columns)
                    row, column = divmod(place, columns)
                    transform_tile(
                        IMAGE, x, i * x_size, x_down, 4 * row, x_across, 4 * column, LANES, nothing,
                        v, p * v_row, v_down, 0, v_across, 0, LANES, spare, c // LANES, biases,
                        least,
                    )  # fmt: skip
            for f in range(*_range(fn, split, splits), 2 * LANES):
                two = fn - f > LANES
                width = 2 * LANES if two else LANES
                for g in range(0, count, group):
                    many = min(group, count - g)
                    for t in range(16):
                        _multiply(
                            two, False, v, t * v_step + g * v_row, v_row, 1, c,
                            u, t * u_step + f * c, width, m, t * m_step, m_row, -(-many // ROWS),
                        )  # fmt: skip
                    for p in range(many):
                        i, place = divmod(begun + g + p, rows * columns)
                        row, column = divmod(place, columns)
                        transform_tile(
                            RESULT, m, p * m_row, m_down, 0, m_across, 0, LANES, nothing,
                            y, i * y_size + f, y_down, 2 * row, y_across, 2 * column, LANES, spare,
                            width // LANES, biases[f:], least,
                        )  # fmt: skip
        part, first, last = next_part(shares, which)


@compiled
def _range(fn, split, splits):
    """Return the beginning and the end of one of `splits` ranges of the filters."""
    panels = -(-fn // (2 * LANES))
    begun, ended = split * panels // splits, (split + 1) * panels // splits
    return begun * 2 * LANES, min(ended * 2 * LANES, fn)


@compiled
def sum_tiles(
    x, image, x_down, x_across, gradient, results, g_down, g_across,
    sums, db, v, z, tiles, block, splits, shares, which,
):  # fmt: skip
    """sums[k] = sum over its tiles of (B^T d B) (A dY A^T); db[k] = that of dY.

    There are len(sums) equal shares of the blocks, and `splits` ranges of the filters.
    """
    begin(shares)
    (x_size, c), (g_size, fn) = image, results
    rows, columns = len(x_down) // 4, len(x_across) // 4
    v_row, v_step = _steps(c, block)
    z_row, z_step = _steps(-(-fn // (2 * LANES * splits)) * 2 * LANES, block)
    u_step = _apart(c * fn)
    v_down, v_across = _grid(4, v_step)
    z_down, z_across = _grid(4, z_step)
    nothing, spare = np.zeros(max(c, fn), np.float32), np.empty(max(c, fn), np.float32)
    least, blocks = np.float32(0), -(-tiles // block)
    ready = -1
    part, first, last = next_part(shares, which)
    while part >= 0:
        for unit in range(first, last):
            k, split = divmod(unit, splits)
            f0, beyond = _range(fn, split, splits)
            total, first_block = sums[k], k * blocks // len(sums)
            db[k, f0:beyond] = 0
            for b in range(first_block, (k + 1) * blocks // len(sums)):
                begun, count = b * block, min(block, tiles - b * block)
                for p in range(count):
                    i, place = divmod(begun + p, rows * columns)
                    row, column = divmod(place, columns)
                    if b != ready:
                        transform_tile(
                            IMAGE, x, i * x_size, x_down, 4 * row, x_across, 4 * column, LANES,
                            nothing, v, p * v_row, v_down, 0, v_across, 0, LANES, spare, c // LANES,
                            nothing, least,
                        )  # fmt: skip
                    transform_tile(
                        RESULT_GRADIENT, gradient, i * g_size + f0, g_down, 2 * row,
                        g_across, 2 * column, LANES, nothing, z, p * z_row, z_down, 0, z_across, 0,
                        LANES, spare, (beyond - f0) // LANES, nothing, least,
                    )  # fmt: skip
                    # (A dY A^T) holds the sum of a tile's gradients
                    here = 5 * z_step + p * z_row
                    _add(z[here : here + beyond - f0], db[k, f0:beyond])
                ready = b
                for t in range(16):
                    for f in range(f0, beyond, 2 * LANES):
                        two = fn - f > LANES
                        width = 2 * LANES if two else LANES
                        _multiply(
                            two, b > first_block, v, t * v_step, 1, v_row, count,
                            z, t * z_step + f - f0, z_row,
                            total, t * u_step + f * c, width, c // ROWS,
                        )  # fmt: skip
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
                        for q in range(3):
                            turned[(3 * k + q) * width + j] = filters[i, f + j, k, q]
                transform_tile(
                    FILTERS, turned, 0, down, 0, across, 0, LANES, nothing,
                    u, f * c + i * many, u_down, 0, u_across, 0, LANES, nothing, many // LANES,
                    nothing, least,
                )  # fmt: skip
        part, first, last = next_part(shares, which)


@compiled
def gradient_of_filters(sums, dW, shares, which):
    """Make dW = G^T (sum of all parts' sums) G, (FN, C, 3, 3); the first part's are overwritten."""
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
                        for q in range(3):
                            dW[f + j, i, k, q] = turned[(3 * k + q) * width + j]
        part, first, last = next_part(shares, which)
