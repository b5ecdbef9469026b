"""The functions of `xp`, and what becomes of them: the methods and operators of an array."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.backends.strict import recording
from xpdl.backends.strict.array import DeviceArray, unwrap, wrap
from xpdl.backends.strict.refusals import (
    refuse_list,
    refuse_mixing,
    refuse_numpy_function,
    refuse_reading,
)
from xpdl.errors import DeviceRuleError

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
# Functions that are methods of an array, too.
_METHODS = {
    "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy", "cumprod", "cumsum",
    "diagonal", "dot", "fill", "flatten", "max", "mean", "min", "nonzero", "prod", "ravel",
    "repeat", "reshape", "round", "sort", "squeeze", "std", "sum", "swapaxes", "take", "trace",
    "transpose", "var", "view",
}  # fmt: skip


class Function:
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
        host = [unwrap(value, where) for value in arguments]
        host_options = {key: unwrap(value, where) for key, value in options.items()}
        self._check(arguments)
        if host_options.get("out") is not None:
            recording.record(lambda: self._function(*host, **host_options), [host_options["out"]])
        elif self.__name__ in ("fill", "copyto"):
            recording.record(lambda: self._function(*host, **host_options), host[:1])
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
        wrapped = wrap(result)
        if (
            recording.current() is not None
            and isinstance(wrapped, DeviceArray)
            and not self.__name__.startswith("empty")
            and not _is_view(wrapped._host, host)
        ):
            target = wrapped._host
            recording.record(
                lambda: np.copyto(target, self._function(*host, **host_options)), [target]
            )
        return wrapped

    def _check(self, arguments: tuple[Any, ...]) -> None:
        """See that arrays and host values stand where CuPy wants them."""
        name, where = self.__name__, self._where
        first, others = (arguments[0] if arguments else None), arguments[1:]
        if name in _OF_HOST_VALUES and name not in ("full", "result_type", "can_cast"):
            if _holds_device_array(arguments):
                refuse_reading(f"an array as a size in {where}")
            return
        if name in _OF_HOST_VALUES:
            return
        if name in _SIZED and _holds_device_array(others):
            refuse_reading(f"an array as a size in {where}")
        listed = [value for value in arguments if isinstance(value, list | tuple)]
        if name in _OF_SEQUENCES:
            if isinstance(first, list | tuple) and not all(
                isinstance(v, DeviceArray) for v in first
            ):
                refuse_list(where, first)
        elif isinstance(self._function, np.ufunc) or name in _OF_ARRAYS:
            if listed:
                refuse_list(where, listed[0])
        elif isinstance(first, list | tuple) and first and not _holds_device_array(first):
            refuse_list(where, first)

    def _expect_float64(self, arguments: list[Any]) -> None:
        dtypes = set(_float_dtypes(arguments))
        if dtypes == {np.dtype(np.float64)} or any(map(_asks_for_float64, arguments)):
            return
        kinds = ", ".join(str(dtype) for dtype in dtypes) or "no float array"
        raise DeviceRuleError(
            f"{self._where} gave float64 from {kinds}; on a GPU that is up to 64 times slower "
            "and the drift spreads. Give dtype=, and use math.sqrt and Python numbers for scalars."
        )


def _is_view(result: Array, arguments: list[Any]) -> bool:
    """Tell whether `result` looks at an argument's memory: then there is nothing to redo."""
    return any(isinstance(a, np.ndarray) and np.may_share_memory(result, a) for a in arguments)


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


def _array_ufunc(self: DeviceArray, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    # A NumPy number on the left of an operator comes this way, sometimes as an array without
    # axes, and is as good as a constant.
    inputs = tuple(a[()] if isinstance(a, np.ndarray) and not a.ndim else a for a in inputs)
    if any(isinstance(a, np.ndarray) for a in inputs):
        refuse_mixing(f"numpy.{ufunc.__name__}")
    if method == "__call__" and any(isinstance(a, np.generic) for a in inputs):
        return Function(ufunc.__name__, ufunc)(*inputs, **options)
    return refuse_numpy_function(ufunc.__name__)


def _add_methods() -> None:
    """Give `DeviceArray` the methods of NumPy's array, and its answer to a ufunc of NumPy."""

    def method(name: str) -> property:
        function = getattr(np.ndarray, name)
        return property(lambda self: Function(name, function, self))

    for name in _METHODS:
        setattr(DeviceArray, name, method(name))
    DeviceArray.__array_ufunc__ = _array_ufunc  # type: ignore[attr-defined]


def _add_operators() -> None:
    """Give `DeviceArray` Python's operators: a op b, b op a, a op= b."""

    def binary(function: Any, swap: bool) -> Any:
        call = Function(function.__name__, function)

        def method(self: DeviceArray, other: Any) -> Any:
            if not isinstance(other, DeviceArray | np.ndarray | np.generic | int | float):
                return NotImplemented
            return call(other, self) if swap else call(self, other)

        return method

    def in_place(function: Any) -> Any:
        call = Function(function.__name__, function)

        def method(self: DeviceArray, other: Any) -> DeviceArray:
            if isinstance(other, list | tuple):
                return NotImplemented
            call(self, other, out=self, casting="same_kind")
            return self

        return method

    def unary(function: Any) -> Any:
        call = Function(function.__name__, function)
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


_add_methods()
_add_operators()
