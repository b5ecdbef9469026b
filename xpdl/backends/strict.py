"""A GPU rehearsed on the CPU: NumPy underneath, a device's rules on top.

A `DeviceArray` can be used only through `xp` and its own operators, as CuPy's arrays. Whatever
would fail, stall or go silently wrong on a GPU raises `DeviceRuleError`, which says what a GPU
would have done:

- reading a number or the whole array outside `Backend.item` and `Backend.to_numpy`,
- NumPy arrays and NumPy functions in an operation,
- float64 that nobody asked for,
- an index array that points beyond the bounds, or writes one place twice.

Element-wise results are in C order, as CuPy's are. Transfers between host and device are counted
in `StrictBackend.transfers`.

A step can be captured and replayed as a CUDA graph is (`StrictBackend.compile_step`): host numbers
are frozen, memory is not, and a transfer in between raises.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import numpy as np

from xpdl.backends.base import Array, Backend, RandomGenerator, Shape, Step, host_array
from xpdl.backends.cupy.capture import CapturedStep
from xpdl.errors import BackendMismatchError, DeviceRuleError

# Functions that make arrays of, or ask about, values on the host: shapes, types, numbers.
_OF_HOST_VALUES = {
    "arange", "broadcast_shapes", "can_cast", "empty", "eye", "finfo", "full", "identity", "iinfo",
    "isscalar", "issubdtype", "linspace", "ones", "promote_types", "result_type", "tri", "zeros",
}  # fmt: skip
# Functions that want a size, a shape or an axis behind their array.
_SIZED = {"broadcast_to", "expand_dims", "repeat", "reshape", "tile", "transpose", "resize"}
# Functions that take one sequence of arrays.
_OF_SEQUENCES = {"concatenate", "stack", "vstack", "hstack", "dstack", "column_stack", "block"}
# Functions of CuPy that run one element-wise kernel but are no ufuncs in NumPy.
_ELEMENTWISE = {"where", "clip", "nan_to_num", "round", "around", "real", "imag"}
# Functions that take arrays and never lists of numbers.
_OF_ARRAYS = _ELEMENTWISE | {"dot", "matmul", "tensordot", "vdot", "inner", "outer"}
# Functions that print or save the numbers, which reads them all.
_READING = {"array2string", "array_repr", "array_str", "save", "savetxt", "savez"}
_METHODS = {
    "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumprod", "cumsum",
    "diagonal", "dot", "fill", "flatten", "max", "mean", "min", "nonzero", "prod", "ravel",
    "repeat", "reshape", "round", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace",
    "transpose", "var", "view",
}  # fmt: skip
_ATTRIBUTES = {"dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides"}


@dataclass
class Transfers:
    """How often arrays went from the host to the device and back."""

    to_device: int = 0
    to_host: int = 0


class Recording:
    """What was done on the device, to be done again: a CUDA graph, rehearsed.

    CUDA does not execute what it captures. Here operations must run, so that later ones find their
    arrays; `end` therefore puts all memory back as it was.
    """

    def __init__(self) -> None:
        self._redo: list[Callable[[], object]] = []
        self._undo: list[Callable[[], object]] = []

    def add(self, redo: Callable[[], object], undo: Callable[[], object]) -> None:
        """Keep an operation, and how to take back its first execution."""
        self._redo.append(redo)
        self._undo.append(undo)

    def end(self) -> None:
        """Take back what was executed, the last first."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def replay(self) -> None:
        """Do it all again, on the memory as it now is."""
        for redo in self._redo:
            redo()


_recording: Recording | None = None


def is_recording() -> bool:
    """Tell whether a step is being captured."""
    return _recording is not None


def begin_recording() -> None:
    """Capture from now on what is done to device arrays."""
    global _recording
    _recording = Recording()


def end_recording() -> Recording:
    """Stop capturing, and return what was captured, as if it had not been executed."""
    global _recording
    assert _recording is not None
    recording, _recording = _recording, None
    recording.end()
    return recording


