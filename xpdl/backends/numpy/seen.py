"""Filters that reach beyond a small image: the part of them that sees pixels.

Where a network has halved its images to a single pixel, a 3x3 filter sees it with one number of
nine, and the padding with the rest: a ninth of the products gives the same sums.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpdl.backends.base.types import Array, Pair, output_size


class Seen(NamedTuple):
    """Which rows and columns of filters (FN, C, FH, FW) see pixels, and what padding is left."""

    part: tuple[slice, slice, slice, slice]
    pad: Pair

    def put_back(self, dW: Array, size: Pair, place: Array | None) -> Array:
        """Return the gradient of whole filters of `size`, in `place` if there is one."""
        if place is None:
            place = np.empty((*dW.shape[:2], *size), dW.dtype)
        place[...] = 0
        place[self.part] = dW
        return place


@lru_cache(maxsize=512)
def seen_part(image: Pair, size: Pair, stride: Pair, pad: Pair) -> Seen | None:
    """Return what sees pixels of images (H, W); None if all of the filters does."""
    ends, pads = [], []
    for h, window, step, before in zip(image, size, stride, pad, strict=True):
        windows = output_size(h, window, step, before)
        first, last = max(0, before - (windows - 1) * step), min(window, h + before)
        if first >= last or output_size(h, last - first, step, before - first) != windows:
            return None  # nothing is seen; or what is left wants other padding before than behind
        ends.append(slice(first, last))
        pads.append(before - first)
    if (ends[0].stop - ends[0].start, ends[1].stop - ends[1].start) == size:
        return None
    return Seen((slice(None), slice(None), ends[0], ends[1]), (pads[0], pads[1]))
