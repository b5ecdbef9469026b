"""A picture's levels of red, green and blue, none larger than it need be."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from xpdl.datasets.opening import is_deep, opened, to_eight_bits

if TYPE_CHECKING:
    from PIL import Image

Levels: TypeAlias = npt.NDArray[np.float32]
"""(H, W, 3), 0 to 1."""

WORKING_SIDE = 800

_DOTTED = 0.04  # of the pixels: so many stand out
_STEP = 0.15  # of all contrast, by which they do
_DOTS = 2.0  # standard deviation of the blur that makes greys of them, in pixels

# Kinds of images whose pixels are levels, so that they can be averaged.
_LEVELS = ("L", "LA", "RGB", "RGBA", "CMYK")


def open_levels(source: bytes | Image.Image, name: str) -> Levels:
    """Return a picture's levels, of at most 800 rows and columns.

    Raises
    ------
    ImageError
        If it is no picture, a damaged one, or one of too many pixels.
    """
    from PIL import ImageOps

    with opened(source, name) as image:
        image.getexif()  # before it is decoded
        return _to_levels(ImageOps.exif_transpose(_shrink(image)))


def _shrink(image: Image.Image) -> Image.Image:
    """Return an image that is no larger than is worked on, if its pixels can be averaged as is."""
    from PIL import Image

    if image.mode in _LEVELS and "transparency" not in image.info:
        image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    return image


def _to_levels(image: Image.Image) -> Levels:
    from PIL import Image

    if is_deep(image):
        image = to_eight_bits(image)
    transparent = image.has_transparency_data
    image = image.convert("RGBA" if transparent else "RGB")
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BOX)
    if not transparent:
        image = _without_dots(image)
    levels = np.asarray(image, np.float32) / np.float32(255)
    return _fill_transparency(levels[..., :3], levels[..., 3:]) if transparent else levels


def _without_dots(image: Image.Image) -> Image.Image:
    """Return an image whose greys are dots, or under much noise, as one of greys.

    Such is grey paper that was made black and white, or of few colours. The dots would be taken for
    ink. They are told by pixels that stand out from all four neighbours in one direction.
    """
    from PIL import ImageFilter

    grey = np.asarray(image.convert("L")).astype(np.int16)
    if min(grey.shape) < 3:
        return image
    inner = grey[1:-1, 1:-1]
    around = (grey[1:-1, :-2], grey[1:-1, 2:], grey[:-2, 1:-1], grey[2:, 1:-1])
    lowest, highest = np.minimum.reduce(around), np.maximum.reduce(around)
    step = _STEP * (grey.max() - grey.min())
    if (np.maximum(lowest - inner, inner - highest) > step).mean() < _DOTTED:
        return image
    return image.filter(ImageFilter.GaussianBlur(min(_DOTS, max(image.size) / 150)))


def _fill_transparency(levels: Levels, alpha: Levels) -> Levels:
    """Put the picture on a ground that lets it be seen.

    Where what is visible has light and dark of its own and covers most of the field, it is a
    digit on its paper, and the paper's colour is carried on. Otherwise it is ink alone, and the
    ground takes the opposite shade.
    """
    seen = alpha[..., 0] > 0.5
    if not seen.any():
        seen = alpha[..., 0] > 0
    if not seen.any():
        return np.zeros_like(levels)
    visible = levels[seen]
    shades = visible.mean(axis=1)
    darkest, lightest = np.percentile(shades, (2, 98))
    if len(shades) > seen.size / 2 and lightest - darkest > 0.25:
        ground = np.median(visible, axis=0)
    else:
        ground = np.full(3, 0.0 if shades.mean() > 0.5 else 1.0)
    return (levels * alpha + ground.astype(np.float32) * (1 - alpha)).astype(np.float32)
