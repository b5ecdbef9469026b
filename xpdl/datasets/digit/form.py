"""An isolated digit, fitted and centred as those of MNIST are."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Grey: TypeAlias = npt.NDArray[np.float32]

FIELD = 28
BOX = 20

_EDGE = 0.1
_EDGE_WIDTH = 2  # pixels of less ink than that, around the others


def bring_to_form(ink: Grey) -> Grey:
    """Return the ink of one digit (H, W), 0 to 1, as MNIST's (28, 28)."""
    return _centre(_fit(_crop(ink)))


def _crop(ink: Grey) -> Grey:
    """Return the smallest part that holds the digit.

    Around a digit that fits into the box as it is, faint pixels are its antialiased edge. In a
    larger one, and away from it, they are blur, noise and compression, which would widen the box.
    """
    rows, columns = _bounding_box(ink > _EDGE)
    if max(rows.stop - rows.start, columns.stop - columns.start) > BOX:
        return ink[rows, columns]
    around: Grey = ink[_wider(rows), _wider(columns)]
    rows, columns = _bounding_box(around > 0)
    return around[rows, columns]


def _bounding_box(inked: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.nonzero(inked)
    return slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)


def _wider(part: slice) -> slice:
    return slice(max(part.start - _EDGE_WIDTH, 0), part.stop + _EDGE_WIDTH)


def _fit(ink: Grey) -> Grey:
    """Scale to a longer side of 20 pixels, and back to full contrast, which thin lines lose.

    Full is what one in ten of the inked pixels reaches: a crossing of thin lines is darker than
    the lines themselves, and would leave them faint.
    """
    from PIL import Image

    height, width = ink.shape
    scale = BOX / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size == (width, height):
        return ink
    image = Image.fromarray(np.ascontiguousarray(ink)).resize(size, Image.Resampling.BILINEAR)
    fitted = np.asarray(image)
    full = np.percentile(fitted[fitted > 0], 90)
    contrasted: Grey = np.clip(fitted / full, 0, 1).astype(np.float32)
    return contrasted


def _centre(ink: Grey) -> Grey:
    """Put the digit into the field of 28x28, its centre of mass at the centre."""
    field = np.zeros((FIELD, FIELD), np.float32)
    rows, columns = (_start(ink.sum(axis=1 - axis)) for axis in (0, 1))
    height, width = ink.shape
    field[rows : rows + height, columns : columns + width] = ink
    return field


def _start(profile: Grey) -> int:
    """Return where an axis of the digit begins in the field, for its ink by position.

    The centre is the middle of pixel 14, counted from 0: so lie the centres of mass of MNIST
    itself, between 13.5 and 14.5 along both axes.
    """
    centre = float(np.average(np.arange(len(profile)), weights=profile))
    return min(max(round(FIELD / 2 - centre), 0), FIELD - len(profile))
