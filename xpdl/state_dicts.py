"""State dictionaries of PyTorch, read without it: arrays by name, out of .pth, .pt, safetensors.

``torch.save`` writes a pickle in which arrays are named, and their numbers beside it: since
PyTorch 1.6 in members of an uncompressed zip file, before that one after the other. The pickle goes
through the machine of `pickles`, so nothing in it is looked up or run, and the numbers of an array
are read from the open file when it is asked for.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import IO, Any, ClassVar

import numpy as np

from xpdl.errors import ModelFileError
from xpdl.files import LARGEST_TENSORS, MOST_TENSORS, HostArray, open_tensors, reading
from xpdl.pickles import Machine
from xpdl.stored_zip import members_of, read_member, start_of

LARGEST_PICKLE = 2**24  # bytes; of an array it takes about 150
LONGEST_NAME = 300
NESTED = ("state_dict", "model", "model_state_dict")
"""Under which names a training's own files keep the network, beside what else they hold."""

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
"""How a file of PyTorch before 1.6 begins: a number, and the version 1001, pickled."""

# What the storages are called, and their numbers; NumPy has no bfloat16.
ELEMENTS = {
    "Half": "f2", "Float": "f4", "Double": "f8", "BFloat16": "bf16",
    "Char": "i1", "Short": "i2", "Int": "i4", "Long": "i8", "Byte": "u1", "Bool": "b1",
}  # fmt: skip


class _Name(Enum):
    """What a file may call; each stands for itself, and is no function."""

    ORDERED_DICT = auto()
    TENSOR = auto()
    PARAMETER = auto()


@dataclass(frozen=True)
class _Element:
    """A type of storage."""

    code: str

    @property
    def size(self) -> int:
        return 2 if self.code == "bf16" else np.dtype(self.code).itemsize


@dataclass(frozen=True, eq=False)
class _Storage:
    """Numbers in a row, elsewhere in the file."""

    element: _Element
    key: str
    count: int


