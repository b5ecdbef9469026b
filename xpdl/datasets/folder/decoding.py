"""One picture of a folder: looked at, and decoded to the size and the channels of its data set."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from xpdl.datasets.opening import (
    LARGEST_FILE,
    MOST_JPEG_PIXELS,
    USUAL_FORMATS,
    is_deep,
    opened,
    readable_formats,
    to_eight_bits,
)
from xpdl.errors import FileAccessError, ImageError
from xpdl.files import read_bytes

if TYPE_CHECKING:
    from PIL import Image

_TURNED = (5, 6, 7, 8)  # EXIF orientations in which height and width change places
_ORIENTATION = 0x0112
_LONGEST_REASON = 200  # of a message, in characters


class Form(NamedTuple):
    """What all pictures of a data set are brought to."""

    height: int
    width: int
    channels: int

    @property
    def size(self) -> int:
        """How many bytes a picture takes."""
        return self.height * self.width * self.channels


def look(path: str) -> dict[str, Any]:
    """Return what is known of a picture without decoding it, or under 'broken' why nothing is.

    A file that is none, and whose name does not say that it is one, is 'foreign'.
    What is known is the first half of its file's SHA-256, 'digest'; its 'height' and 'width'
    as it is seen; and whether it has a 'color'.
    """
    from PIL import UnidentifiedImageError

    try:
        content = _read(path)
        with opened(content, "it", _formats(path), MOST_JPEG_PIXELS) as image:
            height, width = image.height, image.width
            # To look for EXIF data, Pillow decodes a PNG.
            may_be_turned = image.format != "PNG" or b"exif" in content.lower()
            if may_be_turned and image.getexif().get(_ORIENTATION) in _TURNED:
                height, width = width, height
            color = _has_color(image)
    except (ImageError, FileAccessError) as error:
        if not os.path.splitext(path)[1] and isinstance(error.__cause__, UnidentifiedImageError):
            return {"foreign": True}
        return {"broken": _reason(error, path)}
    digest = hashlib.sha256(content).hexdigest()[:32]
    return {"digest": digest, "height": height, "width": width, "color": color}


def decode(path: str, form: Form) -> bytes:
    """Return a picture's pixels, (channels, height, width), in the form of its data set.

    It is turned as its EXIF data say, put on white where it is transparent, made as small as covers
    the height and the width, and cut at both ends of the longer side.

    Raises
    ------
    ImageError, FileAccessError
        If it cannot be read.
    """
    return pixels_of(_read(path), "it", form, _formats(path)).tobytes()


def pixels_of(
    source: bytes | Image.Image, name: str, form: Form, formats: tuple[str, ...] = USUAL_FORMATS
) -> npt.NDArray[np.uint8]:
    """Return a picture's pixels (channels, height, width), as `decode` does.

    Raises
    ------
    ImageError
        If it cannot be read; `name` is what it is called.
    """
    from PIL import ImageOps

    with opened(source, name, formats, MOST_JPEG_PIXELS) as image:
        image.draft("L" if form.channels == 1 else "RGB", _covering(image, form))
        image = _flat(ImageOps.exif_transpose(image))
        image = _fit(image.convert("L" if form.channels == 1 else "RGB"), form)
        pixels = np.asarray(image)
    planes = pixels[np.newaxis] if form.channels == 1 else pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(planes)


def _read(path: str) -> bytes:
    content = read_bytes(path, LARGEST_FILE)
    if not content:
        raise ImageError("it is empty.")
    return content


def _formats(path: str) -> tuple[str, ...]:
    """Return the formats that a file may have: of one without an ending, what tells itself."""
    return readable_formats() if os.path.splitext(path)[1] else USUAL_FORMATS


def _reason(error: Exception, path: str) -> str:
    text = str(error).removeprefix(f"cannot read {path!r}: ")
    return " ".join(text.split())[:_LONGEST_REASON]


def _has_color(image: Image.Image) -> bool:
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La", "PA") and not is_deep(image)


def _covering(image: Image.Image, form: Form) -> tuple[int, int]:
    """Return the width and height to which a JPEG's decoder may make an image smaller at once."""
    sides = form.width, form.height
    return sides if image.getexif().get(_ORIENTATION) not in _TURNED else (sides[1], sides[0])


def _flat(image: Image.Image) -> Image.Image:
    """Return an image of 8 bits a channel without transparency."""
    from PIL import Image

    if is_deep(image):
        image = to_eight_bits(image)
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image)


def _fit(image: Image.Image, form: Form) -> Image.Image:
    """Return the largest middle part of the form's proportions, in its size."""
    from PIL import Image

    wanted, (width, height) = (form.width, form.height), image.size
    if image.size == wanted:
        return image
    scale = min(width / form.width, height / form.height)
    left = round((width - scale * form.width) / 2)
    top = round((height - scale * form.height) / 2)
    middle = image.crop((left, top, width - left, height - top))
    return middle.resize(wanted, Image.Resampling.BICUBIC, reducing_gap=3.0)
