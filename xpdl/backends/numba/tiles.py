"""Compiled loops over Winograd's tiles, for `winograd`, where the formulas stand.

A block's tiles are laid out (16, tiles, channels), the transformed filters (16, panels, channels,
two registers' width of filters or one).
"""

from __future__ import annotations

import numpy as np

from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.products import (
    FILTERS,
    FILTERS_GRADIENT,
    IMAGE,
    RESULT,
    RESULT_GRADIENT,
    multiply_rows,
    pool_tile,
    transform_tile,
)
from xpdl.backends.numba.sharing import add, next_part
from xpdl.backends.numba.threads import shared
from xpdl.backends.numba.vectors import LANES, ROWS

GROUP = 4 * ROWS
"""So many tiles are multiplied with a panel of filters before they are transformed back."""

OUTSIDE = -(1 << 40)
"""Added to any place, it is before the array's beginning."""


@compiled
def apart(count):
    """Return a distance of at least so many numbers, an odd number of registers' widths.

    At a large power of two from one another, all numbers of a tile would want the same few lines
    of the first cache.
    """
    return (-(-count // LANES) | 1) * LANES


@compiled
def whole(count):
    """Return how many rows there are in whole tiles of products."""
    return -(-count // ROWS) * ROWS


@compiled
def steps(c, block):
    """Return how far a block's tiles of c channels, and its 16 matrices, are apart."""
    step = apart(c)
    return step, apart(block * step)


@compiled
def _grid(size, step):
    """Return the places of a square's rows and columns, in steps."""
    return np.arange(size) * size * step, np.arange(size) * step


@compiled
def multiply_tiles(two, more, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles):
    """Do `multiply_rows` with two registers or one, adding to y or not."""
    if two and more:
        multiply_rows(2, 1, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)
    elif two:
        multiply_rows(2, 0, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)
    elif more:
        multiply_rows(1, 1, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)
    else:
        multiply_rows(1, 0, x, x0, x_row, x_column, count, f, f0, f_step, y, y0, y_row, tiles)


@shared
def convolve_tiles(
    x, image, x_down, x_across, u, biases, least,
    y, results, y_down, y_across, winners, tiles, block, splits, v, m, shares,
):  # fmt: skip
    """Y = A^T [(G g G^T) (B^T d B)] A + biases of all tiles, and no less than `least`.

    If there are `winners`, y is the largest of each tile's results, or 0, and they say which it is.
    `image` and `results` are the sizes of one image and of one pixel; u is (G g G^T) as
    `transform_filters` lays it, v[k] and m[k] are thread k's room for a block's (B^T d B) and a
    group's products.
    A part is some of the blocks' filters, of each block's in `splits` ranges.
    """
    (x_size, c), (y_size, fn) = image, results
    v, m = v[shares[2]], m[shares[2]]
    rows, columns = len(x_down) // 4, len(x_across) // 4
    v_row, v_step = steps(c, block)
    m_row, m_step = steps(2 * LANES, GROUP)
    u_step = apart(c * fn)
    v_down, v_across = _grid(4, v_step)
    m_down, m_across = _grid(4, m_step)
    nothing, spare = np.zeros(max(c, fn), np.float32), np.empty(max(c, fn), np.float32)
    ready = -1  # the block that v holds
    part, first, last = next_part(shares)
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
            f0, beyond = _range(fn, split, splits)
            for f in range(f0, beyond, 2 * LANES):
                two = fn - f > LANES
                width = 2 * LANES if two else LANES
                for g in range(0, count, GROUP):
                    many = min(GROUP, count - g)
                    for t in range(16):
                        multiply_tiles(
                            two, False, v, t * v_step + g * v_row, v_row, 1, c,
                            u, t * u_step + f * c, width, m, t * m_step, m_row, -(-many // ROWS),
                        )  # fmt: skip
                    for p in range(many):
                        if len(winners):
                            here = (begun + g + p) * fn + f
                            pool_tile(
                                m, p * m_row, m_down, m_across, y, here, winners, here,
                                width // LANES, biases[f:],
                            )  # fmt: skip
                            continue
                        i, place = divmod(begun + g + p, rows * columns)
                        row, column = divmod(place, columns)
                        transform_tile(
                            RESULT, m, p * m_row, m_down, 0, m_across, 0, LANES, nothing,
                            y, i * y_size + f, y_down, 2 * row, y_across, 2 * column, LANES, spare,
                            width // LANES, biases[f:], least,
                        )  # fmt: skip
        part, first, last = next_part(shares)


@compiled
def _range(fn, split, splits):
    """Return the beginning and the end of one of `splits` ranges of the filters."""
    panels = -(-fn // (2 * LANES))
    begun, ended = split * panels // splits, (split + 1) * panels // splits
    return begun * 2 * LANES, min(ended * 2 * LANES, fn)


@shared
def sum_tiles(
    x, image, x_down, x_across, gradient, results, g_down, g_across,
    sums, db, tiles, block, splits, v, z, shares,
):  # fmt: skip
    """sums[k] = sum over its tiles of (B^T d B) (A dY A^T); db[k] = that of dY.

    There are len(sums) equal shares of the blocks, and `splits` ranges of the filters; v[k] and
    z[k] are thread k's room.
    """
    (x_size, c), (g_size, fn) = image, results
    v, z = v[shares[2]], z[shares[2]]
    rows, columns = len(x_down) // 4, len(x_across) // 4
    v_row, v_step = steps(c, block)
    z_row, z_step = steps(-(-fn // (2 * LANES * splits)) * 2 * LANES, block)
    rows_each = whole(c)
    step = apart(rows_each * fn)
    v_down, v_across = _grid(4, v_step)
    z_down, z_across = _grid(4, z_step)
    nothing, spare = np.zeros(max(c, fn), np.float32), np.empty(max(c, fn), np.float32)
    least, blocks = np.float32(0), -(-tiles // block)
    ready = -1
    part, first, last = next_part(shares)
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
                    add(z[here : here + beyond - f0], db[k, f0:beyond])
                ready = b
                for t in range(16):
                    for f in range(f0, beyond, 2 * LANES):
                        two = fn - f > LANES
                        width = 2 * LANES if two else LANES
                        multiply_tiles(
                            two, b > first_block, v, t * v_step, 1, v_row, count,
                            z, t * z_step + f - f0, z_row,
                            total, t * step + f * rows_each, width, rows_each // ROWS,
                        )  # fmt: skip
        part, first, last = next_part(shares)


@shared
def transform_filters(filters, factors, u, shares):
    """Lay G g G^T of filters (C, FN, 3, 3), times factors (FN,), out as u.

    That is (16, panels, C, one or two registers).
    """
    c, fn = filters.shape[:2]
    width = 2 * LANES
    down, across = _grid(3, width)
    u_down, u_across = _grid(4, apart(c * fn))
    turned = np.zeros(9 * width, np.float32)
    nothing, least = np.zeros(width, np.float32), np.float32(0)
    part, first, last = next_part(shares)
    while part >= 0:
        for f in range(first * width, min(last * width, fn), width):
            many = min(width, fn - f)
            for i in range(c):
                for j in range(many):
                    for k in range(3):
                        for q in range(3):
                            number = factors[f + j] * filters[i, f + j, k, q]
                            turned[(3 * k + q) * width + j] = number
                transform_tile(
                    FILTERS, turned, 0, down, 0, across, 0, LANES, nothing,
                    u, f * c + i * many, u_down, 0, u_across, 0, LANES, nothing, many // LANES,
                    nothing, least,
                )  # fmt: skip
        part, first, last = next_part(shares)


@shared
def gradient_of_filters(sums, dW, shares):
    """Make dW = G^T (sum of all parts' sums) G, (FN, C, 3, 3); the first part's are overwritten."""
    fn, c = dW.shape[:2]
    width = 2 * LANES
    rows_each = whole(c)
    step = apart(rows_each * fn)
    down, across = _grid(4, step)
    turned_down, turned_across = _grid(3, width)
    turned = np.zeros(9 * width, np.float32)
    nothing, least = np.zeros(width, np.float32), np.float32(0)
    part, first, last = next_part(shares)
    while part >= 0:
        for f in range(first * width, min(last * width, fn), width):
            many = min(width, fn - f)
            for more in range(1, len(sums)):
                for t in range(16):
                    here = slice(t * step + f * rows_each, t * step + (f + many) * rows_each)
                    add(sums[more][here], sums[0][here])
            for i in range(c):
                transform_tile(
                    FILTERS_GRADIENT, sums[0], f * rows_each + i * many, down, 0, across, 0, LANES,
                    nothing, turned, 0, turned_down, 0, turned_across, 0, LANES, nothing,
                    many // LANES, nothing, least,
                )  # fmt: skip
                for j in range(many):
                    for k in range(3):
                        for q in range(3):
                            dW[f + j, i, k, q] = turned[(3 * k + q) * width + j]
        part, first, last = next_part(shares)
