"""An array that holds one picture, as an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpdl.backends import Array, backend_of
from xpdl.errors import DTypeError, NonFiniteError, ShapeError

if TYPE_CHECKING:
    from PIL import Image


def image_of(array: Array) -> Image.Image:
    """Return a picture (H, W) or (H, W, C) as an image.

    Parameters
    ----------
    array : array, on any device
        Grey, grey and opacity, RGB or RGBA, C of 1 to 4, the channels last. Whole numbers from 0 to
        255, floats from 0 to 1, or booleans; grey ones, without an axis of channels, also of 16
        bits.

    Raises
    ------
    ShapeError, DTypeError, NonFiniteError
        If it is none of these.
    """
    from PIL import Image

    a = backend_of(array).to_numpy(array)
    if a.ndim == 3 and a.shape[2] == 1:
        a = a[..., 0]
    if 0 in a.shape or not (a.ndim == 2 or (a.ndim == 3 and a.shape[2] in (2, 3, 4))):
        raise ShapeError(f"picture must be (H, W) or (H, W, C), got {array.shape}.{_advice(a)}")
    if a.dtype == np.uint16 and a.ndim == 2 and a.max() > 255:
        return Image.fromarray(np.ascontiguousarray(a.astype(np.uint16)))
    return Image.fromarray(np.ascontiguousarray(_bytes(a)))


def _bytes(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return pixels as bytes."""
    if a.dtype.kind == "b":
        return a.astype(np.uint8) * np.uint8(255)
    if a.dtype.kind not in "iuf":
        raise DTypeError(f"picture must be of whole numbers or floats, got {a.dtype}.")
    least, greatest = a.min(), a.max()
    if not np.isfinite(least) or not np.isfinite(greatest):
        raise NonFiniteError("picture holds NaN or infinity.")
    white = 1 if a.dtype.kind == "f" else 255
    if least < 0 or greatest > white:
        wanted = "floats from 0 to 1" if white == 1 else "whole numbers from 0 to 255"
        raise DTypeError(
            f"picture must be of {wanted}, got {a.dtype} from {least:g} to {greatest:g}."
        )
    if white == 1:
        a = np.rint(a.astype(np.float32) * 255)
    return a.astype(np.uint8)


def _advice(a: np.ndarray[Any, Any]) -> str:
    if a.ndim == 3 and a.shape[0] in (1, 3, 4):
        return " Its channels stand first: use picture.transpose(1, 2, 0)."
    return ""
