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
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from xpdl.backends.base import Array, Backend, RandomGenerator, host_array
from xpdl.errors import BackendMismatchError, DeviceRuleError

# Functions whose first argument may be a shape, a list or a type: they make arrays or ask of types.
_TAKES_HOST_VALUES = {
    "arange", "array", "asarray", "broadcast_shapes", "can_cast", "empty", "eye", "finfo", "full",
    "identity", "iinfo", "isscalar", "issubdtype", "linspace", "ones", "promote_types",
    "result_type", "tri", "zeros",
}  # fmt: skip
# Functions of CuPy that run one element-wise kernel but are no ufuncs in NumPy.
_ELEMENTWISE = {"where", "clip", "nan_to_num", "round", "around", "real", "imag"}
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
        if name in ("item", "tolist", "tobytes", "data"):
            _stall(f"array.{name}")
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
        for a in inputs:
            if isinstance(a, np.ndarray):
                _mixed(f"numpy.{ufunc.__name__}")
        # A NumPy number on the left of an operator comes this way, and is as good as a constant.
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
        return DeviceArray(self._host.copy())

    def __deepcopy__(self, memo: Any) -> DeviceArray:
        return DeviceArray(self._host.copy())

    __hash__ = None  # type: ignore[assignment]

    # Indexing.

    def __getitem__(self, key: Any) -> DeviceArray:
        return _index(lambda: DeviceArray(np.asarray(self._host[_host_key(key)])), key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            _mixed("a[...] = value")
        host_key = _host_key(key)
        if _holds_index_array(host_key):
            places = np.arange(self.size).reshape(self.shape)
            touched = _index(lambda: places[host_key].ravel(), key)
            if len(np.unique(touched)) < len(touched):
                raise DeviceRuleError(
                    "an index array writes one place more than once; which value stays is "
                    "undefined on a GPU. Sum duplicates first, or index without them."
                )
        _index(lambda: self._host.__setitem__(host_key, _unwrap(value, "a[...] = value")), key)


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
        return type(value)(_unwrap(item, where) for item in value)
    return value


def _wrap(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    if isinstance(value, list | tuple):
        return type(value)(_wrap(item) for item in value)
    return value


def _host_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_unwrap(part, "a[index]") for part in key)
    return _unwrap(key, "a[index]")


def _holds_index_array(host_key: Any) -> bool:
    parts = host_key if isinstance(host_key, tuple) else (host_key,)
    return any(isinstance(part, np.ndarray | list) for part in parts)


def _index(access: Callable[[], Any], key: Any) -> Any:
    try:
        return access()
    except IndexError as error:
        if not _holds_index_array(_host_key(key)):
            raise
        raise DeviceRuleError(
            f"an index array points beyond the bounds ({error}); CuPy would silently wrap it "
            "around and read or write another element. Check indices on the host."
        ) from error


def _asks_for_float64(value: Any) -> bool:
    """Tell whether `value` is a name of float64, given as an argument."""
    return value is float or (
        isinstance(value, type | str | np.dtype)
        and not isinstance(value, type(None))
        and value in (np.float64, "float64", np.dtype(np.float64))
    )


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
        name, where, function = self.__name__, self._where, self._function
        first = arguments[0] if arguments else None
        on_host = isinstance(first, list | tuple) and first and not _holds_device_array(first)
        if on_host and name not in _TAKES_HOST_VALUES:
            raise DeviceRuleError(
                f"{where} was given a {type(first).__name__}; CuPy takes only its own "
                "arrays here. Use Python's own function (math.prod, max ...) on sizes."
            )
        host = [_unwrap(value, where) for value in arguments]
        host_options = {key: _unwrap(value, where) for key, value in options.items()}
        try:
            result = function(*host, **host_options)
        except IndexError as error:
            raise DeviceRuleError(
                f"{where} got an index beyond the bounds ({error}); CuPy would silently wrap it "
                "around. Check indices on the host."
            ) from error
        if options.get("out") is not None:
            return options["out"]
        if self._elementwise and isinstance(result, np.ndarray):
            result = np.asarray(result, order="C")
        if isinstance(result, np.ndarray | np.generic) and result.dtype == np.float64:
            self._expect_float64([*arguments, *options.values()])
        return _wrap(result)

    def _expect_float64(self, arguments: list[Any]) -> None:
        dtypes = set(_float_dtypes(arguments))
        if dtypes == {np.dtype(np.float64)} or any(map(_asks_for_float64, arguments)):
            return
        kinds = ", ".join(str(dtype) for dtype in dtypes) or "no float array"
        raise DeviceRuleError(
            f"{self._where} gave float64 from {kinds}; on a GPU that is up to 64 times slower "
            "and the drift spreads. Give dtype=, and use math.sqrt and Python numbers for scalars."
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
        if isinstance(value, ModuleType):
            return DeviceModule(value, self._backend)
        if isinstance(value, type) or not callable(value):
            return value
        return _Function(name, value)

    def asarray(self, a: Any, dtype: Any = None) -> DeviceArray:
        """Put a host array on the device, or convert one that is there."""
        if isinstance(a, DeviceArray):
            return a if dtype is None else DeviceArray(a._host.astype(dtype, copy=False))
        self._backend.transfers.to_device += 1
        return DeviceArray(np.array(a, dtype=dtype))

    array = asarray


class _DeviceGenerator:
    def __init__(self, seed: int | Sequence[int]) -> None:
        self._generator = np.random.default_rng(seed)

    def random(self, size: tuple[int, ...], dtype: Any) -> Any:
        return DeviceArray(np.asarray(self._generator.random(size, dtype=dtype)))


class StrictBackend(Backend):
    """The generic primitives on rehearsed device arrays."""

    name = "strict"
    array_type = DeviceArray

    def __init__(self) -> None:
        self.transfers = Transfers()
        self.xp = DeviceModule(np, self)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        return self.xp.asarray(a if self.owns(a) else host_array(a), dtype=dtype)

    def to_numpy(self, a: Any) -> Array:
        if not self.owns(a):
            return np.array(a)
        self.transfers.to_host += 1
        return a._host.copy()

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        return _DeviceGenerator(seed)


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
            call(self, other, out=self, casting="same_kind")
            return self

        return method

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
    for name in ("neg", "pos", "abs", "invert"):
        function = _Function(name, getattr(operator, f"__{name}__"))
        setattr(DeviceArray, f"__{name}__", lambda self, f=function: f(self))


_add_operators()
