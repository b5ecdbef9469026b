"""The digit on a picture: what is written, without lines, edges, frames and dust."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl.datasets.digit.components import Components, Mask, find_components, grown
from xpdl.datasets.digit.form import Grey
from xpdl.datasets.digit.lines import lines_of
from xpdl.errors import ImageError

_FAINTEST = 0.07
_HALF_LEVEL = 1 / 510
_STRONG, _WEAK = 0.35, 0.1  # of the darkest ink
_ROUNDS = 4
_SMALLEST = 0.02  # extent, of the picture's longer side
_STROKE = 0.03  # of the digit's largest part, at the least
_NEAR = 0.15  # of the digit's extent: how far a stroke may be from the others
_AROUND = 2  # pixels, in which ink fades out


def find_digit(departed: Grey, name: str) -> Grey | None:
    """Return how much ink of the digit there is at each pixel: 0 on the ground, 1 at the most.

    Parameters
    ----------
    departed : array (H, W)
        How far pixels are from the ground, signed; ink is on the side of the larger departures.

    Returns
    -------
    array (H, W), or None if the picture is blank

    Raises
    ------
    ImageError
        If there are several digits.
    """
    noise = _noise(departed)
    # What departs from the ground in the other direction is shadow or glare, unless it is all.
    sign = -1 if -departed.min() > departed.max() else 1
    for direction in (sign, -sign):
        ink = _isolate(np.maximum(direction * departed, 0), noise, name)
        if ink is not None:
            return ink
    return None


def _noise(departed: Grey) -> float:
    """Return the departure that noise does not exceed.

    Four standard deviations of normal noise, estimated from a median, which ink does not move; of
    the border's or of all pixels', whichever is less.
    """
    border = np.concatenate([departed[0], departed[-1], departed[1:-1, 0], departed[1:-1, -1]])
    spread = min(float(np.median(np.abs(part))) for part in (border, departed))
    return max(4 * 1.4826 * spread, _HALF_LEVEL)


def _isolate(left: Grey, noise: float, name: str) -> Grey | None:
    """Return the ink of the digit among all departures of one direction, (H, W), if there is one.

    What is none, though darker, is taken away, and it is looked for among the rest. If there is
    nothing else, what touches the picture's sides may be a digit that was cut out.
    """
    largest: Grey | None = None
    for _ in range(_ROUNDS):
        peak = _peak(left)
        if peak < _FAINTEST:
            break
        level = min(noise, peak / 2)
        left = np.where(lines_of(left > max(level, _WEAK * peak)), np.float32(0), left)
        peak = _peak(left)
        if peak < _FAINTEST:
            break
        parts = find_components(left > max(min(noise, peak / 2), _WEAK * peak))
        strong = np.zeros(len(parts.areas), bool)
        strong[parts.labels[(left > _STRONG * peak) & (parts.labels >= 0)]] = True
        sized = _extents(parts) >= _SMALLEST * max(left.shape)
        candidates = strong & sized & ~_is_edge(parts) & ~_is_frame(parts, strong & sized)
        candidates = _prefer_inner(parts, candidates)
        if candidates.any():
            return _scaled(left, noise, parts, _choose(parts, candidates, name))
        cut = strong & sized & _may_be_cut_out(parts)
        if largest is None and cut.any():
            best = np.argmax(np.where(cut, parts.areas, 0))
            largest = _scaled(left, noise, parts, np.arange(len(cut)) == best)
        left = np.where(grown(parts.mask(strong), _AROUND), np.float32(0), left)
    return largest


def _peak(left: Grey) -> float:
    """Return the darkest ink's departure; a single pixel of a large picture is none."""
    if min(left.shape) < 100:
        return float(left.max())
    pairs = np.minimum(left[1:], left[:-1])
    return float(np.minimum(pairs[:, 1:], pairs[:, :-1]).max())


def _extents(parts: Components) -> npt.NDArray[np.intp]:
    return np.maximum(parts.heights, parts.widths)


def _contacts(parts: Components) -> npt.NDArray[np.float64]:
    """Return which share of the picture's four sides each part covers, (n, 4)."""
    labels, count = parts.labels, len(parts.areas)
    sides = (labels[0], labels[-1], labels[:, 0], labels[:, -1])
    return np.stack(
        [np.bincount(side[side >= 0], minlength=count) / len(side) for side in sides], axis=1
    )


