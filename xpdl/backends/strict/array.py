"""An array that can be used only through `xp` and its own operators, as CuPy's can."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.backends.strict import recording
from xpdl.backends.strict.refusals import refuse_mixing, refuse_numpy_function, refuse_reading
from xpdl.errors import BackendMismatchError, DeviceRuleError

_ATTRIBUTES = {"dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides"}


class DeviceArray:
    """An array that lives on the rehearsed device; `functions` adds methods and operators."""

    __slots__ = ("_host",)
    __xpdl_device__ = "strict"

    def __init__(self, host: Array) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        if name in _ATTRIBUTES:
            return getattr(self._host, name)
        if name in ("item", "tolist", "tobytes"):
            refuse_reading(f"array.{name}")
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

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        refuse_numpy_function(function.__name__)

    # Reading a number makes the host wait for the device.

    def __float__(self) -> float:
        refuse_reading("float(a)")

    def __int__(self) -> int:
        refuse_reading("int(a)")

    def __index__(self) -> int:
        refuse_reading("an array used as an index, a size or a range")

    def __bool__(self) -> bool:
        refuse_reading("if a:, bool(a)")

    def __complex__(self) -> complex:
        refuse_reading("complex(a)")

    def __format__(self, spec: str) -> str:
        if spec:
            refuse_reading("formatting an array's value")
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
            recording.record(lambda: np.copyto(found, self._host[host_key]), [found])
        return DeviceArray(found)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            refuse_mixing("a[...] = value")
        host_key = _host_key(key)
        if _holds_index_array(host_key):
            places = np.arange(self.size).reshape(self.shape)
            touched = _index(lambda: places[host_key].ravel(), host_key)
            if len(np.unique(touched)) < len(touched):
                raise DeviceRuleError(
                    "an index array writes one place more than once; which value stays is "
                    "undefined on a GPU. Sum duplicates first, or index without them."
                )
        host_value = unwrap(value, "a[...] = value")

        def write() -> None:
            _index(lambda: self._host.__setitem__(host_key, host_value), host_key)

        recording.record(write, [self._host])
        write()


def unwrap(value: Any, where: str) -> Any:
    """Return `value` with every device array in it replaced by the host array below."""
    if isinstance(value, DeviceArray):
        return value._host
    if isinstance(value, np.ndarray):
        refuse_mixing(where)
    if isinstance(value, list | tuple):
        return _remade(value, [unwrap(item, where) for item in value])
    return value


def wrap(value: Any) -> Any:
    """Return `value` with every host array and number in it put into a device array."""
    if isinstance(value, np.ndarray | np.generic):
        return DeviceArray(np.asarray(value))
    if isinstance(value, list | tuple):
        return _remade(value, [wrap(item) for item in value])
    return value


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
    host = tuple(unwrap(part, "a[index]") for part in parts)
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
