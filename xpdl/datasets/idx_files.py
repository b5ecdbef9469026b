"""Pictures and labels in IDX files of any number and any classes: EMNIST's, and a user's own.

EMNIST (Cohen et al. 2017, arXiv:1702.05373) comes in such files too, but its pictures lie on their
sides, mirrored, and the labels of its letters begin at 1. Both is put right, and said.
"""

from __future__ import annotations

import math
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from xpdl.arguments import flag, path_of
from xpdl.datasets.arrays import data_of_arrays
from xpdl.datasets.compression import unpack
from xpdl.datasets.idx import ByteArray, decode_idx
from xpdl.datasets.picture_data import PictureData
from xpdl.errors import DataError, DataFileError, FileAccessError
from xpdl.files import read_bytes

LARGEST = 2**33
"""A file that is longer than this, in bytes, decompressed or not, is not read."""

_IMAGES = re.compile(
    r"(?P<set>.*?)(?P<part>train|test|t10k)-images[-.]idx3-ubyte(?P<packed>\.gz)?", re.IGNORECASE
)
_DIGITS, _CAPITALS, _SMALL = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abdefghnqrt"
_EMNIST = {
    "letters": _CAPITALS,
    "digits": _DIGITS,
    "mnist": _DIGITS,
    "balanced": _DIGITS + _CAPITALS + _SMALL,
    "bymerge": _DIGITS + _CAPITALS + _SMALL,
    "byclass": _DIGITS + _CAPITALS + _CAPITALS.lower(),
}


def has_idx_files(path: Path) -> bool:
    """Say whether this is a file of pictures by its name, or a folder with one."""
    if path.is_dir():
        return bool(_image_files(path))
    return path.is_file() and bool(_IMAGES.fullmatch(path.name))


def load_idx(
    path: str | os.PathLike[str],
    *,
    split: float | None = 0.1,
    seed: int = 0,
    quiet: bool = False,
) -> PictureData:
    """Return the pictures of IDX files, of gzip or not, which are called as MNIST's are.

    Parameters
    ----------
    path : str or path
        The folder with ``...train-images-idx3-ubyte``, ``...train-labels-idx1-ubyte`` and, if there
        are any, those of ``test`` or ``t10k``; or, where it holds several sets, one of the files.
    split : float, optional
        Where there are no test pictures, the share to set aside for them; None sets none aside.
    seed : int
        For that.
    quiet : bool
        Whether to leave it at `notes`, rather than to print them.

    Raises
    ------
    FileAccessError
        If a file is missing or cannot be read.
    DataFileError
        If one is truncated, altered or of another format.
    DataError
        If there are none, several sets, or not a label for each picture.
    ArgumentError
        If `split` leaves none on one side.
    """
    path, quiet = path_of("path", path), flag("quiet", quiet)
    folder = path if path.is_dir() else path.parent
    files = _image_files(folder) if folder.is_dir() else []
    sets = sorted({match["set"] for _, match in files})
    if not path.is_dir():
        match = _IMAGES.fullmatch(path.name)
        if match is None or not path.is_file():
            raise DataError(
                f"{str(path)!r} is no IDX file of pictures such as train-images-idx3-ubyte."
            )
        sets = [match["set"]]
    if len(sets) != 1:
        found = f"those of {', '.join(map(repr, sets))}" if sets else "none"
        raise DataError(
            f"{str(folder)!r} must hold the IDX files of one set, such as "
            f"train-images-idx3-ubyte; it holds {found}. Name one of the files."
        )
    name = sets[0].strip("-_. ").lower()
    parts: dict[str, Path] = {
        "train" if match["part"].lower() == "train" else "test": each
        for each, match in files
        if match["set"] == sets[0]
    }
    if "train" not in parts:
        raise DataError(f"{str(folder)!r} has test pictures and none to train with.")
    read: dict[str, tuple[ByteArray, ByteArray]]
    read = {part: _read_part(parts[part]) for part in ("train", "test") if part in parts}
    notes: list[str] = []
    class_names: tuple[str, ...] | None = None
    if name.startswith("emnist"):
        read, class_names, notes = _upright(read, name, folder, sets[0])
    return data_of_arrays(
        {part: (x[:, np.newaxis], t) for part, (x, t) in read.items()},
        class_names=class_names,
        split=split,
        seed=seed,
        notes=notes,
        quiet=quiet,
    )


def _image_files(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    try:
        paths = sorted(folder.iterdir(), key=lambda each: (each.suffix != ".gz", each.name))
    except OSError as error:
        raise FileAccessError(
            f"cannot read the folder {str(folder)!r}: {error.strerror}."
        ) from error
    matches = [(each, _IMAGES.fullmatch(each.name)) for each in paths]
    return [(each, match) for each, match in matches if match is not None]


def _read_part(images: Path) -> tuple[ByteArray, ByteArray]:
    """Return the pictures of a file and the labels of the one beside it."""
    name = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    labels = images.with_name(name)
    if not labels.exists():
        labels = images.with_name(f"{name}.gz")
    x, t = _read(images, 3), _read(labels, 1)
    if len(x) != len(t):
        raise DataError(
            f"{str(images)!r} holds {len(x):,} pictures, {labels.name!r} {len(t):,} labels."
        )
    return x, t


def _read(path: Path, dimensions: int) -> ByteArray:
    content = read_bytes(path, LARGEST)
    try:
        unpacked = unpack(content, _promised(content, dimensions), repr(str(path)))
        return decode_idx(unpacked, str(path), dimensions)
    except MemoryError as error:
        raise DataFileError(f"{str(path)!r} does not fit into the memory.") from error


def _promised(content: bytes, dimensions: int) -> int:
    """Return the length that a file's header promises, so that it is unpacked no further."""
    length = 4 + 4 * dimensions
    if content.startswith(b"\x1f\x8b"):
        try:
            content = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(content, length)
        except zlib.error:
            return length  # whoever unpacks it will hear what is wrong
    if len(content) < length:
        return length
    return min(LARGEST, length + math.prod(struct.unpack_from(f">{dimensions}I", content, 4)))


def _upright(
    read: dict[str, tuple[ByteArray, ByteArray]], name: str, folder: Path, prefix: str
) -> tuple[dict[str, tuple[ByteArray, ByteArray]], tuple[str, ...] | None, list[str]]:
    """Return EMNIST's pictures as they are read, with labels from 0, and their names."""
    notes = ["EMNIST's pictures are transposed: rows and columns are put right"]
    known = _EMNIST.get(name.removeprefix("emnist").strip("-_. "))
    first = min(int(t.min()) for _, t in read.values() if len(t))
    if first == 1 and known == _CAPITALS:
        notes.append("EMNIST's labels of letters, 1 to 26, are 0 to 25 here: A to Z")
    else:
        first = 0
    turned = {
        part: (np.ascontiguousarray(x.transpose(0, 2, 1)), t - np.uint8(first))
        for part, (x, t) in read.items()
    }
    return turned, tuple(known) if known else None, notes