def record(redo: Callable[[], object], written: Sequence[Array]) -> None:
    """While a step is captured, keep an operation that is about to write into host memory."""
    if _recording is not None:
        saved = [(a, a.copy()) for a in written]

        def undo() -> None:
            for a, before in saved:
                np.copyto(a, before)

        _recording.add(redo, undo)


def _refuse_while_recording(what: str) -> None:
    if _recording is not None:
        raise DeviceRuleError(
            f"{what} while a step is captured; CUDA refuses, since a replay has no host. "
            "Do it before or after the step."
        )


class DeviceArray:
    """An array that lives on the rehearsed device."""

    __slots__ = ("_host",)
    __xpdl_device__ = "strict"

    def __init__(self, host: Array) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        if name in _METHODS:
            return _Function(name, getattr(np.ndarray, name), self)
        if name in _ATTRIBUTES:
            return getattr(self._host, name)
        if name in ("item", "tolist", "tobytes"):
            _stall(f"array.{name}")
        if name == "data":  # where it lies, which costs nothing to know
            return SimpleNamespace(ptr=self._host.ctypes.data)
        if name == "T":
            return DeviceArray(self._host.T)
        raise AttributeError(f"an array on the strict backend has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"

    def __len__(self) -> int:
        return len(self._host)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[i] for i in range(len(self)))

    # What NumPy asks of an object that it meets in an operation.

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise DeviceRuleError(
            "a device array was turned into a NumPy array; CuPy raises TypeError here. "
            "Use xpdl.to_numpy(a) where the host really needs the numbers."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        # A NumPy number on the left of an operator comes this way, sometimes as an array without
        # axes, and is as good as a constant.
        inputs = tuple(a[()] if isinstance(a, np.ndarray) and not a.ndim else a for a in inputs)
        if any(isinstance(a, np.ndarray) for a in inputs):
            _mixed(f"numpy.{ufunc.__name__}")
        if method == "__call__" and any(isinstance(a, np.generic) for a in inputs):
            return _Function(ufunc.__name__, ufunc)(*inputs, **options)
        return _numpy_function(ufunc.__name__)

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        _numpy_function(function.__name__)

    # Reading a number makes the host wait for the device.

    def __float__(self) -> float:
        _stall("float(a)")

    def __int__(self) -> int:
        _stall("int(a)")

    def __index__(self) -> int:
        _stall("an array used as an index, a size or a range")

    def __bool__(self) -> bool:
        _stall("if a:, bool(a)")

    def __complex__(self) -> complex:
        _stall("complex(a)")

    def __format__(self, spec: str) -> str:
        if spec:
            _stall("formatting an array's value")
        return repr(self)

    def __copy__(self) -> DeviceArray:
        copy: DeviceArray = self.copy()
        return copy

    def __deepcopy__(self, memo: Any) -> DeviceArray:
        return self.__copy__()

    __hash__ = None  # type: ignore[assignment]

    # Indexing.

    def __getitem__(self, key: Any) -> DeviceArray:
        host_key = _host_key(key)
        found = _index(lambda: self._host[host_key], host_key)
        if isinstance(found, np.generic):
            # On a device one element is a view as well, not a number.
            parts = host_key if isinstance(host_key, tuple) else (host_key,)
            found = self._host[(*(part for part in parts if part is not ...), ...)]
        if not np.may_share_memory(found, self._host):
            record(lambda: np.copyto(found, self._host[host_key]), [found])
        return DeviceArray(found)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            _mixed("a[...] = value")
        host_key = _host_key(key)
        if _holds_index_array(host_key):
            places = np.arange(self.size).reshape(self.shape)
            touched = _index(lambda: places[host_key].ravel(), host_key)
            if len(np.unique(touched)) < len(touched):
                raise DeviceRuleError(
                    "an index array writes one place more than once; which value stays is "
                    "undefined on a GPU. Sum duplicates first, or index without them."
                )
        host_value = _unwrap(value, "a[...] = value")

        def write() -> None:
            _index(lambda: self._host.__setitem__(host_key, host_value), host_key)

        record(write, [self._host])
        write()


def _stall(what: str) -> NoReturn:
    raise DeviceRuleError(
        f"{what} reads a number from the device; a GPU would stop here until all queued work is "
        "done. Keep it on the device, or read it once in a while with backend.item(a)."
    )


def _mixed(where: str) -> NoReturn:
    raise BackendMismatchError(
        f"a NumPy array met a device array in {where}; CuPy raises TypeError here. "
        "Put it on the device first with xpdl.asarray(a)."
    )


def _numpy_function(name: str) -> NoReturn:
    raise DeviceRuleError(
        f"numpy.{name} was called on a device array; write code that runs on every device: "
        f"xp = xpdl.array_module(x), then xp.{name}(x)."
    )


def _unwrap(value: Any, where: str) -> Any:
    """Return `value` with every device array in it replaced by the host array below."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        _mixed(where)
    if isinstance(value, list | tuple):
        return _remade(value, [_unwrap(item, where) for item in value])
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    if isinstance(value, list | tuple):
        return _remade(value, [_wrap(item) for item in value])
    return value


def _is_view(result: Array, arguments: list[Any]) -> bool:
    """Tell whether `result` looks at an argument's memory: then there is nothing to redo."""
    return any(isinstance(a, np.ndarray) and np.may_share_memory(result, a) for a in arguments)


def _remade(sequence: Any, items: list[Any]) -> Any:
    """Return `items` as the list, tuple or named tuple that `sequence` is."""
    return type(sequence)(*items) if hasattr(sequence, "_fields") else type(sequence)(items)


def _host_key(key: Any) -> Any:
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, np.ndarray) for part in parts):
        raise BackendMismatchError(
            "a NumPy array indexes a device array; CuPy would copy it to the device each time. "
            "Put it there once with xpdl.asarray(a)."
        )
    host = tuple(_unwrap(part, "a[index]") for part in parts)
    return host if isinstance(key, tuple) else host[0]


