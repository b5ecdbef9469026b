"""How anything reaches the disk: written beside its place, flushed, then renamed.

A reader sees the old file or the new one, never half of one, whenever the writer is stopped.
Tensors are kept in the safetensors format, which holds numbers and text and no code.

What is read may come from a stranger. How large a file is, and how much it would become in memory,
is looked at before it is read, and only what lies on a disk is opened: a pipe may never end.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from xpdl.errors import ArgumentError, FileAccessError, ModelFileError, XpdlError
from xpdl.formats import FIRST, foreign
from xpdl.tensor_digest import DIGEST, digest_of

HostArray = np.ndarray[Any, np.dtype[Any]]

LARGEST_FILE = 2**27  # bytes, of a file that is read as a whole
LARGEST_TENSORS = 2**34  # bytes, of a safetensors file
MOST_TENSORS = 20_000
# Of JSON. A training's losses are most of what there is: 1.5 million steps fit.
LONGEST_TEXT = 48 * 2**20  # bytes
MOST_VALUES = 1_500_000
MOST_CONTAINERS = 100_000
DEEPEST = 100  # containers in containers

# What NumPy has types for; the format also knows narrower floats.
TENSOR_TYPES = {
    "BOOL",
    "F16",
    "F32",
    "F64",
    *(f"{sign}{n}" for sign in "IU" for n in (8, 16, 32, 64)),
}


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a new file beside `path` for writing; on success it takes the place of `path`.

    A link is followed: what it points to is replaced.

    Raises
    ------
    FileAccessError
        If the folder is missing or read-only, the disk is full, or `path` is a folder or a device.
        `path` is then untouched.
    """
    if "\0" in os.fspath(path):
        raise FileAccessError(f"cannot write {str(path)!r}: its name holds a NUL; leave it out.")
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{os.urandom(6).hex()}.part")
    try:
        if target.exists() and not target.is_file():
            raise OSError(None, "it is not a file")
        # Exclusive, so that two writers never share one; the user's umask applies by itself.
        with open(beside, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, target)
    except XpdlError:
        raise  # by whoever is writing this file, of where it comes from
    except OSError as error:
        raise FileAccessError(
            f"cannot write {str(path)!r}: {_reason(error)}. "
            "Choose a folder that exists, is writable and has room."
        ) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.unlink(beside)


def expect_writable(path: str | os.PathLike[str]) -> None:
    """See that `path` can be written; it is left as it is.

    Raises
    ------
    FileAccessError
        As `replacing`.
    """

    class Enough(Exception):
        pass

    with contextlib.suppress(Enough), replacing(path):
        raise Enough


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what `replacing` left in a folder when its process was killed.

    For a folder in which no other process is writing.
    """
    for path in Path(folder).iterdir():
        if re.fullmatch(r"\.[0-9a-f]{12}\.part", path.name):
            path.unlink()


def cache_folder() -> Path:
    """Return the user's folder for what can be had again: ``$XDG_CACHE_HOME/xpdl``.

    Without that variable it is ``~/.cache/xpdl``. It need not exist.

    Raises
    ------
    FileAccessError
        If the user has no home folder and the variable is not set.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        # The XDG specification has relative paths ignored.
        base = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    except RuntimeError as error:
        raise FileAccessError(str(error)) from error
    return base / "xpdl"


def make_folder(path: str | os.PathLike[str], argument: str = "folder") -> Path:
    """Create the folder `path` and its parents; say in one sentence why not, if not.

    `argument` is what the caller's user knows it as.
    """
    if not os.fspath(path):
        raise ArgumentError(f"{argument} is empty; name a folder.")
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileAccessError(
            f"cannot create the folder {str(path)!r}: {_reason(error)}. Choose a writable place."
        ) from error
    return path


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with replacing(path) as stream:
        stream.write(content)


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write `value` as JSON, atomically; NaN and infinity, which JSON lacks, are refused."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], largest: int = LARGEST_FILE) -> Iterator[IO[bytes]]:
    """Open the file `path` for reading, if it is one on a disk and has at most `largest` bytes.

    Raises
    ------
    FileAccessError
        If it is missing, not readable, too large, or no such file but a folder, a device, a pipe.
    """
    try:
        stream = open(path, "rb", opener=_without_waiting)  # noqa: SIM115
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    with stream:
        try:
            about = os.fstat(stream.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise OSError(None, "it is not a file, but a device or a pipe")
            if about.st_size > largest:
                raise OSError(None, f"it is larger than {largest >> 20:,} MB")
            yield stream
        except FileAccessError:
            raise
        except OSError as error:
            raise _unreadable(path, error) from error


def _without_waiting(path: str, flags: int) -> int:
    """Open a file as `open` does, but a pipe that nobody writes to at once."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _unreadable(path: str | os.PathLike[str], error: Exception) -> FileAccessError:
    return FileAccessError(f"cannot read {str(path)!r}: {_reason(error)}.")


def read_bytes(path: str | os.PathLike[str], largest: int = LARGEST_FILE) -> bytes:
    """Return the content of `path`.

    Raises
    ------
    FileAccessError
        If it is missing, no file on a disk, not readable, or has more than `largest` bytes.
    """
    with reading(path, largest) as stream:
        return stream.read(os.fstat(stream.fileno()).st_size)


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; `ModelFileError` if it is none, or would fill the memory."""
    try:
        return _parse(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{str(path)!r} is not a JSON file: {error}.") from error


def _parse(text: bytes | str) -> Any:
    """Return the value of a JSON text; `ValueError` if it is none, or an unreasonable one."""
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"it is a text of more than {LONGEST_TEXT >> 20} MB")
    # Each value takes up to 30 times its room in the text. Those in quotes are counted along.
    braces, brackets, commas = (
        text.count(mark) if isinstance(text, str) else text.count(mark.encode()) for mark in "{[,"
    )
    if braces + brackets > MOST_CONTAINERS or commas > MOST_VALUES:
        raise ValueError("it holds too many values")
    value = json.loads(text, parse_float=_finite, parse_constant=_refuse)
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if type(outer) in (dict, list)
            for inner in (outer if type(outer) is list else outer.values())
            if type(inner) in (dict, list)
        ]
        if not level:
            return value
    raise ValueError(f"its values are nested more than {DEEPEST} deep")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        _refuse(text[:40])
    return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, HostArray], about: Mapping[str, Any]
) -> None:
    """Write named host arrays, and what JSON can hold about them, atomically.

    The same content gives the same file, byte for byte: safetensors orders its text at random, so
    all of ours is one text.
    """
    from safetensors.numpy import save

    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    told = {**about, DIGEST: digest_of(json.dumps(dict(about), allow_nan=False), contiguous)}
    write_bytes(path, save(contiguous, metadata={"xpdl": json.dumps(told)}))


