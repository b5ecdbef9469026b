"""The connected parts of a mask, and what is known of each."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.intp]


class Components(NamedTuple):
    """Parts of a mask (H, W) whose pixels touch, by a side or a corner; they are numbered from 0.

    `labels` (H, W) is -1 where there is none; `areas` (n,) is how many pixels each has; `boxes`
    (n, 4) its first row, first column, and the row and column behind its last.
    """

    labels: Labels
    areas: npt.NDArray[np.intp]
    boxes: npt.NDArray[np.intp]

    @property
    def heights(self) -> npt.NDArray[np.intp]:
        """Return the number of rows of each, (n,)."""
        return self.boxes[:, 2] - self.boxes[:, 0]

    @property
    def widths(self) -> npt.NDArray[np.intp]:
        """Return the number of columns of each, (n,)."""
        return self.boxes[:, 3] - self.boxes[:, 1]

    def mask(self, which: npt.NDArray[Any]) -> Mask:
        """Return the pixels, (H, W), of those parts for which `which` (n,) is true."""
        return np.append(which.astype(bool), False)[self.labels]


def find_components(mask: Mask) -> Components:
    """Return the connected parts of a mask (H, W).

    Its rows are cut into runs; runs of neighbouring rows that overlap, by a corner at least, are
    joined by union and find.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    step = mask.shape[1] + 2  # so that no run touches one of another row by its number
    last = (rows - 1) * step
    first_above = np.searchsorted(rows * step + ends, last + starts)
    behind_above = np.searchsorted(rows * step + starts, last + ends, side="right")
    parents = list(range(len(rows)))

    def find(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    pairs = zip(first_above.tolist(), behind_above.tolist(), strict=True)
    for run, (first, behind) in enumerate(pairs):
        for above in range(first, behind):
            a, b = find(run), find(above)
            if a != b:
                parents[max(a, b)] = min(a, b)
    roots = np.array([find(run) for run in range(len(rows))], np.intp)
    _, numbers = np.unique(roots, return_inverse=True)
    return _measure(mask.shape, rows, starts, ends, numbers)


def _measure(
    shape: tuple[int, ...], rows: Labels, starts: Labels, ends: Labels, numbers: Labels
) -> Components:
    count = int(numbers.max()) + 1 if len(numbers) else 0
    # A number is added where a run begins and taken away where it ends.
    steps = np.zeros((shape[0], shape[1] + 1), np.intp)
    np.add.at(steps, (rows, starts), numbers + 1)
    np.add.at(steps, (rows, ends), -numbers - 1)
    labels = steps.cumsum(axis=1)[:, :-1] - 1
    areas = np.bincount(numbers, ends - starts, minlength=count).astype(np.intp)
    boxes = np.empty((count, 4), np.intp)
    boxes[:, :2], boxes[:, 2:] = max(shape), 0
    np.minimum.at(boxes[:, 0], numbers, rows)
    np.minimum.at(boxes[:, 1], numbers, starts)
    np.maximum.at(boxes[:, 2], numbers, rows + 1)
    np.maximum.at(boxes[:, 3], numbers, ends)
    return Components(labels, areas, boxes)


def grown(mask: Mask, pixels: int) -> Mask:
    """Return a mask with all pixels that are at most so many away, along both axes."""
    for axis in (0, 1):
        total = np.cumsum(np.insert(mask, 0, False, axis=axis), axis=axis, dtype=np.intp)
        size = mask.shape[axis]
        places = np.arange(size)
        behind = np.minimum(places + pixels + 1, size)
        first = np.maximum(places - pixels, 0)
        mask = np.take(total, behind, axis) > np.take(total, first, axis)
    return mask
