"""Arrays out of a pickle, and nothing else: what the file names is never looked up or called.

A pickle is a program for a small stack machine, and its instructions can call anything. The
machine here knows only the instructions and the names by which NumPy writes an array, and builds
the arrays itself. Python's own unpickler would not do, however little it may look up: given a few
dozen bytes, tuples of tuples of tuples as a key, it computes for hours.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import IO, Any, ClassVar

import numpy as np

from xpdl.errors import ModelFileError
from xpdl.files import HostArray, read_bytes

LARGEST_FILE = 2**27  # bytes; the book's are of 4 MB at most
MOST_INSTRUCTIONS = 100_000  # an array takes about 30
LONGEST_TUPLE, LONGEST_NAME = 64, 100  # an array may have as many axes
ELEMENT_TYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


class _Name(Enum):
    """What a file may ask for; each stands for itself, and is no function."""

    RECONSTRUCT = auto()
    FROMBUFFER = auto()
    SCALAR = auto()
    NDARRAY = auto()
    DTYPE = auto()
    ENCODE = auto()
    BYTES = auto()


INSTRUCTIONS = {instruction.code: instruction for instruction in pickletools.opcodes}
# Instructions with lines of text. pickletools would undo escapes, which names have none of.
LINES = {"GLOBAL": 2, "INST": 2, "STRING": 1, "PERSID": 1}

# NumPy 1 writes numpy.core, NumPy 2 numpy._core. Protocols 0 to 2, which know no bytes, write them
# as text and ask to encode it; protocol 5 writes an array as a buffer.
NAMES = {
    "numpy.core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy.core.numeric _frombuffer": _Name.FROMBUFFER,
    "numpy._core.numeric _frombuffer": _Name.FROMBUFFER,
    "numpy.core.multiarray scalar": _Name.SCALAR,
    "numpy._core.multiarray scalar": _Name.SCALAR,
    "numpy ndarray": _Name.NDARRAY,
    "numpy dtype": _Name.DTYPE,
    "_codecs encode": _Name.ENCODE,
    "__builtin__ bytes": _Name.BYTES,
}


@dataclass(eq=False)
class _ElementType:
    """A dtype as a file builds it: a code such as f8, and then the order of its bytes."""

    code: str
    order: str = ""


@dataclass(eq=False)
class Built:
    """An array as a file builds it: nothing, and then its numbers."""

    values: HostArray | None = None


def read_arrays(path: str | os.PathLike[str]) -> dict[str, HostArray]:
    """Read a pickled dict of NumPy arrays, as ``pickle.dump(params, file)`` of Python 3 writes it.

    Of any pickle protocol and any NumPy since 1.11. Nothing is run, and all else is refused.

    Returns
    -------
    dict of str to array
        Of floats, ints or bools, in the machine's byte order; a NumPy scalar is ().

    Raises
    ------
    FileAccessError
        If the file cannot be read, or is larger than 128 MB.
    ModelFileError
        If it asks for anything but arrays, or is damaged.
    """
    return arrays_in(read_bytes(path, LARGEST_FILE), str(path))


def arrays_in(content: bytes, name: str) -> dict[str, HostArray]:
    """Return what `read_arrays` does, of a file's content; `name` is what errors call it."""
    stream = io.BytesIO(content)
    try:
        arrays = ArrayMachine(stream, len(content)).run()
        if stream.tell() < len(content):
            raise ModelFileError("it goes on after its end")
        return _values(arrays)
    except ModelFileError as error:
        raise ModelFileError(
            f"{name!r} is refused: {error}. A parameter file may hold a dict of NumPy arrays "
            "(float, int or bool) and nothing else. Nothing of it was run."
        ) from error
    except (ValueError, OverflowError) as error:
        raise ModelFileError(
            f"{name!r} is not a pickle file, or a damaged one: {str(error)[:200]}."
        ) from error


