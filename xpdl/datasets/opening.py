"""Pictures of strangers, opened: how large one is and becomes is looked at before it is decoded."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Iterator
from functools import cache
from typing import IO, TYPE_CHECKING, Any, TypeAlias, Union, cast

import numpy as np
import numpy.typing as npt

from xpdl.backends import Array
from xpdl.datasets.picture_arrays import image_of
from xpdl.errors import ArgumentError, FileAccessError, ImageError, shown
from xpdl.files import read_bytes

if TYPE_CHECKING:
    from PIL import Image

Picture: TypeAlias = Union[str, "os.PathLike[str]", bytes, IO[bytes], "Image.Image", Array]

LARGEST_FILE = 2**26
"""A file with more bytes than this is not read."""

MOST_PIXELS = 16_000_000
"""A picture of a digit with more pixels than this is refused before it is decompressed."""

MOST_JPEG_PIXELS = 50_000_000
"""That many, if it is a JPEG, whose decoder makes it smaller in passing."""

MOST_READS = 50_000
"""A file made of more pieces than this takes its decoder too long."""

MOST_SCANS = 40
MOST_SCANNED = 12 * MOST_JPEG_PIXELS
"""A progressive JPEG has ten scans; each takes its decoder once over all pixels."""

USUAL_FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
"""Formats of pictures that are given one by one. Each says at its beginning what it is."""

# For EPS Pillow starts another program, and PostScript is a program itself; of the others it
# reads the headers only.
_UNREADABLE = {"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"}

# The least that is taken for white in a deep grey: of 8, 10, 12, 14 and 16 bits.
_WHITES = (255.0, 1023.0, 4095.0, 16383.0, 65535.0)


class _Pieces(io.BytesIO):
    """A file that gives up on being read in too many pieces."""

    reads = 0

    def read(self, size: int | None = -1) -> bytes:
        self.reads += 1
        if self.reads > MOST_READS:
            raise ValueError(f"it is of more than {MOST_READS:,} pieces")
        return super().read(size)


@cache
def readable_formats() -> tuple[str, ...]:
    """Return the names of all formats that Pillow reads by itself."""
    from PIL import Image

    Image.init()
    return tuple(name for name in Image.ID if name not in _UNREADABLE)


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the endings of the names of such files, in small letters: '.png' and so on."""
    from PIL import Image

    formats = readable_formats()
    return frozenset(
        suffix for suffix, name in Image.registered_extensions().items() if name in formats
    )


def read_picture(picture: Picture) -> tuple[bytes | Image.Image, str]:
    """Return what a user gives as a picture: the content of a file, or an image; and a name for it.

    Parameters
    ----------
    picture : path, bytes, binary file, PIL.Image.Image or array
        Of an array see `picture_arrays.image_of`.

    Raises
    ------
    ArgumentError
        If it is none of these, or an array that is no picture.
    FileAccessError
        If a file is missing, a folder, not readable, or too large.
    """
    from PIL import Image

    if isinstance(picture, Image.Image):
        return picture, "the picture"
    if hasattr(picture, "dtype") and hasattr(picture, "shape"):
        return image_of(cast("Array", picture)), "the picture"
    if isinstance(picture, bytes | bytearray | memoryview):
        return bytes(picture), "the picture"
    if isinstance(picture, str | os.PathLike):
        try:
            return read_bytes(picture, LARGEST_FILE), repr(os.fspath(picture))
        except FileAccessError as error:
            raise FileAccessError(f"picture: {error}") from error
    content = picture.read(LARGEST_FILE + 1) if hasattr(picture, "read") else None
    if not isinstance(content, bytes):
        raise ArgumentError(
            "picture must be a path, bytes, a file that is open for reading bytes, a "
            f"PIL.Image.Image or an array, got {shown(picture)}."
        )
    if len(content) > LARGEST_FILE:
        raise FileAccessError(f"picture: the file is larger than {LARGEST_FILE >> 20:,} MB.")
    return content, "the picture"


@contextlib.contextmanager
def opened(
    source: bytes | Image.Image,
    name: str,
    formats: tuple[str, ...] = USUAL_FORMATS,
    most_pixels: int = MOST_PIXELS,
) -> Iterator[Image.Image]:
    """Open a picture for a block that decodes it, and let what goes wrong there be ours to tell.

    Parameters
    ----------
    source : bytes or Image
        The content of a file; or an image, of which the block gets a copy.
    name : str
        What to call it in an error message.
    formats : tuple of str
        The formats that will do, as Pillow names them.
    most_pixels : int
        A picture with more is refused, if it is no JPEG.

    Raises
    ------
    ImageError
        If it is no picture, a damaged one, or one of too many pixels.
    """
    from PIL import Image, UnidentifiedImageError

    if source == b"":
        raise ImageError(f"{name} is empty.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(source, bytes):
                image: Image.Image = Image.open(_Pieces(source), formats=formats)
            else:
                image = source
            _check_pixels(image, source, name, most_pixels)
            if isinstance(source, Image.Image):
                image = source.copy()
            yield image
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture of a known format. Give a PNG.") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name} has too many pixels: {error} Make it smaller.") from error
    except ImageError:
        raise
    # Pillow's decoders answer damaged files with nearly every exception there is.
    except Exception as error:
        raise ImageError(f"{name} is damaged or truncated: {error}.") from error


def _check_pixels(
    image: Image.Image, source: bytes | Image.Image, name: str, most_pixels: int
) -> None:
    pixels = image.width * image.height
    if not pixels:
        raise ImageError(f"{name} has no pixels: {image.width} x {image.height}.")
    is_jpeg = isinstance(source, bytes) and image.format in ("JPEG", "MPO")
    most = MOST_JPEG_PIXELS if is_jpeg else most_pixels
    if pixels > most:
        raise ImageError(
            f"{name} has {image.width} x {image.height} pixels, more than {most:,}. "
            "Make it smaller."
        )
    if isinstance(source, bytes) and is_jpeg:
        most = min(MOST_SCANS, MOST_SCANNED // pixels)
        if source.count(b"\xff\xda") > most:
            raise ImageError(f"{name} has more than {most} scans. Save it as a PNG.")


def is_deep(image: Image.Image) -> bool:
    """Say whether an image is grey of more than 8 bits, whose levels Pillow itself would clip."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def to_eight_bits(image: Image.Image) -> Image.Image:
    """Return a deep grey image with 8 bits a pixel, and its transparency if it has one.

    White is the greatest level of the fewest bits, 8, 10, 12, 14 or 16, that hold all its levels:
    a camera's 12 bits are commonly kept in files of 16. Levels that are below 0 or above those,
    and floats that are not from 0 to 1, are brought from the least to the greatest.
    """
    from PIL import Image

    # In its place, as a large picture would not fit into the memory several times.
    kind = np.float32 if image.mode.startswith("I;16") else np.float64
    levels: npt.NDArray[np.floating[Any]] = np.asarray(image).astype(kind)
    least, greatest = float(levels.min()), float(levels.max())
    if not (np.isfinite(least) and np.isfinite(greatest)):
        raise ValueError("a pixel is not a finite number")
    whites = (1.0, 255.0) if image.mode == "F" else _WHITES
    high = next((white for white in whites if greatest <= white), greatest)
    low = 0.0
    if least < 0 or greatest > whites[-1]:
        low, high = least, greatest
    colour = image.info.get("transparency")
    clear = None if colour is None else levels == colour
    levels -= low
    levels *= 255 / ((high - low) or 1)
    np.clip(levels, 0, 255, out=levels)
    np.rint(levels, out=levels)
    grey = Image.fromarray(levels.astype(np.uint8))
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    return grey
