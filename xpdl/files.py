"""How anything reaches the disk: written beside its place, flushed, then renamed.

A reader sees the old file or the new one, never half of one, whenever the writer is stopped.
Tensors are kept in the safetensors format, which holds numbers and text and no code.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from xpdl.errors import FileAccessError, ModelFileError

HostArray = np.ndarray[Any, np.dtype[Any]]


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
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{os.urandom(6).hex()}.part")
    try:
        if "\0" in target.name or (target.exists() and not target.is_file()):
            raise OSError(None, "it is not a file")
        # Exclusive, so that two writers never share one; the user's umask applies by itself.
        with open(beside, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, target)
    except FileAccessError:
        raise  # of another file, by whoever is writing this one
    except OSError as error:
        raise FileAccessError(
            f"cannot write {str(path)!r}: {_reason(error)}. "
            "Choose a folder that exists, is writable and has room."
        ) from error
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.unlink(beside)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder `path` and its parents; say in one sentence why not, if not."""
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


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of `path`.

    Raises
    ------
    FileAccessError
        If it is missing, a folder, or not readable.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise FileAccessError(f"cannot read {str(path)!r}: {_reason(error)}.") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file; `ModelFileError` if it is none."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{str(path)!r} is not a JSON file: {error}.") from error


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, HostArray], about: Mapping[str, Any]
) -> None:
    """Write named host arrays, and what JSON can hold about them, atomically.

    The same content gives the same file, byte for byte: safetensors orders its text at random, so
    all of ours is one text.
    """
    from safetensors.numpy import save

    contiguous = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps(dict(about), allow_nan=False)
    write_bytes(path, save(contiguous, metadata={"xpdl": text}))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, HostArray], dict[str, Any]]:
    """Read a safetensors file: its arrays, and what `write_tensors` was told about them.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it is not a safetensors file, a damaged one, or not one of xpdl.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with open(path, "rb") as stream:
            if len(stream.read(8)) < 8:
                raise ModelFileError(f"{str(path)!r} is not a safetensors file: it is too short.")
        with safe_open(os.fspath(path), framework="numpy") as file:
            text = (file.metadata() or {}).get("xpdl")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise FileAccessError(f"cannot read {str(path)!r}: {_reason(error)}.") from error
    except ModelFileError:
        raise
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(
            f"{str(path)!r} is not a safetensors file, or a damaged one: {error}."
        ) from error
    if text is None:
        raise ModelFileError(
            f"{str(path)!r} is a safetensors file, but of another program: "
            "it does not say what it holds under 'xpdl'."
        )
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{str(path)!r} is damaged: {error}.") from error
    if not isinstance(about, dict):
        raise ModelFileError(f"{str(path)!r} is damaged: it says {about!r} of itself.")
    return arrays, about
