"""Gzip, decompressed no further than to the length wanted."""

from __future__ import annotations

import re
import zlib

from xpdl.errors import DataFileError

_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_FORMAT = 16 + zlib.MAX_WBITS  # zlib then checks a member's checksum and length
_NOUGHTS = re.compile(b"\0*")
_PIECE = 1 << 16
MOST_MEMBERS = 1000
"""A gzip file may be several, one after the other; of empty ones it could hold millions."""


def longest_compressed(size: int) -> int:
    """Return how long a gzip file of `size` bytes may get: stored as is, with ample framing."""
    return size + size // 1000 + 4096


def unpack(content: bytes, size: int, origin: str) -> bytes:
    """Return `content`, decompressed if it is gzip.

    Parameters
    ----------
    content : bytes
        A gzip file, or a plain one: browsers and mirrors like to decompress on the way.
    size : int
        The length wanted, in bytes. Decompression stops there, whatever a gzip bomb holds.
    origin : str
        What to call the file in an error message.

    Raises
    ------
    DataFileError
        If it is a damaged or truncated gzip file, or holds more than `size` bytes.
    """
    if not content.startswith(_GZIP_MAGIC):
        return content
    try:
        unpacked = _decompress(content, size + 1)
    except (ValueError, zlib.error) as error:
        raise DataFileError(f"{origin} is a damaged or truncated gzip file: {error}.") from error
    if len(unpacked) > size:
        raise DataFileError(f"{origin} holds more than the {size} bytes wanted.")
    return unpacked


def _decompress(content: bytes, most: int) -> bytes:
    """Return what the members of a gzip file hold, up to `most` bytes of it."""
    view, position = memoryview(content), 0
    pieces: list[bytes] = []
    for _ in range(MOST_MEMBERS):
        member = zlib.decompressobj(_GZIP_FORMAT)
        while most and not member.eof:
            given = view[position : position + _PIECE]
            if not given:
                raise ValueError("its end is missing")
            pieces.append(member.decompress(given, most))
            most -= len(pieces[-1])
            position += len(given) - len(member.unconsumed_tail) - len(member.unused_data)
        padding = _NOUGHTS.match(content, position)
        position = padding.end() if padding else position
        if not most or position == len(content):
            return b"".join(pieces)
    raise ValueError(f"it is more than {MOST_MEMBERS} files in one")