def read_tensors(
    path: str | os.PathLike[str],
    check: Callable[[dict[str, tuple[int, ...]], dict[str, Any]], object] | None = None,
) -> tuple[dict[str, HostArray], dict[str, Any]]:
    """Read a safetensors file: its arrays, and what `write_tensors` was told about them.

    Parameters
    ----------
    check : callable, optional
        Called as ``check(shapes, about)``, with the shapes by name, before any array is read; what
        it raises is raised.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it is not a safetensors file, a damaged one, or not one of xpdl.
    """
    with open_tensors(path) as (shapes, text, read):
        about = _parse_about(path, text)
        wanted = about.pop(DIGEST, None)  # files of earlier versions have none
        if check is not None:
            check(shapes, about)
        arrays = {name: read(name) for name in shapes}
    if wanted is not None and wanted != digest_of(json.dumps(about), arrays):
        raise ModelFileError(
            f"{str(path)!r} is damaged: what it holds is not what was written. Use a copy of it."
        )
    return arrays, about


@contextlib.contextmanager
def open_tensors(
    path: str | os.PathLike[str],
) -> Iterator[tuple[dict[str, tuple[int, ...]], str | None, Callable[[str], HostArray]]]:
    """Open a safetensors file: the shapes in it, what xpdl said of it, and what reads an array.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it is not a safetensors file, or a damaged one.
    """
    from safetensors import safe_open

    with _telling_damage(path):
        _check_header(path)
        opened = safe_open(os.fspath(path), framework="numpy")
    with opened as file:

        def read(name: str) -> HostArray:
            with _telling_damage(path):
                return file.get_tensor(name)

        with _telling_damage(path):
            text, shapes = (file.metadata() or {}).get("xpdl"), _shapes(file)
        yield shapes, text, read


@contextlib.contextmanager
def _telling_damage(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let what goes wrong in a block, where safetensors reads `path`, be an error of ours."""
    from safetensors import SafetensorError

    try:
        yield
    except (FileAccessError, ModelFileError):
        raise
    except OSError as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise ModelFileError(f"{str(path)!r} does not fit into the memory.") from error
    except (SafetensorError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(
            f"{str(path)!r} is not a safetensors file, or a damaged one: {error}."
        ) from error


def _check_header(path: str | os.PathLike[str]) -> None:
    """See, before safetensors reads it, that the header would not fill the memory."""
    with reading(path, LARGEST_TENSORS) as stream:
        first = stream.read(FIRST)
        length = int.from_bytes(first[:8], "little")
        told = None if length <= LONGEST_TEXT and first[8:9] == b"{" else foreign(first)
        if told is not None:
            raise ModelFileError(f"{str(path)!r} is not a safetensors file, but {told}.")
        if len(first) < 8:
            raise ValueError("it is too short")
        if length > LONGEST_TEXT:
            raise ValueError(f"it begins with a text of more than {LONGEST_TEXT >> 20} MB")
        stream.seek(8)
        size = min(length, os.fstat(stream.fileno()).st_size - 8)
        if stream.read(size).count(b"{") > MOST_CONTAINERS:
            raise ValueError("it describes too many arrays")


def _shapes(file: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array in an open safetensors file."""
    names = file.keys()
    if len(names) > MOST_TENSORS:
        raise ValueError(f"it holds {len(names):,} arrays, more than {MOST_TENSORS:,}")
    shapes = {}
    for name in names:
        tensor = file.get_slice(name)
        if tensor.get_dtype() not in TENSOR_TYPES:
            raise ValueError(f"it holds numbers of type {tensor.get_dtype()}")
        shapes[name] = tuple(tensor.get_shape())
    return shapes


def _parse_about(path: str | os.PathLike[str], text: str | None) -> dict[str, Any]:
    """Return what a safetensors file says of itself under 'xpdl'."""
    if text is None:
        raise ModelFileError(
            f"{str(path)!r} is a safetensors file, but of another program: "
            "it does not say what it holds under 'xpdl'. Weights of PyTorch are read by "
            "xpdl.storage.load_torch(network, path, names)."
        )
    try:
        about = _parse(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{str(path)!r} is damaged: {error}.") from error
    if not isinstance(about, dict):
        raise ModelFileError(f"{str(path)!r} is damaged: it says {str(about)[:80]!r} of itself.")
    return about