def _holds_index_array(host_key: Any) -> bool:
    parts = host_key if isinstance(host_key, tuple) else (host_key,)
    return any(isinstance(part, np.ndarray | list) for part in parts)


def _index(access: Callable[[], Any], host_key: Any) -> Any:
    try:
        return access()
    except IndexError as error:
        if not _holds_index_array(host_key) or "out of bounds" not in str(error):
            raise  # an ordinary mistake, which CuPy reports as NumPy does
        raise DeviceRuleError(
            f"an index array points beyond the bounds ({error}); CuPy would silently wrap it "
            "around and read or write another element. Check indices on the host."
        ) from error


def _asks_for_float64(value: Any) -> bool:
    """Tell whether `value` is a name of float64, given as an argument."""
    names = (np.float64, "float64", np.dtype(np.float64))
    return value is float or (isinstance(value, type | str | np.dtype) and value in names)


def _float_dtypes(values: Any) -> Iterator[np.dtype[Any]]:
    for value in values:
        if isinstance(value, DeviceArray):
            if value.dtype.kind == "f":
                yield value.dtype
        elif isinstance(value, list | tuple):
            yield from _float_dtypes(value)


def _holds_device_array(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_device_array(item) for item in value)
    return isinstance(value, DeviceArray)


class _Function:
    """A function of `xp`: NumPy's, under a device's rules."""

    def __init__(self, name: str, function: Callable[..., Any], *bound: DeviceArray) -> None:
        self.__name__ = name
        self._function = function
        self._bound = bound
        self._where = f"array.{name}" if bound else f"xp.{name}"
        self._elementwise = isinstance(function, np.ufunc) or name in _ELEMENTWISE

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        arguments = self._bound + arguments
        where = self._where
        host = [_unwrap(value, where) for value in arguments]
        host_options = {key: _unwrap(value, where) for key, value in options.items()}
        self._check(arguments)
        if host_options.get("out") is not None:
            record(lambda: self._function(*host, **host_options), [host_options["out"]])
        elif self.__name__ in ("fill", "copyto"):
            record(lambda: self._function(*host, **host_options), host[:1])
        try:
            result = self._function(*host, **host_options)
        except IndexError as error:
            if "out of bounds for axis" not in str(error) or isinstance(
                error, np.exceptions.AxisError
            ):
                raise
            raise DeviceRuleError(
                f"{where} got an index beyond the bounds ({error}); CuPy would silently wrap it "
                "around. Check indices on the host."
            ) from error
        if options.get("out") is not None:
            return options["out"]
        if isinstance(result, bool) and _holds_device_array(arguments):
            result = np.asarray(result)
        if self._elementwise and isinstance(result, np.ndarray):
            result = np.asarray(result, order="C")
        for part in result if isinstance(result, tuple) else (result,):
            if isinstance(part, np.ndarray | np.generic) and part.dtype == np.float64:
                self._expect_float64([*arguments, *options.values()])
        wrapped = _wrap(result)
        if (
            _recording is not None
            and isinstance(wrapped, DeviceArray)
            and not self.__name__.startswith("empty")
            and not _is_view(wrapped._host, host)
        ):
            target = wrapped._host
            record(lambda: np.copyto(target, self._function(*host, **host_options)), [target])
        return wrapped

    def _check(self, arguments: tuple[Any, ...]) -> None:
        """See that arrays and host values stand where CuPy wants them."""
        name, where = self.__name__, self._where
        first, others = (arguments[0] if arguments else None), arguments[1:]
        if name in _OF_HOST_VALUES and name not in ("full", "result_type", "can_cast"):
            if _holds_device_array(arguments):
                _stall(f"an array as a size in {where}")
            return
        if name in _OF_HOST_VALUES:
            return
        if name in _SIZED and _holds_device_array(others):
            _stall(f"an array as a size in {where}")
        listed = [value for value in arguments if isinstance(value, list | tuple)]
        if name in _OF_SEQUENCES:
            if isinstance(first, list | tuple) and not all(
                isinstance(v, DeviceArray) for v in first
            ):
                _listed(where, first)
        elif isinstance(self._function, np.ufunc) or name in _OF_ARRAYS:
            if listed:
                _listed(where, listed[0])
        elif isinstance(first, list | tuple) and first and not _holds_device_array(first):
            _listed(where, first)

    def _expect_float64(self, arguments: list[Any]) -> None:
        dtypes = set(_float_dtypes(arguments))
        if dtypes == {np.dtype(np.float64)} or any(map(_asks_for_float64, arguments)):
            return
        kinds = ", ".join(str(dtype) for dtype in dtypes) or "no float array"
        raise DeviceRuleError(
            f"{self._where} gave float64 from {kinds}; on a GPU that is up to 64 times slower "
            "and the drift spreads. Give dtype=, and use math.sqrt and Python numbers for scalars."
        )


