"""A picture of a digit, made to look as the pictures of MNIST do.

MNIST's digits are white ink on black. Each was fitted into a box of 20x20 pixels with its aspect
ratio kept, which the antialiasing made grey, and put into a field of 28x28 so that its centre of
mass is the centre of the field (http://yann.lecun.com/exdb/mnist/). A network that learned from
such pictures knows no others, so a picture given to it has to go the same way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from xpdl.datasets.digit.finding import find_digit
from xpdl.datasets.digit.form import Grey, bring_to_form
from xpdl.datasets.digit.ground import departures
from xpdl.datasets.digit.levels import open_levels
from xpdl.datasets.opening import LARGEST_FILE
from xpdl.errors import ArgumentError, FileAccessError, shown
from xpdl.files import read_bytes

if TYPE_CHECKING:
    from PIL import Image


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
        source: bytes | Image.Image = content
    elif isinstance(picture, Image.Image):
        name, source = "the picture", picture
    else:
        raise ArgumentError(f"picture must be a path or a PIL.Image.Image, got {shown(picture)}.")
    return bring_to_form(find_digit(departures(open_levels(source, name)), name))
