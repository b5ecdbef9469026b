"""A picture of a digit, made to look as the pictures of MNIST do.

MNIST's digits are white ink on black. Each was fitted into a box of 20x20 pixels with its aspect
ratio kept, which the antialiasing made grey, and put into a field of 28x28 so that its centre of
mass is the centre of the field (http://yann.lecun.com/exdb/mnist/). A network that learned from
such pictures knows no others, so a picture given to it has to go the same way.
"""

from __future__ import annotations

from xpdl.datasets.digit.finding import find_digit
from xpdl.datasets.digit.form import Grey, bring_to_form
from xpdl.datasets.digit.ground import departures
from xpdl.datasets.digit.levels import Levels, open_levels
from xpdl.datasets.digit.paper import find_paper
from xpdl.datasets.opening import Picture, read_picture
from xpdl.errors import ImageError

_LONG = 2.5  # times as long as it is wide: a stroke, and no sheet of paper


def prepare_digit(picture: Picture) -> Grey:
    """Return a picture of one digit as an image of MNIST's kind.

    Transparency is filled; a sheet of paper is told from what it lies on; what is written is told
    from the ground by the colour in which it differs the most, and from lines, squares, frames,
    dark edges and dust. The ground is brought to 0 and the darkest ink to 1, and the ink is fitted
    and centred as MNIST's was.

    Parameters
    ----------
    picture : path, bytes, binary file, PIL.Image.Image or array
        A PNG, JPEG, GIF, BMP, TIFF, WebP or PPM of any kind, up to 64 MB and 16 million pixels (as
        a JPEG, 50 million); of an animation, the first frame. Or an image, which is left as it is;
        or an array (H, W) or (H, W, C), of whole numbers from 0 to 255 or floats from 0 to 1.

    Returns
    -------
    ndarray (28, 28) of float32
        The ink, 0 to 1.

    Raises
    ------
    ArgumentError
        If it is none of these.
    FileAccessError
        If the file is missing, a folder, not readable, or too large.
    ImageError
        If it is no picture, a damaged one, one of too many pixels, or one with nothing on it, or
        with several digits.
    """
    source, name = read_picture(picture)
    return bring_to_form(_find_ink(open_levels(source, name), name))


def _is_long(sheet: Levels) -> bool:
    return max(sheet.shape[:2]) > _LONG * min(sheet.shape[:2])


def _find_ink(levels: Levels, name: str) -> Grey:
    departed = departures(levels)
    paper, ink = find_paper(departed), None
    if paper is not None:
        ink = find_digit(departures(levels[paper]), name)
    if ink is None and (paper is None or _is_long(levels[paper])):
        ink = find_digit(departed, name)  # what was taken for paper is a stroke
    if ink is None:
        raise ImageError(
            f"{name} is blank: nothing on it stands out from its border. "
            "Give a picture of one digit with some room around it."
        )
    return ink