def _listed(where: str, value: Any) -> NoReturn:
    raise DeviceRuleError(
        f"{where} was given a {type(value).__name__} of host values; CuPy takes only its own "
        "arrays here. Use Python's own function (math.prod, max ...) on sizes, or xpdl.asarray(a)."
    )


class DeviceModule:
    """The module handle `xp` of the strict backend: NumPy's names, a device's rules."""

    ndarray = DeviceArray

    def __init__(self, module: ModuleType, backend: StrictBackend) -> None:
        self._module = module
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if name == "random":
            raise DeviceRuleError(
                "xp.random has one hidden state a device; use backend.generator(seed).random(...)"
            )
        if name in _READING:
            _stall(f"xp.{name}")
        if name == "put":
            raise DeviceRuleError(
                "xp.put may write one place more than once, which is undefined on a GPU; "
                "write a[index] = values, which is checked."
            )
        if isinstance(value, ModuleType):
            return DeviceModule(value, self._backend)
        if isinstance(value, type) or not callable(value):
            return value
        return _Function(name, value)

    def asarray(self, a: Any, dtype: Any = None) -> DeviceArray:
        """Put a host array on the device, or convert one that is there."""
        if isinstance(a, DeviceArray):
            return a if dtype is None else a.astype(dtype, copy=False)
        host = np.array(a, dtype=dtype)
        if host.dtype == np.float64 and dtype is None and not isinstance(a, np.ndarray):
            raise DeviceRuleError("xp.asarray of Python floats gives float64; give dtype=.")
        _refuse_while_recording("an array went from the host to the device")
        self._backend.transfers.to_device += 1
        return DeviceArray(host)

    def array(self, a: Any, dtype: Any = None) -> DeviceArray:
        """Make a new array on the device."""
        made = self.asarray(a, dtype)
        return made.__copy__() if made is a else made


