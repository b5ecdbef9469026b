"""The settings that augmentations are made with, checked."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, TypeAlias

from xpdl.arguments import LARGEST, number, whole_number
from xpdl.backends import Pair, Shape
from xpdl.errors import ArgumentError, ShapeError, shown

Spread: TypeAlias = float | tuple[float, float]
"""From where to where a number is drawn: a pair (low, high), or how far from its usual value."""


def check_spread(
    argument: str,
    value: Any,
    *,
    usual: float = 0.0,
    above: float = -math.inf,
    below: float = math.inf,
) -> Spread:
    """Return a spread as a float or a pair of them, all of it between `above` and `below`."""
    pair = isinstance(value, tuple | list)
    values = []
    with suppress(ArgumentError):  # told below, with all that is wanted
        values = [finite(argument, part) for part in (value if pair else [value])]
    if len(values) == (len(value) if pair else 1) == (2 if pair else 1):
        spread = (values[0], values[1]) if pair else values[0]
        low, high = bounds(spread, usual)
        if above < low <= high < below:  # which infinity and NaN are not
            return spread
    limits = "".join(
        f", {side} {limit:g}"
        for side, limit in (("above", above), ("below", below))
        if math.isfinite(limit)
    )
    raise ArgumentError(
        f"{argument} must be a number of at least 0 (drawn are numbers up to so far from "
        f"{usual:g}) or a pair (low, high){limits}, got {shown(value)}."
    )


def bounds(spread: Spread, usual: float = 0.0) -> tuple[float, float]:
    """Return the least and the greatest number that may be drawn."""
    return spread if isinstance(spread, tuple) else (usual - spread, usual + spread)


def finite(argument: str, value: Any) -> float:
    """Return a setting that may be any finite number."""
    return number(argument, value, above=-math.inf)


def check_probability(value: Any) -> float:
    """Return a probability, from 0 to 1."""
    probability = number("probability", value)
    if probability > 1:
        raise ArgumentError(f"probability must be a number from 0 to 1, got {shown(value)}.")
    return probability


def check_size(value: Any) -> int | Pair:
    """Return a side of a square, or height and width, as they were given."""
    if isinstance(value, tuple | list) and len(value) == 2:
        high, wide = (whole_number("size", side, most=LARGEST) for side in value)
        return high, wide
    return whole_number("size", value, most=LARGEST)


def pair(size: int | Pair) -> Pair:
    """Return height and width of a size as `check_size` gives it."""
    return size if isinstance(size, tuple) else (size, size)


def free_room(window: Shape, picture: Shape, pad: int = 0) -> Shape:
    """Return by how many pixels a window can be moved in a picture that is padded, each way."""
    room = tuple(whole + 2 * pad - part for part, whole in zip(window, picture, strict=True))
    if min(room) < 0:
        raise ShapeError(
            f"size {window} is larger than the pictures, {picture}"
            f"{f', padded by {pad}' if pad else ''}; give a smaller one."
        )
    return room
