"""A picture of a digit, made to look as the pictures of MNIST do.

MNIST's digits are white ink on black. Each was fitted into a box of 20x20 pixels with its aspect
ratio kept, which the antialiasing made grey, and put into a field of 28x28 so that its centre of
mass is the centre of the field (http://yann.lecun.com/exdb/mnist/). A network that learned from
such pictures knows no others, so a picture given to it has to go the same way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xpdl.datasets.opening import LARGEST_FILE, is_deep, opened, to_eight_bits
from xpdl.errors import ArgumentError, FileAccessError, ImageError, shown
from xpdl.files import read_bytes

if TYPE_CHECKING:
    from PIL import Image

Grey: TypeAlias = npt.NDArray[np.float32]

FIELD = 28
BOX = 20

# Kinds of images whose pixels are levels, so that they can be averaged.
_LEVELS = ("L", "LA", "RGB", "RGBA", "CMYK")

_WORKING_SIDE = 800
_FAINTEST = 1 / 8
_EDGE = 0.1
_EDGE_WIDTH = 2  # pixels of less ink than that, around the others
_HALF_LEVEL = 1 / 510
_FITTING_ROUNDS = 10


def prepare_digit(picture: str | os.PathLike[str] | Image.Image) -> Grey:
    """Return a picture of one digit as an image of MNIST's kind.

    Colours become grey, transparency is filled, a dark digit on a light ground is inverted, the
    ground is brought to 0 and the darkest ink to 1, and the ink is fitted and centred as
    MNIST's was.

    Parameters
    ----------
    picture : path or PIL.Image.Image
        A PNG, JPEG, GIF, BMP, TIFF, WebP or PPM of any kind, up to 64 MB and 16 million pixels (as
        a JPEG, 50 million); of an animation, the first frame. Or an image, which is left as it is.

    Returns
    -------
    ndarray (28, 28) of float32
        The ink, 0 to 1.

    Raises
    ------
    ArgumentError
        If it is neither a path nor an image.
    FileAccessError
        If the file is missing, a folder, not readable, or too large.
    ImageError
        If it is no picture, a damaged one, one of too many pixels, or one with nothing on it.
    """
    from PIL import Image

    if isinstance(picture, (str, os.PathLike)):
        name = repr(os.fspath(picture))
        try:
            content = read_bytes(picture, LARGEST_FILE)
        except FileAccessError as error:
            raise FileAccessError(f"picture: {error}") from error
        grey = _open_grey(content, name)
    elif isinstance(picture, Image.Image):
        name = "the picture"
        grey = _open_grey(picture, name)
    else:
        raise ArgumentError(f"picture must be a path or a PIL.Image.Image, got {shown(picture)}.")
    return _centre(_fit(_crop(_find_ink(grey, name))))


def _open_grey(source: bytes | Image.Image, name: str) -> Grey:
    """Return the picture as shades of grey, 0 black to 1 white, none longer than it need be."""
    from PIL import ImageOps

    with opened(source, name) as image:
        image.getexif()  # before it is decoded
        return _to_grey(ImageOps.exif_transpose(_shrink(image)))


def _shrink(image: Image.Image) -> Image.Image:
    """Return an image that is no larger than is worked on, if its pixels can be averaged as is."""
    from PIL import Image

    if image.mode in _LEVELS and "transparency" not in image.info:
        image.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX)
    return image


def _to_grey(image: Image.Image) -> Grey:
    from PIL import Image

    if is_deep(image):
        image = to_eight_bits(image)
    transparent = image.has_transparency_data
    image = image.convert("RGBA" if transparent else "RGB").convert("LA" if transparent else "L")
    image.thumbnail((_WORKING_SIDE, _WORKING_SIDE), Image.Resampling.BOX)
    levels = np.asarray(image, np.float32) / np.float32(255)
    return _fill_transparency(levels[..., 0], levels[..., 1]) if transparent else levels


def _fill_transparency(levels: Grey, alpha: Grey) -> Grey:
    """Put the picture on a ground that lets it be seen.

    Where what is visible has light and dark of its own and covers most of the field, it is a
    digit on its paper, and the paper's shade is carried on. Otherwise it is ink alone, and the
    ground takes the opposite shade.
    """
    visible = levels[alpha > 0.5]
    if visible.size == 0:
        visible = levels[alpha > 0]
    if visible.size == 0:
        return np.zeros_like(levels)
    darkest, paper, lightest = np.percentile(visible, (2, 50, 98))
    if visible.size > levels.size / 2 and lightest - darkest > 0.25:
        ground = paper
    else:
        ground = 0.0 if visible.mean() > 0.5 else 1.0
    return (levels * alpha + np.float32(ground) * (1 - alpha)).astype(np.float32)


def _find_ink(grey: Grey, name: str) -> Grey:
    """Return how much ink there is at each pixel: 0 on the ground, 1 at the most."""
    departure = grey - _ground(grey)
    # What departs from the ground in the other direction is shadow or glare.
    if -departure.min() > departure.max():
        departure = -departure
    peak = float(departure.max())
    if peak < _FAINTEST:
        raise ImageError(
            f"{name} is blank: nothing on it stands out from its border. "
            "Give a picture of one digit with some room around it."
        )
    # Four standard deviations of normal noise, estimated from a median, which ink that touches
    # the border does not move; at least half a grey level, and never so much as to hide the ink.
    noise = 4 * 1.4826 * float(np.median(np.abs(_border(departure))))
    noise = min(max(noise, _HALF_LEVEL), peak / 2)
    ink = np.clip((departure - noise) / (peak - noise), 0, 1)
    scaled: Grey = ink.astype(np.float32)
    return scaled


def _border(field: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the outermost pixels of (height, width, ...) in one row, each once."""
    first, last = field[:1], field[-1:] if len(field) > 1 else field[:0]
    sides = field[1:-1, [0, -1] if field.shape[1] > 1 else [0]]
    tail = field.shape[2:]
    return np.concatenate([part.reshape(-1, *tail) for part in (first, last, sides)])


def _ground(grey: Grey) -> Grey:
    """Return the shade of the ground everywhere: a plane through the shades of the border.

    A plane and not one level, because light falls unevenly on paper. It is the plane of least
    absolute departure, found by weighted least squares, so that ink on the border counts little.
    """
    height, width = grey.shape
    down, right = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    basis = np.stack((np.ones_like(down), down, right), axis=-1)
    places, shades = _border(basis), _border(grey).astype(np.float64)
    plane = np.array([np.median(shades), 0, 0])
    for _ in range(_FITTING_ROUNDS):
        weights = 1 / np.maximum(np.abs(shades - places @ plane), _HALF_LEVEL)
        root = np.sqrt(weights)
        plane = np.linalg.lstsq(places * root[:, np.newaxis], shades * root, rcond=None)[0]
    ground: Grey = (basis @ plane).astype(np.float32)
    return ground


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
