"""Images pixel by pixel, as Numba's loops take them."""

from __future__ import annotations

import numpy as np

from xpdl.backends.base.types import Array


def by_pixel(x: Array) -> Array:
    """Return x (N, C, H, W) as (N, H, W, C) in one piece; a copy only if it must be."""
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    # A read-only array is another type to Numba, and would be compiled for once more.
    return last if last.flags.writeable else last.copy()