def _is_edge(parts: Components) -> Mask:
    """Say which parts lie along a side of the picture: a scan's dark edge, a table, a frame."""
    return _contacts(parts).max(axis=1, initial=0) > 0.5


def _may_be_cut_out(parts: Components) -> Mask:
    """Say which parts fill the picture as a digit does that was cut out along its edges."""
    height, width = parts.labels.shape
    large = (parts.heights > height / 2) & (parts.widths > width / 2)
    return large & ((_contacts(parts) > 0.9).sum(axis=1) < 2)


def _is_frame(parts: Components, among: Mask) -> Mask:
    """Say which parts are hollow, and hold another that is not much smaller."""
    boxes, hollow = parts.boxes, parts.areas < 0.35 * parts.heights * parts.widths
    frames = np.zeros(len(boxes), bool)
    for outer in np.flatnonzero(among & hollow):
        top, left, bottom, right = boxes[outer]
        within = (boxes[:, 0] > top) & (boxes[:, 1] > left)
        within &= (boxes[:, 2] < bottom) & (boxes[:, 3] < right)
        frames[outer] = (among & within & (parts.heights > 0.25 * parts.heights[outer])).any()
    return frames


def _prefer_inner(parts: Components, candidates: Mask) -> Mask:
    """Leave out those that touch a side of the picture, if others are about as large."""
    touching = candidates & (_contacts(parts).max(axis=1, initial=0) > 0)
    inner = candidates & ~touching
    if not (touching.any() and inner.any()):
        return candidates
    extents = _extents(parts)
    return inner if extents[inner].max() > 0.25 * extents[touching].max() else candidates


def _choose(parts: Components, candidates: Mask, name: str) -> Mask:
    """Return the parts of the one digit: the largest, those that are near, and what is among them.

    Raises
    ------
    ImageError
        If another is as good a digit.
    """
    order = np.argsort(-np.where(candidates, parts.areas, 0), kind="stable")
    order = order[: int(candidates.sum())]
    chosen = np.zeros(len(candidates), bool)
    chosen[order[0]] = True
    box = parts.boxes[order[0]].copy()
    for other in [*order[1:], *order[1:]]:  # twice, since what is far may be near to a third
        large = parts.areas[other] >= _STROKE * parts.areas[order[0]]
        if large and not chosen[other] and _is_stroke(box, parts.boxes[other]):
            chosen[other] = True
            box[:2] = np.minimum(box[:2], parts.boxes[other, :2])
            box[2:] = np.maximum(box[2:], parts.boxes[other, 2:])
    others = candidates & ~chosen & (parts.areas > 0.25 * parts.areas[chosen].sum())
    if (others & (parts.heights > 0.5 * (box[2] - box[0]))).any():
        raise ImageError(
            f"{name} holds several digits, or other things beside one. "
            "Cut out one digit, with some room around it."
        )
    top, left, bottom, right = box + np.repeat((-_AROUND, _AROUND), 2)
    boxes = parts.boxes
    inside = (boxes[:, 0] >= top) & (boxes[:, 1] >= left)
    inside &= (boxes[:, 2] <= bottom) & (boxes[:, 3] <= right)
    return chosen | inside


def _is_stroke(box: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Say whether a part in the box `other` belongs to the digit in `box`, and is none beside it.

    The bar of a 5 may float above it, but no stroke as tall as the digit stands beside.
    """
    height, width = box[2] - box[0], box[3] - box[1]
    above, beside = (max(other[k] - box[k + 2], box[k] - other[k + 2]) for k in (0, 1))
    if max(above, beside) > _NEAR * max(height, width):
        return False
    narrower = min(width, other[3] - other[1])
    return bool(beside < -0.1 * narrower or other[2] - other[0] < 0.5 * height)


def _scaled(left: Grey, noise: float, parts: Components, chosen: Mask) -> Grey:
    """Return the ink of some parts, 0 to 1, with what fades out around them."""
    mask = parts.mask(chosen)
    peak = float(left[mask].max())
    level = min(noise, peak / 2)
    near = grown(mask, _AROUND) & ((parts.labels < 0) | mask)
    ink: Grey = np.where(near, np.clip((left - level) / (peak - level), 0, 1), 0)
    return ink.astype(np.float32)