class Machine:
    """The pickle machine: a stack, marks in it, and a memo of what may be used again.

    What names stand for, what calling one gives, and what a dict may hold, a subclass says.

    Raises `ModelFileError` for what it refuses, and `ValueError` for what makes no sense.
    """

    names: ClassVar[Mapping[str, Any]] = {}
    needed_by = "no dict of arrays"

    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the one thing that the instructions up to the next STOP build."""
        for count, (instruction, argument) in enumerate(_instructions(self.stream)):
            if count == MOST_INSTRUCTIONS:
                raise ModelFileError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")
            self.step(instruction, argument, count)
        (result,) = self.take(1)
        if self.stack or self.marks:
            raise ModelFileError(f"it holds more than {_describe(result)}")
        return result

    def call(self, called: Any, arguments: Any) -> Any:
        """Return what a call of a name gives."""
        raise NotImplementedError

    def build(self, target: Any, state: Any) -> None:
        """Change what was made before."""
        raise NotImplementedError

    def expect_item(self, name: Any, value: Any) -> None:
        """See that a dict may hold `value` under `name`."""
        raise NotImplementedError

    def step(self, instruction: str, argument: Any, count: int) -> None:
        """Carry out one instruction; `argument` is its own in the file, if it has one."""
        match instruction:
            case "PROTO":
                if argument > 5:
                    raise ModelFileError(f"it is of the pickle protocol {argument}, wanted 0 to 5")
            case "FRAME" | "STOP":
                pass  # a frame only says how much to read ahead, and here all is read
            case "NONE":
                self.stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                self.stack.append(instruction == "NEWTRUE")
            case "INT" | "BININT" | "BININT1" | "BININT2" | "LONG" | "LONG1":
                if not -(2**63) <= argument < 2**63:
                    raise ModelFileError("it holds an int of more than 64 bits")
                self.stack.append(argument)
            case "UNICODE" | "BINUNICODE" | "SHORT_BINUNICODE":
                self.stack.append(argument)
            case "BINBYTES" | "SHORT_BINBYTES" | "BYTEARRAY8":
                self.stack.append(argument)
            case "MARK":
                self.marks.append(len(self.stack))
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = 0 if instruction == "EMPTY_TUPLE" else int(instruction[-1])
                self.stack.append(_tuple(self.take(size)))
            case "TUPLE":
                self.stack.append(_tuple(self.take_to_mark()))
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                items = self.take_to_mark()
                self.stack.append({})
                self._set_items(items)
            case "SETITEM":
                self._set_items(self.take(2))
            case "SETITEMS":
                self._set_items(self.take_to_mark())
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.top()
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                if not 0 <= argument <= count:
                    raise ModelFileError("it keeps a value under a number out of turn")
                self.memo[argument] = self.top()
            case "GET" | "BINGET" | "LONG_BINGET":
                if argument not in self.memo:
                    raise ValueError("it uses a value again that it has not kept")
                self.stack.append(self.memo[argument])
            case "GLOBAL":
                self.stack.append(self._named(argument))
            case "STACK_GLOBAL":
                module, name = self.take(2)
                if not (isinstance(module, str) and isinstance(name, str)):
                    raise ValueError("it asks for something whose name is no text")
                self.stack.append(self._named(f"{module} {name}"))
            case "REDUCE":
                called, arguments = self.take(2)
                self.stack.append(self.call(called, arguments))
            case "BUILD":
                (state,) = self.take(1)
                self.build(self.top(), state)
            case _:
                raise ModelFileError(
                    f"it uses the instruction {instruction}, which {self.needed_by} needs"
                )

    # ---- the stack ------------------------------------------------------------------------------

    def take(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < (self.marks[-1] if self.marks else 0):
            raise ValueError("it takes more values than it has put down")
        taken = self.stack[start:]
        del self.stack[start:]
        return taken

    def take_to_mark(self) -> list[Any]:
        if not self.marks:
            raise ValueError("it looks for a mark that it has not set")
        taken = self.take(len(self.stack) - self.marks[-1])
        self.marks.pop()
        return taken

    def top(self) -> Any:
        (top,) = self.take(1)
        self.stack.append(top)
        return top

    def _set_items(self, items: list[Any]) -> None:
        target = self.top()
        if not isinstance(target, dict):
            raise ValueError("it puts names into what is no dict")
        for name, value in zip(items[::2], items[1::2], strict=True):
            self.expect_item(name, value)
            target[name] = value

    def _named(self, name: str) -> Any:
        if name not in self.names:
            raise ModelFileError(f"it asks for {'.'.join(name[:80].split(' ', 1))!r}")
        return self.names[name]


class ArrayMachine(Machine):
    """The machine that builds a dict of NumPy's arrays."""

    names = NAMES

    def __init__(self, stream: io.BytesIO, size: int) -> None:
        super().__init__(stream)
        self.size = size
        self.made: Counter[str] = Counter()

    def expect_item(self, name: Any, value: Any) -> None:
        if not isinstance(name, str) or len(name) > LONGEST_NAME:
            raise ModelFileError(
                f"it names an array by {_describe(name)}, wanted a str of at most "
                f"{LONGEST_NAME} characters"
            )
        if not isinstance(value, Built):
            raise ModelFileError(f"{name!r} is {_describe(value)}, not an array")

    def call(self, called: Any, arguments: Any) -> Any:
        match called, arguments:
            case _Name.RECONSTRUCT, (_Name.NDARRAY, (0,), bytes(kind)) if kind == b"b":
                return Built()
            case _Name.DTYPE, (str(code), 0, 1):
                if code not in ELEMENT_TYPES:
                    raise ModelFileError(f"it holds an array whose elements are {code[:20]!r}")
                return _ElementType(code)
            case _Name.SCALAR, (_ElementType() as dtype, bytes(data)):
                return Built(self._numbers((), dtype, data))
            case _Name.FROMBUFFER, (
                bytes(data) | bytearray(data),
                _ElementType() as dtype,
                tuple(shape),
                str(order),
                *axes,
            ):
                match order, axes:
                    case "C" | "F", []:
                        return Built(self._numbers(shape, dtype, data, fortran=order == "F"))
                    case "K", [tuple(axis_order)]:
                        array = self._numbers(shape, dtype, data)
                        return Built(array.transpose(_whole("order of axes", axis_order)))
            case _Name.ENCODE, (str(text), str(encoding)) if encoding == "latin1":
                self._spend("text", len(text))
                return text.encode("latin-1")
            case _Name.BYTES, ():
                return b""
        raise ModelFileError(f"it calls {_describe(called)} as NumPy does not")

    def build(self, target: Any, state: Any) -> None:
        match target, state:
            case Built(), (1, tuple(shape), _ElementType() as dtype, bool(fortran), bytes(data)):
                target.values = self._numbers(shape, dtype, data, fortran=fortran)
            case _ElementType(), (3, str(order), None, None, None, -1, -1, 0):
                if order not in (("|",) if target.code[-1] == "1" else ("<", ">")):
                    raise ModelFileError(f"its elements are in the byte order {order[:20]!r}")
                target.order = order
            case _:
                raise ModelFileError(f"it changes {_describe(target)} as NumPy does not")

    def _numbers(
        self,
        shape: tuple[Any, ...],
        kind: _ElementType,
        data: bytes | bytearray,
        *,
        fortran: bool = False,
    ) -> HostArray:
        """Return a copy of `data` as an array of `shape`, if it is just as long as that."""
        if not kind.order:
            raise ValueError("the elements of an array are of no known byte order")
        dtype = np.dtype(kind.order + kind.code)
        wanted = math.prod(_whole("shape", shape)) * dtype.itemsize
        if wanted != len(data):
            raise ModelFileError(
                f"it holds {len(data):,} bytes for an array of {dtype.itemsize}-byte elements "
                f"and the shape {str(shape)[:80]}"
            )
        self._spend("arrays", wanted)
        view: HostArray = np.ndarray(shape, dtype, data, order="F" if fortran else "C")
        return view.astype(dtype.newbyteorder("="))

    def _spend(self, purpose: str, count: int) -> None:
        """See that what is made, text or arrays, is not larger than the file it comes from."""
        self.made[purpose] += count
        if self.made[purpose] > self.size:
            raise ModelFileError("it uses the same bytes for more than one array")