@dataclass(frozen=True, eq=False)
class _Tensor:
    """An array: a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def extent(self) -> int:
        """Over how many numbers of its storage it reaches."""
        if 0 in self.shape:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))


@dataclass(frozen=True)
class StateDict:
    """The arrays of an open file: their shapes by name, in its order, and what reads one."""

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], HostArray]
    ordered: bool  # whether that order means something


@contextlib.contextmanager
def open_state_dict(path: str | os.PathLike[str]) -> Iterator[StateDict]:
    """Open a file of arrays by name: of ``torch.save``, in either of its forms, or safetensors.

    A file that a training wrote may hold the network's arrays under ``"state_dict"`` or
    ``"model"``; what else it holds is left alone.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it is of another kind, asks for anything but arrays, or is damaged.
    """
    with reading(path, LARGEST_TENSORS) as stream:
        start = stream.read(len(MAGIC))
        if start == MAGIC or start.startswith(b"PK\3\4"):
            yield _open_pickled(path, stream, zipped=start != MAGIC)
            return
    with open_tensors(path) as (shapes, _, read):
        yield StateDict(shapes, read, ordered=False)


def _open_pickled(path: str | os.PathLike[str], stream: IO[bytes], *, zipped: bool) -> StateDict:
    size = os.fstat(stream.fileno()).st_size
    try:
        tensors, places, order = (_read_zip if zipped else _read_legacy)(stream, size)
    except ModelFileError as error:
        raise _refused(path, error) from error
    except (ValueError, OverflowError, struct.error) as error:
        raise _damaged(path, error) from error

    def read(name: str) -> HostArray:
        try:
            return _read_tensor(stream, tensors[name], places, order)
        except ModelFileError as error:
            raise _refused(path, error) from error
        except ValueError as error:
            raise _damaged(path, error) from error
        except MemoryError as error:
            raise ModelFileError(f"{name} of {str(path)!r} does not fit the memory.") from error

    return StateDict({name: tensor.shape for name, tensor in tensors.items()}, read, ordered=True)


def _refused(path: str | os.PathLike[str], error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{str(path)!r} is refused: {error}. A file of weights may hold a dict of arrays, as "
        "torch.save(network.state_dict(), path) writes it. Nothing of it was run."
    )


def _damaged(path: str | os.PathLike[str], error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{str(path)!r} is not a file of torch.save, or a damaged one: {str(error)[:200]}."
    )


# ---- the pickle --------------------------------------------------------------------------------


class _Tensors(Machine):
    """The machine that builds what ``torch.save`` writes: arrays, and plain values beside them."""

    names: ClassVar[Mapping[str, Any]] = {
        "collections OrderedDict": _Name.ORDERED_DICT,
        "torch._utils _rebuild_tensor_v2": _Name.TENSOR,
        "torch._utils _rebuild_parameter": _Name.PARAMETER,
        **{f"torch {name}Storage": _Element(code) for name, code in ELEMENTS.items()},
    }
    needed_by = "no state dictionary"

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}

    def step(self, instruction: str, argument: Any, count: int) -> None:
        match instruction:
            case "BINPERSID":
                self.stack.append(self._storage(*self.take(1)))
            case "BINFLOAT":
                self.stack.append(argument)
            case "EMPTY_LIST":
                self.stack.append([])
            case "APPEND":
                self._append(self.take(1))
            case "APPENDS":
                self._append(self.take_to_mark())
            case _:
                super().step(instruction, argument, count)

    def _append(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise ValueError("it appends to what is no list")
        target += items

    def _storage(self, about: Any) -> _Storage:
        match about:
            case ("storage", _Element() as element, str(key), str(), int(count), *rest):
                if rest not in ([], [None]) or count < 0:
                    raise ModelFileError("it holds a storage that is a part of another")
                made = self.storages.setdefault(key, _Storage(element, key, count))
                if (made.element, made.count) != (element, count):
                    raise ValueError("it holds two storages of one name")
                return made
        raise ModelFileError("it asks for something outside the file that is no storage")

    def call(self, called: Any, arguments: Any) -> Any:
        match called, arguments:
            case _Name.ORDERED_DICT, ():
                return {}
            case _Name.TENSOR, (
                _Storage() as storage,
                int(offset),
                tuple(shape),
                tuple(strides),
                bool(),
                dict(),
                *_,
            ):
                return _tensor(storage, offset, shape, strides)
            case _Name.PARAMETER, (_Tensor() as tensor, bool(), dict()):
                return tensor
        raise ModelFileError(f"it calls {_described(called)} as PyTorch does not")

    def build(self, target: Any, state: Any) -> None:
        # A dict with its attributes: the versions of the modules.
        if not (isinstance(target, dict) and isinstance(state, dict)):
            raise ModelFileError(f"it changes {_described(target)} as PyTorch does not")

    def expect_item(self, name: Any, value: Any) -> None:
        if isinstance(name, str) and len(name) > LONGEST_NAME:
            raise ModelFileError(f"it holds a name of more than {LONGEST_NAME} characters")
        if type(name) not in (str, int):
            raise ModelFileError(f"it names a value by {_described(name)}, wanted a str")


def _tensor(
    storage: _Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]
) -> _Tensor:
    whole = all(type(n) is int and n >= 0 for n in (offset, *shape, *strides))
    if not whole or len(shape) != len(strides):
        raise ModelFileError("it holds an array whose shape is not of whole numbers from 0 up")
    tensor = _Tensor(storage, offset, shape, strides)
    if offset + tensor.extent > storage.count:
        raise ValueError("an array reaches beyond its storage")
    return tensor


def _described(value: Any) -> str:
    if isinstance(value, _Name | _Element):
        return "torch's " + (value.name.lower() if isinstance(value, _Name) else value.code)
    return f"a {type(value).__name__.strip('_').lower()}"


def _arrays_of(value: Any) -> dict[str, _Tensor]:
    """Return the arrays of a state dictionary, or of the one within what a training saved."""
    inside = [value[name] for name in NESTED if isinstance(value, dict) and name in value]
    arrays = next((found for found in inside if isinstance(found, dict)), value)
    if not isinstance(arrays, dict):
        raise ModelFileError(f"it holds {_described(arrays)}, not a dict of arrays")
    for name, tensor in arrays.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ModelFileError(f"{str(name)[:80]!r} is {_described(tensor)}, not an array")
    if len(arrays) > MOST_TENSORS:
        raise ModelFileError(f"it holds {len(arrays):,} arrays, more than {MOST_TENSORS:,}")
    return arrays


# ---- where the numbers are ---------------------------------------------------------------------


def _read_zip(stream: IO[bytes], size: int) -> tuple[dict[str, _Tensor], dict[str, int], str]:
    """Return the arrays, where each storage begins, and the order of bytes."""
    members = members_of(stream, size)
    pickled = [name for name in members if name.endswith("/data.pkl")]
    if len(pickled) != 1:
        raise ValueError("it is a zip file without one data.pkl")
    folder = pickled[0].removesuffix("data.pkl")
    machine = _Tensors(io.BytesIO(read_member(stream, members[pickled[0]], size, LARGEST_PICKLE)))
    tensors = _arrays_of(machine.run())
    order = b"little"
    if f"{folder}byteorder" in members:
        order = read_member(stream, members[f"{folder}byteorder"], size, LARGEST_PICKLE)
    if order not in (b"little", b"big"):
        raise ValueError("its byte order is neither little nor big")
    places = {}
    for storage in {id(t.storage): t.storage for t in tensors.values()}.values():
        name = f"{folder}data/{storage.key}"
        if name not in members:
            raise ValueError(f"{name[:80]!r} is missing in it")
        places[storage.key] = start_of(stream, members[name], size)
        if members[name][1] != storage.count * storage.element.size:
            raise ValueError(f"{name[:80]!r} is not as long as its storage")
    return tensors, places, "<" if order == b"little" else ">"


def _read_legacy(stream: IO[bytes], size: int) -> tuple[dict[str, _Tensor], dict[str, int], str]:
    """Return what `_read_zip` does, of a file of PyTorch before 1.6.

    After the magic: how the machine was, the arrays, a list of the storages, and these one after
    the other, each behind how many numbers it has.
    """
    stream.seek(len(MAGIC))
    head = io.BytesIO(stream.read(LARGEST_PICKLE))
    machine = _Tensors(head)
    about, tensors = machine.run(), _arrays_of(machine.run())
    keys = _Tensors(head).run()
    if not isinstance(about, dict) or type(about.get("little_endian")) is not bool:
        raise ValueError("its byte order is neither little nor big")
    order, at, places = "<" if about["little_endian"] else ">", len(MAGIC) + head.tell(), {}
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or sorted(keys) != sorted(machine.storages):
        raise ValueError("its list of storages is not of those that its arrays are in")
    for key in keys:
        storage = machine.storages[key]
        stream.seek(at)
        (count,) = struct.unpack(f"{order}q", stream.read(8))
        if count != storage.count:
            raise ValueError("a storage is not as long as it says")
        places[key], at = at + 8, at + 8 + count * storage.element.size
        if at > size:
            raise ValueError("a storage is not within the file")
    return tensors, places, order


def _read_tensor(
    stream: IO[bytes], tensor: _Tensor, places: Mapping[str, int], order: str
) -> HostArray:
    """Return a copy of an array; `ModelFileError` if it is a small part of much."""
    element, extent = tensor.storage.element, tensor.extent
    if extent > 4 * math.prod(tensor.shape) + 2**20:
        raise ModelFileError("it holds an array that lies scattered in a larger one")
    code = "u2" if element.code == "bf16" else element.code
    numbers: HostArray = np.empty(extent, np.dtype(f"{order}{code}"))
    stream.seek(places[tensor.storage.key] + tensor.offset * element.size)
    if extent and stream.readinto(numbers.view(np.uint8)) < numbers.nbytes:  # type: ignore[attr-defined]
        raise ValueError("it ends within an array")
    steps = [step * numbers.itemsize for step in tensor.strides]
    view: HostArray = np.ndarray(tensor.shape, numbers.dtype, numbers, 0, steps)
    if element.code == "bf16":  # the upper half of a float32
        return (view.astype(np.uint32) << 16).view(np.float32)
    return np.asarray(view.astype(np.dtype(code), copy=False), order="C")
