"""Products of two matrices that are small enough to stay in a core's caches.

BLAS is as quick with large ones. With these it is slowed by what surrounds it: to be kept to one
thread takes it as long as a layer of a hundred numbers.
"""

from __future__ import annotations

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.sharing import cut, next_part, share
from xpdl.backends.numba.threads import shared
from xpdl.backends.numba.tiles import multiply_tiles
from xpdl.backends.numba.vectors import LANES, ROWS
from xpdl.backends.numpy.memory import pool

LARGEST, LONGEST = 32_000_000, 4096
"""So many multiplications are done here at most, in sums of so many: a panel stays in a cache."""

FEWEST = 32
"""Columns that lie in one piece are laid side by side for so many rows, not for fewer."""

FEW = 8

_SINGLE = np.dtype(np.float32)


def fit(a: Array, b: Array, out: Array | None) -> bool:
    """Tell whether a (M, K) and b (K, N) are multiplied here."""
    if a.ndim != 2 or b.ndim != 2 or a.dtype != _SINGLE or b.dtype != _SINGLE:
        return False
    (m, k), n = a.shape, b.shape[1]
    if k != len(b) or not 0 < k <= LONGEST or n < LANES or m * k * n > LARGEST:
        return False
    if not (a.flags.c_contiguous or a.flags.f_contiguous):
        return False
    if m < ROWS if b.flags.c_contiguous else m < FEWEST or not b.flags.f_contiguous:
        return False
    return out is None or (out.dtype == _SINGLE and out.flags.c_contiguous)


def multiply(a: Array, b: Array, out: Array | None = None) -> Array:
    """Return a b, in `out` if that is given."""
    (m, k), n = a.shape, b.shape[1]
    y = pool.empty((m, n), np.float32) if out is None else out
    (flat_a, *a_steps), (flat_b, *b_steps), flat = _laid(a), _laid(b), y.reshape(-1)
    width = 2 * LANES if n >= 2 * LANES else LANES
    panels = -(-n // width)
    numbers = (flat_a, *a_steps, flat_b, *b_steps, flat, m, k, n)
    share(cut(panels, m * k * width), multiply_panels, *numbers, products=k * width)
    return y


def _laid(a: Array) -> tuple[Array, int, int]:
    """Return the numbers of a matrix as they lie, and how far its rows and columns are apart."""
    if a.flags.c_contiguous:
        return _writeable(a.reshape(-1)), a.shape[1], 1
    return _writeable(a.T.reshape(-1)), 1, a.shape[0]


def _writeable(a: Array) -> Array:
    # A read-only array is another type to Numba, and would be compiled for once more.
    return a if a.flags.writeable else a.copy()


@shared
def multiply_panels(
    a, a_row, a_column, b, b_row, b_column, y, m, count, n, packed, shares
):  # fmt: skip
    """y[r, f] = sum over i < count of a[r, i] b[i, f]: m rows of n numbers.

    A panel is as many columns as two registers hold, or one. The last one, and the last tile of
    rows, begin earlier where they would end too late: some sums are made twice, both times the
    same.
    """
    width = 2 * LANES if n >= 2 * LANES else LANES
    part, first, last = next_part(shares)
    while part >= 0:
        for panel in range(first, last):
            f = min(panel * width, n - width)
            factors, f0, f_step = b, f, b_row
            if b_column != 1:
                _pack(b, f, b_column, count, width, packed[shares[2]])
                factors, f0, f_step = packed[shares[2]], 0, width
            for k in range(1 + (m % ROWS > 0)):
                r = k * (m - ROWS)
                multiply_tiles(
                    width > LANES, False, a, r * a_row, a_row, a_column, count,
                    factors, f0, f_step, y, r * n + f, n, 1 if k else m // ROWS,
                )  # fmt: skip
        part, first, last = next_part(shares)


@compiled
def _pack(b, f, b_column, k, width, packed):
    """Lay the columns from f on, each of which lies in one piece, side by side."""
    for j0 in range(0, width, FEW):
        for i in range(k):
            for j in range(j0, j0 + FEW):
                packed[i * width + j] = b[(f + j) * b_column + i]
