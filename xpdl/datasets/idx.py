"""The IDX format, in which MNIST is published.

A file is a magic number, the sizes of the dimensions, and the elements in C order::

    0  0  type  dimensions  | size 0 | size 1 | ... | elements
    one byte each           | four bytes each, most significant byte first

Type 0x08 is the unsigned byte, the only one that MNIST and its successors use.
"""

from __future__ import annotations

import math
import struct
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from xpdl.arguments import real_array, whole_number
from xpdl.errors import ArgumentError, DataFileError, DTypeError, ShapeError, shown

ByteArray: TypeAlias = npt.NDArray[np.uint8]

UNSIGNED_BYTE = 0x08


def decode_idx(content: bytes, name: str, dimensions: int) -> ByteArray:
    """Return the array that the bytes of an IDX file hold.

    Parameters
    ----------
    content : bytes
        The whole file, decompressed.
    name : str
        What to call the file in an error message.
    dimensions : int
        How many dimensions it must have: 3 for images (N, height, width), 1 for labels (N,).

    Returns
    -------
    ndarray of uint8
        A writable array of its own.

    Raises
    ------
    ArgumentError
        If `content` is not bytes, or `dimensions` no int from 1 to 255.
    DataFileError
        If it is not an IDX file of unsigned bytes with that many dimensions, or its length is
        not exactly what its header promises. Nothing is allocated before that is known.
    """
    if not isinstance(content, bytes | bytearray | memoryview):
        raise ArgumentError(f"the content of {name!r} must be bytes, got {shown(content)}.")
    dimensions = whole_number("dimensions", dimensions, most=255)
    wanted = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if content[:4] != wanted:
        raise DataFileError(
            f"{name!r} is not an IDX file of unsigned bytes in {dimensions} dimension(s): "
            f"it begins with the bytes {content[:4].hex(' ') or '(none)'}, "
            f"where {wanted.hex(' ')} is wanted."
        )
    header = 4 + 4 * dimensions
    if len(content) < header:
        raise DataFileError(
            f"{name!r} is truncated: it has {len(content)} bytes, its header alone needs {header}."
        )
    shape = struct.unpack_from(f">{dimensions}I", content, 4)
    length = header + math.prod(shape)
    if len(content) != length:
        raise DataFileError(
            f"{name!r} is truncated or altered: it has {len(content)} bytes, "
            f"but its header promises the shape {shape}, which takes exactly {length}."
        )
    try:
        return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
    except ValueError as error:  # no items at all, in 4 billion by 4 billion pictures of no width
        raise DataFileError(f"{name!r} promises the shape {shape}: {error}.") from error


def encode_idx(array: ByteArray) -> bytes:
    """Return the bytes of an IDX file that holds `array`.

    Parameters
    ----------
    array : ndarray of uint8
        One dimension or more, in any memory order.

    Raises
    ------
    DTypeError
        If it is no array, or its elements are not unsigned bytes.
    ShapeError
        If it has no dimension, or one that the format cannot express.
    """
    if real_array("array", array).dtype != np.uint8:
        raise DTypeError(f"array: an IDX file is written from uint8, got {array.dtype}.")
    if array.ndim == 0 or max(array.shape) >= 2**32:
        raise ShapeError(
            f"array: an IDX file holds at least one dimension and sizes below 2**32, "
            f"got the shape {array.shape}."
        )
    magic = bytes([0, 0, UNSIGNED_BYTE, array.ndim])
    return magic + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
