"""Where the members of an uncompressed zip file lie, for who reads them in place.

The standard library's reader makes an object of each member before one could count them, and does
not say where a member's content begins. Here all is looked at that a hostile file could lie about.
"""

from __future__ import annotations

import struct
from typing import IO, TypeAlias

MOST_DIRECTORY = 2**21  # bytes, of the list of members

Member: TypeAlias = tuple[int, int]
"""Where a member's header is, and how many bytes its content has."""


def members_of(stream: IO[bytes], size: int) -> dict[str, Member]:
    """Return the members of an open file of `size` bytes, by name.

    Raises
    ------
    ValueError, struct.error
        If it is no zip file, a damaged one, or one with compressed or encrypted members.
    """
    start = max(0, size - 2**16 - 22)
    stream.seek(start)
    tail = stream.read(size - start)
    end = tail.rfind(b"PK\5\6")
    if end < 0:
        raise ValueError("its end is missing")
    count, length, begin = struct.unpack_from("<10xHII2x", tail, end)
    if count == 0xFFFF or begin == 0xFFFFFFFF:
        count, length, begin = _large_directory(stream, tail, end)
    if length > MOST_DIRECTORY or begin + length > size:
        raise ValueError("its list of members is too long, or not within it")
    stream.seek(begin)
    directory, at, members = stream.read(length), 0, {}
    for _ in range(count):
        (signature, flags, method, packed, unpacked, *lengths, where) = struct.unpack_from(
            "<4s4xHH8xIIHHH8xI", directory, at
        )
        name_end = at + 46 + lengths[0]
        name = directory[at + 46 : name_end].decode("utf-8")
        extra = directory[name_end : name_end + lengths[1]]
        if signature != b"PK\1\2" or method or flags & 1:
            raise ValueError("a member is compressed or encrypted")
        unpacked, packed, where = _large_numbers(extra, unpacked, packed, where)
        if packed != unpacked or name in members:
            raise ValueError("a member is not as long as it says, or there twice")
        members[name] = where, unpacked
        at = name_end + lengths[1] + lengths[2]
    return members


def _large_directory(stream: IO[bytes], tail: bytes, end: int) -> tuple[int, int, int]:
    """Return how many members a file of more than 4 GB has, and where their list is."""
    if end < 20 or tail[end - 20 : end - 16] != b"PK\6\7":
        raise ValueError("where its list of members is, it does not say")
    (where,) = struct.unpack_from("<Q", tail, end - 12)
    stream.seek(where)
    return struct.unpack("<4x28xQQQ", stream.read(56))


def _large_numbers(extra: bytes, *numbers: int) -> list[int]:
    """Return sizes and a place, with those of more than 32 bits out of what is said beside them."""
    at, more = 0, b""
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            more = extra[at + 4 : at + 4 + length]
        at += 4 + length
    wide = iter(struct.unpack_from(f"<{sum(n == 0xFFFFFFFF for n in numbers)}Q", more))
    return [next(wide) if n == 0xFFFFFFFF else n for n in numbers]


def start_of(stream: IO[bytes], member: Member, size: int) -> int:
    """Return where the content of a member begins."""
    where, length = member
    if where > size:
        raise ValueError("a member is not within the file")
    stream.seek(where)
    signature, name, extra = struct.unpack("<4s22xHH", stream.read(30))
    start = where + 30 + name + extra
    if signature != b"PK\3\4" or start + length > size:
        raise ValueError("a member is not within the file")
    return int(start)


def read_member(stream: IO[bytes], member: Member, size: int, most: int) -> bytes:
    """Return the content of a member of at most `most` bytes."""
    start, length = start_of(stream, member, size), member[1]
    if length > most:
        raise ValueError(f"a member has more than {most >> 20} MB")
    stream.seek(start)
    return stream.read(length)
