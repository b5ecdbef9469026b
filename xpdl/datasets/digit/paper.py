"""A sheet of paper on a table: where it is on the picture."""

from __future__ import annotations

import numpy as np

from xpdl.datasets.digit.components import Mask, find_components
from xpdl.datasets.digit.form import Grey

_FAINTEST = 0.1  # departure of a sheet from what it lies on
_SMALLEST = 0.05  # of the picture
_SHARP = 0.5  # of what is a little above the table, so much is well above it
_FULL = 0.72  # of its box: a sheet that is a little tilted, and written on
_MARGIN = 0.03  # of its height and width, so that none of its edges is left


def find_paper(departed: Grey) -> tuple[slice, slice] | None:
    """Return the rows and columns inside of a sheet on another ground, if there is one.

    Parameters
    ----------
    departed : array (H, W)
        How far pixels are from the ground, signed.
    """
    for direction in (1, -1):
        away = direction * departed
        if away.max() < _FAINTEST:
            continue
        parts = find_components(away > away.max() / 2)
        if not len(parts.areas):
            continue
        largest = int(parts.areas.argmax())
        height, width = int(parts.heights[largest]), int(parts.widths[largest])
        area = parts.areas[largest]
        large = area > _SMALLEST * departed.size and area > _FULL * height * width
        if large and _ends_at_once(away, parts.labels == largest):
            top, left, bottom, right = (int(side) for side in parts.boxes[largest])
            down, inwards = round(_MARGIN * height) + 1, round(_MARGIN * width) + 1
            if bottom - top > 4 * down and right - left > 4 * inwards:
                return slice(top + down, bottom - down), slice(left + inwards, right - inwards)
    return None


def _ends_at_once(away: Grey, sheet: Mask) -> bool:
    """Say whether a part has edges, as paper has, and does not fade out as a glare does."""
    usual = np.median(away[sheet])
    return bool((away[sheet] > 0.75 * usual).sum() > _SHARP * (away > 0.25 * usual).sum())
