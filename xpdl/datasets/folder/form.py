"""What size and how many channels the pictures of a folder are brought to."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from xpdl.arguments import sizes, whole_number
from xpdl.datasets.folder.decoding import Form
from xpdl.errors import ArgumentError, shown

LARGEST_SIDE = 224
"""No side is longer by default: networks for photographs are commonly of 224 x 224."""

MOST_SIDE = 4096


def checked_size(size: Any) -> tuple[int, int] | None:
    """Return height and width of what a user gives: None, a side of a square, or both."""
    if size is None:
        return None
    sides = sizes("size", size)
    if len(sides) > 2 or max(sides) > MOST_SIDE:
        raise ArgumentError(
            f"size must be an int or (height, width), up to {MOST_SIDE:,}, got {shown(size)}."
        )
    return (sides[0], sides[-1])


def checked_channels(channels: Any) -> int | None:
    """Return how many channels a user wants: None, 1 or 3."""
    if channels is None:
        return None
    if whole_number("channels", channels) not in (1, 3):
        raise ArgumentError(f"channels must be 1 (grey) or 3 (colour), got {shown(channels)}.")
    return int(channels)


def choose_form(
    seen: Sequence[dict[str, Any]], size: tuple[int, int] | None, channels: int | None
) -> tuple[Form, str]:
    """Return the form for pictures of which `look` told `seen`, and a line that tells why.

    Where most pictures have one size, it is that, made smaller if it is longer than 224; else a
    square of the median of their shorter sides, at most 224. They are in colour if half of them
    are.
    """
    found = Counter((picture["height"], picture["width"]) for picture in seen)
    colored = sum(picture["color"] for picture in seen)
    if size is not None:
        why = "as was asked for"
    else:
        size, why = _usual_size(found)
    if channels is None:
        channels = 3 if 2 * colored >= len(seen) else 1
    shade = "grey" if channels == 1 else "in colour"
    told = f"{size[0]} x {size[1]} pixels, {shade}: {why}"
    if 0 < colored < len(seen):
        told += f"; {colored:,} of {len(seen):,} have colours"
    return Form(*size, channels), told


def _usual_size(found: Counter[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    (height, width), count = found.most_common(1)[0]
    if 2 * count <= found.total():
        shorter = [min(sides) for sides, n in found.items() for _ in range(n)]
        side = min(LARGEST_SIDE, round(statistics.median(shorter)))
        return (side, side), f"they have {len(found):,} sizes"
    many = "all" if count == found.total() else f"{count:,} of {found.total():,}"
    longest = max(height, width)
    if longest <= LARGEST_SIDE:
        return (height, width), f"the size of {many}"
    smaller = [max(1, round(side * LARGEST_SIDE / longest)) for side in (height, width)]
    return (smaller[0], smaller[1]), f"{many} are {height} x {width}, which is made smaller"
