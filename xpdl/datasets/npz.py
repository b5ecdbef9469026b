"""Pictures and labels in a file of NumPy's, .npz."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from xpdl.arguments import flag, path_of
from xpdl.datasets.arrays import data_of_arrays
from xpdl.datasets.picture_data import PictureData
from xpdl.errors import DataFileError
from xpdl.files import reading

if TYPE_CHECKING:
    import zipfile

LARGEST = 2**36
"""A file that is longer than this, in bytes, or becomes it, is not read."""

_PARTS = {"train": ("train",), "test": ("test",), "validation": ("val", "valid", "validation")}
_PICTURES = ("x", "images", "data")
_LABELS = ("t", "y", "labels", "targets")
_CLASS_NAMES = ("class_names", "classes", "names")


def load_npz(
    path: str | os.PathLike[str],
    *,
    split: float | None = 0.1,
    seed: int = 0,
    quiet: bool = False,
) -> PictureData:
    """Return the pictures of an .npz file.

    Parameters
    ----------
    path : str or path
        A file with the arrays ``x_train`` and ``t_train``, and perhaps ``x_test`` and ``t_test``,
        ``x_val`` and ``t_val``, and ``class_names``. Such names as ``train_images``,
        ``train_labels``, ``X_train`` and ``y_train`` will do, as will ``x`` and ``y`` alone. For
        what they may hold see `data_of_arrays`.
    split : float, optional
        Where there are no test pictures, the share to set aside for them; None sets none aside.
    seed : int
        For that.
    quiet : bool
        Whether to leave it at `notes`, rather than to print them.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    DataFileError
        If it is none, a damaged one, one that would fill the memory or has no such arrays.
    DataError, NonFiniteError
        If the arrays are no pictures and labels.
    ArgumentError
        If `split` leaves none on one side.
    """
    import zipfile  # as below, `import xpdl` shall be quick

    told, quiet = repr(str(path_of("path", path))), flag("quiet", quiet)
    with reading(path, LARGEST) as stream:
        try:
            with zipfile.ZipFile(stream) as file:
                members = {
                    info.filename.removesuffix(".npy"): info
                    for info in file.infolist()
                    if info.filename.endswith(".npy")
                }
                parts = _find_parts(members, told)
                named = next((name for name in _CLASS_NAMES if name in members), None)
                arrays = {
                    part: (_read(file, members[x], told), _read(file, members[t], told))
                    for part, (x, t) in parts.items()
                }
                names = None if named is None else _read(file, members[named], told)
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
            raise DataFileError(f"{told} is no .npz file, or a damaged one: {error}.") from error
        except MemoryError as error:
            raise DataFileError(f"{told} does not fit into the memory.") from error
    if names is not None and (names.ndim != 1 or names.dtype.kind not in "SU"):
        names = None
    class_names = None if names is None else tuple(map(str, names.astype(str).tolist()))
    return data_of_arrays(arrays, class_names=class_names, split=split, seed=seed, quiet=quiet)


def _find_parts(members: dict[str, Any], told: str) -> dict[str, tuple[str, str]]:
    """Return the names of the arrays of pictures and labels of each part."""
    small = {name.lower(): name for name in members}

    def find(kinds: tuple[str, ...], called: tuple[str, ...]) -> str | None:
        tried = [
            form
            for kind in kinds
            for part in called
            for form in (f"{kind}_{part}", f"{part}_{kind}")
        ]
        return next((small[name] for name in tried if name in small), None)

    found = {}
    for part, called in _PARTS.items():
        x, t = find(_PICTURES, called), find(_LABELS, called)
        if x is not None and t is not None:
            found[part] = (x, t)
    if "train" not in found:
        x, t = (
            next((small[name] for name in kinds if name in small), None)
            for kinds in (_PICTURES, _LABELS)
        )
        if x is None or t is None:
            raise DataFileError(
                f"{told} must hold x_train and t_train, or train_images and train_labels; it holds "
                f"{', '.join(map(repr, list(members)[:8])) or 'no arrays'}."
            )
        found["train"] = (x, t)
    return found


def _read(file: zipfile.ZipFile, info: zipfile.ZipInfo, told: str) -> npt.NDArray[Any]:
    """Return an array of the file, whose size is known from its header before it is read."""
    import zipfile
    import zlib

    name = info.filename
    try:
        with file.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, _, dtype = read_header(stream)
    except (ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(f"{name!r} in {told} is damaged: {error}.") from error
    if dtype.hasobject:
        raise DataFileError(f"{name!r} in {told} holds Python objects, which may be programs.")
    size = math.prod(shape) * dtype.itemsize
    if size > LARGEST or size > info.file_size:
        raise DataFileError(f"{name!r} in {told} is damaged: it promises {size:,} bytes.")
    try:
        with file.open(info) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataFileError(f"{name!r} in {told} is damaged: {error}.") from error
