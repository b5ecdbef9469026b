"""What a GPU under CuPy refuses and the strict backend does not, laid over its copied module."""

from __future__ import annotations

from typing import Any

import numpy as np

from rehearsal import device
from rehearsal.streams import (
    get_current_stream,
    refuse_cublas_while_capturing,
    refuse_while_capturing,
    work_on_current_stream,
)

# What CuPy gives to cuBLAS and cuSOLVER.
_PRODUCTS = {"dot", "einsum", "inner", "matmul", "tensordot", "vdot"}
# What gives the device nothing to do.
_IDLE = {
    "broadcast_shapes", "broadcast_to", "can_cast", "diagonal", "empty", "empty_like",
    "expand_dims", "finfo", "iinfo", "isscalar", "issubdtype", "may_share_memory", "ndim",
    "promote_types", "result_type", "shape", "shares_memory", "size", "squeeze", "swapaxes",
    "transpose", "view", "as_strided", "moveaxis",
}  # fmt: skip


def _watch_functions() -> None:
    call = device.Function.__call__

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        if self.__name__ in _PRODUCTS:
            refuse_cublas_while_capturing()
        if self.__name__ not in _IDLE:
            work_on_current_stream(self._where)
        return call(self, *arguments, **options)

    device.Function.__call__ = watched


def _watch_writing() -> None:
    write = device.DeviceArray.__setitem__

    def watched(self: Any, key: Any, value: Any) -> None:
        work_on_current_stream("a[...] = value")
        write(self, key, value)

    device.DeviceArray.__setitem__ = watched


def asnumpy(
    a: Any, stream: Any = None, order: str = "C", out: Any = None, *, blocking: bool = True
) -> np.ndarray:
    """Return a host copy, in C order unless another is asked for; the host waits for it."""
    if not isinstance(a, device.DeviceArray):
        return np.asarray(a, order=order)
    refuse_while_capturing()
    stream = stream or get_current_stream()
    work_on_current_stream("a copy to the host")
    stream.synchronize()
    if out is None:
        return np.array(a._host, order=order)
    out[...] = a._host
    return out


def _refuse(what: str) -> None:
    refuse_while_capturing()
    work_on_current_stream(what)


_watch_functions()
_watch_writing()
device.recordings.refuse_while_recording = _refuse
device.DeviceArray.get = asnumpy