class _DeviceGenerator:
    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    @property
    def bit_generator(self) -> Any:
        """NumPy's, whose state says how much was drawn."""
        return self._generator.bit_generator

    def random(self, size: Shape, dtype: Any) -> Any:
        bits = self.bit_generator
        before = bits.state if _recording is not None else None
        drawn = np.asarray(self._generator.random(size, dtype=dtype))
        if _recording is not None:  # a device's generator counts on the device: each replay draws
            _recording.add(
                lambda: np.copyto(drawn, self._generator.random(size, dtype=dtype)),
                lambda: setattr(bits, "state", before),
            )
        return DeviceArray(drawn)


class StrictBackend(Backend):
    """The generic primitives on rehearsed device arrays."""

    name = "strict"
    compiles = True
    array_type = DeviceArray

    def __init__(self) -> None:
        self.transfers = Transfers()
        self.xp = DeviceModule(np, self)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        return self.xp.asarray(a if self.owns(a) else host_array(a), dtype=dtype)

    def to_numpy(self, a: Any) -> Array:
        if not self.owns(a):
            return np.array(a)
        _refuse_while_recording("an array went from the device to the host")
        self.transfers.to_host += 1
        return a._host.copy()

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        return _DeviceGenerator(super().generator(seed))  # type: ignore[arg-type]

    def synchronize(self) -> None:
        _refuse_while_recording("the host waited for the device")

    def compile_step(self, step: Step, prepare: Callable[[], object] | None = None) -> Step:
        return CapturedStep(self, step, prepare)

    def capture(self, step: Step, *arrays: Array) -> tuple[Any, Callable[[], object]]:
        begin_recording()
        try:
            result = step(*arrays)
        finally:
            recording = end_recording()
        return result, recording.replay


def _add_operators() -> None:
    """Give `DeviceArray` Python's operators: a op b, b op a, a op= b."""

    def binary(function: Any, swap: bool) -> Any:
        call = _Function(function.__name__, function)

        def method(self: DeviceArray, other: Any) -> Any:
            if not isinstance(other, DeviceArray | np.ndarray | np.generic | int | float):
                return NotImplemented
            return call(other, self) if swap else call(self, other)

        return method

    def in_place(function: Any) -> Any:
        call = _Function(function.__name__, function)

        def method(self: DeviceArray, other: Any) -> DeviceArray:
            if isinstance(other, list | tuple):
                return NotImplemented
            call(self, other, out=self, casting="same_kind")
            return self

        return method

    def unary(function: Any) -> Any:
        call = _Function(function.__name__, function)
        return lambda self: call(self)

    for name, ufunc in {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
        "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "matmul": np.matmul,
        "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
        "lshift": np.left_shift, "rshift": np.right_shift,
    }.items():  # fmt: skip
        setattr(DeviceArray, f"__{name}__", binary(ufunc, swap=False))
        setattr(DeviceArray, f"__r{name}__", binary(ufunc, swap=True))
        setattr(DeviceArray, f"__i{name}__", in_place(ufunc))
    for name, ufunc in {
        "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
        "gt": np.greater, "ge": np.greater_equal,
    }.items():  # fmt: skip
        setattr(DeviceArray, f"__{name}__", binary(ufunc, swap=False))
    for name, ufunc in {
        "neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert,
    }.items():  # fmt: skip
        setattr(DeviceArray, f"__{name}__", unary(ufunc))


_add_operators()
