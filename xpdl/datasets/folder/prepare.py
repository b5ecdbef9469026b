"""One picture, brought to the form of the pictures that a network learned from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xpdl.arguments import sizes
from xpdl.datasets.opening import Picture, read_picture, readable_formats
from xpdl.errors import ShapeError


def prepare_picture(picture: Picture, shape: Sequence[int]) -> npt.NDArray[np.uint8]:
    """Return a picture as `load_folder` brings it to a data set's form.

    It is turned as its EXIF data say, put on white where it is transparent, made as small as covers
    the height and the width, and cut at both ends of the longer side.

    Parameters
    ----------
    picture : path, bytes, binary file, PIL.Image.Image or array
        Of any format that Pillow reads; an image is left as it is. An array is (H, W) or (H, W, C),
        of whole numbers from 0 to 255 or floats from 0 to 1.
    shape : (int, int, int)
        (C, H, W), with C 1 for grey or 3 for colour: `PictureData.shape`, or a network's
        `input_shape`.

    Returns
    -------
    ndarray (C, H, W) of uint8

    Raises
    ------
    ArgumentError, ShapeError
        If an argument does not fit.
    FileAccessError
        If the file cannot be read.
    ImageError
        If it is no picture, a damaged one, or one of too many pixels.
    """
    # It brings in OpenSSL, and `import xpdl` shall be quick.
    from xpdl.datasets.folder.decoding import Form, pixels_of
    from xpdl.datasets.folder.form import checked_channels, checked_size

    sides = sizes("shape", shape)
    if len(sides) != 3:
        raise ShapeError(f"shape must be (C, H, W), got {sides}.")
    channels, height, width = sides
    checked_channels(channels)
    checked_size((height, width))
    source, name = read_picture(picture)
    return pixels_of(source, name, Form(height, width, channels), readable_formats())
