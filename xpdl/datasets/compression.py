"""Gzip, decompressed no further than to the length wanted."""

from __future__ import annotations

import gzip
import io
import zlib

from xpdl.errors import DataFileError

_GZIP_MAGIC = b"\x1f\x8b"


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
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            # One byte more than wanted makes gzip look at its end mark and checksum.
            unpacked = stream.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataFileError(f"{origin} is a damaged or truncated gzip file: {error}.") from error
    if len(unpacked) > size:
        raise DataFileError(f"{origin} holds more than the {size} bytes wanted.")
    return unpacked
