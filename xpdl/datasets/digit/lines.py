"""The lines and squares of paper, erased from under what is written on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl.datasets.digit.components import Mask

_SLOPES = np.linspace(-0.1, 0.1, 41)  # of a line, about 6 degrees each way
_SAMPLED = 96  # columns
_COVERED = 0.7  # of a line's length, at the least
_CLEAR = 0.95
_ENDS = 8  # a line is seen in the first and in the last of so many parts
_THICKEST = 0.03  # of the height


def lines_of(mask: Mask) -> Mask:
    """Return which pixels of a mask (H, W) belong to lines from edge to edge, across or down.

    But for those where a stroke crosses the line: where there is something on both sides of it.
    """
    across = _across(mask)
    down = _across((mask & ~across).T).T
    return across | down


def _across(mask: Mask) -> Mask:
    height, width = mask.shape
    lines = np.zeros_like(mask)
    if min(height, width) < 3 or mask.any(axis=0).mean() < _COVERED:
        return lines
    slope, rows = _best_slope(mask)
    shifts = _shifts(slope, np.arange(width), width)
    columns = np.arange(width)
    for first, behind in rows:
        around = 1 if height > 100 else 0  # its blurred edges
        above, below = first - 1 - around, behind + around
        crossed = _at(mask, above + shifts, columns) & _at(mask, below + shifts, columns)
        for row in range(first - around, behind + around):
            place = row + shifts
            inside = (place >= 0) & (place < height) & ~crossed
            lines[place[inside], columns[inside]] = True
    return lines


def _best_slope(mask: Mask) -> tuple[float, list[tuple[int, int]]]:
    """Return the slope of most lines, and from which row to which each is, in the middle."""
    height, width = mask.shape
    columns = np.unique(np.linspace(0, width - 1, min(width, _SAMPLED)).round().astype(np.intp))
    rows = np.arange(height)[:, np.newaxis]
    best: tuple[float, float, list[tuple[int, int]]] = (0.0, 0.0, [])
    for slope in sorted(_SLOPES, key=abs):
        seen = _at(mask, rows + _shifts(slope, columns, width), columns)
        end = max(1, len(columns) // _ENDS)
        covered = seen.mean(axis=1)
        through = (seen[:, :end].mean(axis=1) > 0.5) & (seen[:, -end:].mean(axis=1) > 0.5)
        found = _thin_runs((covered > _COVERED) & through, covered, width)
        score = sum(float(covered[a:b].sum()) for a, b in found)
        if score > best[0]:
            best = (score, float(slope), found)
            if all(covered[a:b].max() > _CLEAR for a, b in found):
                break
    return best[1], best[2]


def _thin_runs(rows: Mask, covered: npt.NDArray[np.float64], width: int) -> list[tuple[int, int]]:
    """Return the runs of rows that are thin, and end at once on both sides."""
    height = len(rows)
    around = np.pad(covered, 2)
    free = np.minimum(around[1:], around[:-1]) < 0.5  # one of two rows
    edges = np.flatnonzero(np.diff(np.pad(rows, 1).astype(np.int8)))
    thickest = min(max(1, _THICKEST * max(height, width)), height / 6)
    return [
        (int(a), int(b))
        for a, b in edges.reshape(-1, 2)
        if b - a <= thickest and free[a] and free[b + 2]
    ]


def _shifts(slope: float, columns: npt.NDArray[Any], width: int) -> npt.NDArray[np.intp]:
    return np.rint(slope * (columns - (width - 1) / 2)).astype(np.intp)


def _at(mask: Mask, rows: npt.NDArray[Any], columns: npt.NDArray[Any]) -> Mask:
    inside = (rows >= 0) & (rows < len(mask))
    return mask[np.clip(rows, 0, len(mask) - 1), columns] & inside
