"""Connected parts of masks, against a flood fill; and masks that grow, against loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpdl.datasets.digit.components import find_components, grown
from xpdl.datasets.digit.lines import lines_of


def flooded(mask: Any) -> Any:
    """Return the number of each pixel's part, in the order of their first pixels, or -1."""
    labels, count = np.full(mask.shape, -1), 0
    for first in map(tuple, np.argwhere(mask)):
        if labels[first] >= 0:
            continue
        waiting = [first]
        while waiting:
            i, j = waiting.pop()
            inside = 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]
            if inside and mask[i, j] and labels[i, j] < 0:
                labels[i, j] = count
                waiting += [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
        count += 1
    return labels


@pytest.mark.parametrize("seed", range(40))
def test_parts_are_those_of_a_flood_fill(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 25, 2)) < rng.uniform(0, 0.8)
    parts, wanted = find_components(mask), flooded(mask)
    np.testing.assert_array_equal(parts.labels < 0, ~mask)
    assert len(parts.areas) == len(parts.boxes) == wanted.max() + 1
    for number in range(len(parts.areas)):
        mine = parts.labels == number
        assert len(set(wanted[mine])) == 1
        rows, columns = np.nonzero(mine)
        assert parts.areas[number] == len(rows)
        box = (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
        assert tuple(parts.boxes[number]) == box
        np.testing.assert_array_equal(parts.mask(np.arange(len(parts.areas)) == number), mine)


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_a_mask_grows_by_pixels_along_both_axes(pixels: int) -> None:
    mask = np.random.default_rng(1).random((12, 9)) < 0.08
    wanted = np.zeros_like(mask)
    for i, j in np.argwhere(mask):
        first = max(i - pixels, 0), max(j - pixels, 0)
        wanted[first[0] : i + pixels + 1, first[1] : j + pixels + 1] = True
    np.testing.assert_array_equal(grown(mask, pixels), wanted)


@pytest.mark.parametrize("slope", [0, 0.03, -0.06])
def test_lines_from_edge_to_edge_are_found_and_strokes_across_them_stay(slope: float) -> None:
    rows, columns = np.indices((200, 240))
    place = rows - 100 - np.rint(slope * (columns - 120))
    line = (place >= 0) & (place < 2)
    stroke = (columns >= 100) & (columns < 112) & (rows > 60) & (rows < 150)
    found = lines_of(line | stroke)
    assert found[line & ~stroke].mean() > 0.97
    assert found[stroke].mean() < 0.02
    np.testing.assert_array_equal(lines_of((line | stroke).T).T, found)
    assert not lines_of(stroke).any()
    assert not lines_of(line & (columns < 200)).any()  # not from edge to edge
