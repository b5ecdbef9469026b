"""Products of many rows, in pieces that BLAS is quickest with."""

from __future__ import annotations

import numpy as np

from xpdl.backends.base.types import Array

SMALL = 1_000_000
"""With AVX-512, OpenBLAS takes the factors of products of fewer multiplications as they lie."""

FEWEST_ROWS = 64
"""With less at once it is slower again, or on processors that have no such way."""


def rows_at_once(multiplications: int) -> int:
    """Return how many rows to multiply at once, each with so many; 0 where all are quickest."""
    rows = SMALL // multiplications // 16 * 16
    return rows if rows >= FEWEST_ROWS else 0


def multiply_rows(a: Array, b: Array, out: Array) -> None:
    """Write the product of a (R, K) and b (K, N) to `out`."""
    (count, k), n = a.shape, b.shape[1]
    rows = rows_at_once(k * n)
    whole = count // rows * rows if rows else 0
    if whole:
        np.matmul(a[:whole].reshape(-1, rows, k), b, out=out[:whole].reshape(-1, rows, n))
    if whole < count:
        np.matmul(a[whole:], b, out=out[whole:])