def _values(arrays: Any) -> dict[str, HostArray]:
    """Return the arrays of the one dict that a file is."""
    if not isinstance(arrays, dict):
        raise ModelFileError(f"it holds {_describe(arrays)}, not one dict of arrays")
    for name, array in arrays.items():
        if array.values is None:
            raise ValueError(f"the array {name} was begun and has no numbers")
    return {name: array.values for name, array in arrays.items()}


def _instructions(stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    """Yield each instruction up to STOP, and its argument in the file or None."""
    name = ""
    while name != "STOP":
        code = stream.read(1).decode("latin-1")
        if code not in INSTRUCTIONS:
            raise ValueError(f"{code!r} is no instruction" if code else "its end is missing")
        name, kind = INSTRUCTIONS[code].name, INSTRUCTIONS[code].arg
        if name in LINES:
            lines = [stream.readline().removesuffix(b"\n") for _ in range(LINES[name])]
            yield name, b" ".join(lines).decode("latin-1")
        else:
            yield name, kind.reader(stream) if kind else None


def _whole(what: str, values: tuple[Any, ...]) -> tuple[int, ...]:
    if not all(type(value) is int and value >= 0 for value in values):
        raise ModelFileError(f"it holds an array whose {what} is not of whole numbers from 0 up")
    return values


def _tuple(items: list[Any]) -> tuple[Any, ...]:
    """Return a tuple, of tuples at most: deeper ones no array needs."""
    if len(items) > LONGEST_TUPLE or any(
        isinstance(inner, tuple) for item in items if isinstance(item, tuple) for inner in item
    ):
        raise ModelFileError("it holds tuples too long or too deep for an array")
    return tuple(items)


def _describe(value: Any) -> str:
    """Return what a value is, in a few words, whatever it holds."""
    match value:
        case _Name():
            return "numpy's " + value.name.lower()
        case Built():
            return "an array"
        case _ElementType():
            return "a dtype"
        case None:
            return "None"
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
