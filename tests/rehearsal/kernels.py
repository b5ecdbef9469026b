"""`RawModule` and its kernels, as CuPy has them, compiled for the CPU.

CuPy checks next to nothing of what it hands to a kernel: a Python number goes as 64 bits, an array
of any type as its address. Here every argument must be what the kernel's source says.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from rehearsal.compiler import build, kernels_of, macros_of
from rehearsal.counting import note
from rehearsal.device import DeviceArray, is_recording, record
from rehearsal.errors import LaunchError, RehearsalError
from rehearsal.memory import note_use, owner_of
from rehearsal.streams import work_on_current_stream

ORDERS = ("forward", "backward", "shuffled")

order = os.environ.get("XPDL_REHEARSAL_ORDER", "forward")
"""In which order blocks, and threads between barriers, run: one of `ORDERS`.

Results of a correct kernel are the same, bit for bit. A test sets it as an attribute of this
module; the variable XPDL_REHEARSAL_ORDER sets it for a whole run.
"""

seed = 0
"""Which order "shuffled" is."""

launches: list[tuple[str, tuple[int, ...], tuple[int, ...]]] | None = None
"""Where a test set a list: the name, grid and block of each kernel launched since."""

_SCALARS = {
    "b1": (np.bool_, "?7x"),
    "i1": (np.int8, "b7x"),
    "u1": (np.uint8, "B7x"),
    "i2": (np.int16, "h6x"),
    "u2": (np.uint16, "H6x"),
    "i4": (np.int32, "i4x"),
    "u4": (np.uint32, "I4x"),
    "i8": (np.int64, "q"),
    "u8": (np.uint64, "Q"),
    "f2": (np.float16, "e6x"),
    "f4": (np.float32, "f4x"),
    "f8": (np.float64, "d"),
}
_DTYPES = {code: np.dtype(kind) for code, (kind, _) in _SCALARS.items()}
_HEADER = "<3I3IiI"

_Value = int | float | bool


class Parameter:
    """One parameter of a kernel: a number, or a pointer to what is read or written."""

    def __init__(self, code: str) -> None:
        match = re.fullmatch(r"(\*?)(c?)(V|[biuf]\d)", code)
        assert match, code
        self.pointer, self.constant = bool(match[1]), bool(match[2])
        self.dtype = _DTYPES.get(match[3])  # none for void
        self.scalar, self.format = _SCALARS.get(match[3], (None, "Q"))
        if self.pointer:
            self.format = "Q"

    def __str__(self) -> str:
        if not self.pointer:
            return str(self.dtype)
        return f"{'const ' if self.constant else ''}{self.dtype or 'void'}*"

    def packed(self, value: Any) -> _Value:
        """Return what goes to the kernel: the number itself, or the address of an array."""
        if not self.pointer:
            if type(value) is not self.scalar:
                raise LaunchError(f"is a {self}, got {_described(value)}")
            return value
        if isinstance(value, DeviceArray):
            host = value._host
            if self.dtype is not None and host.dtype != self.dtype:
                raise LaunchError(f"is a {self}, got {_described(value)}")
            # CuPy gives an array without elements no memory.
            return host.__array_interface__["data"][0] if host.size else 0
        if isinstance(value, np.uint64 | np.intp) and value == 0:
            return 0
        raise LaunchError(
            f"is a {self}, got {_described(value)}; give an array of the device, or "
            "np.uint64(0) for none"
        )


def _described(value: Any) -> str:
    if isinstance(value, DeviceArray):
        return f"a device array of {value.dtype}"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of {value.dtype}, whose memory a GPU cannot reach"
    if isinstance(value, np.generic):
        return f"a NumPy {value.dtype}"
    if isinstance(value, bool | int | float):
        return f"the Python {type(value).__name__} {value!r}, which CuPy would pass in its own size"
    return f"a {type(value).__name__}"


class Kernel:
    """A kernel that is launched as ``kernel(grid, block, arguments)``."""

    def __init__(self, name: str, function: Any, signature: str, message: Any) -> None:
        self.name = name
        self.parameters = [Parameter(code) for code in signature.split()]
        self._function = function
        self._message = message
        self._pack = struct.Struct(_HEADER + "".join(p.format for p in self.parameters)).pack

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.parameters))})"

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], **options: Any
    ) -> None:
        if options.pop("shared_mem", 0) or options:
            raise LaunchError(f"{self.name}: dynamic shared memory is not rehearsed")
        shape = _sizes(self.name, "grid", grid) + _sizes(self.name, "block", block)
        _check_shape(self.name, shape)
        if order not in ORDERS:
            raise RehearsalError(f"there is no order {order!r}, only {', '.join(ORDERS)}")
        packed = self._pack(*shape, ORDERS.index(order), seed, *self._packed(args))
        work_on_current_stream(f"kernel {self.name}")
        if launches is not None:
            launches.append((self.name, tuple(grid), tuple(block)))
        arrays = [a._host for a in args if isinstance(a, DeviceArray)]

        def launch() -> None:
            if self._function(packed):
                raise LaunchError(f"kernel {self.name}: {self._message().decode()}")
            assert arrays is not None  # a launch that is kept for later keeps their memory

        if is_recording():
            note_use([a.__array_interface__["data"][0] for a in arrays if a.size])
            record(launch, self._written(args))
            note("KERNEL", self.name, sum(a.nbytes for a in arrays))
        launch()

    def _packed(self, args: Sequence[Any]) -> list[_Value]:
        if len(args) != len(self.parameters):
            raise LaunchError(f"{self!r} takes {len(self.parameters)} arguments, got {len(args)}")
        values: list[_Value] = []
        for parameter, value in zip(self.parameters, args, strict=True):
            try:
                values.append(parameter.packed(value))
            except LaunchError as error:
                where = f"argument {len(values)} of {self.name}"
                raise LaunchError(f"{where} {error}") from None
        return values

    def _written(self, args: Sequence[Any]) -> list[np.ndarray]:
        return [
            owner_of(value._host)
            for parameter, value in zip(self.parameters, args, strict=True)
            if parameter.pointer and not parameter.constant and isinstance(value, DeviceArray)
        ]


def _sizes(name: str, what: str, sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not isinstance(sizes, tuple) or not 1 <= len(sizes) <= 3:
        raise LaunchError(f"{name}: the {what} is a tuple of one to three numbers, got {sizes!r}")
    if any(isinstance(size, bool) or not isinstance(size, int | np.integer) for size in sizes):
        raise LaunchError(f"{name}: the {what} is made of integers, got {sizes!r}")
    return (*sizes, 1, 1)[:3]


def _check_shape(name: str, shape: tuple[int, ...]) -> None:
    gx, gy, gz, bx, by, bz = shape
    if min(shape) < 1:
        raise LaunchError(
            f"{name}: a grid of {shape[:3]} blocks of {shape[3:]} threads has a side without any; "
            "CuPy would silently make it 1. Launch nothing instead."
        )
    if gx >= 2**31 or gy > 65535 or gz > 65535:
        raise LaunchError(
            f"{name}: a grid has at most 2147483647 blocks along x and 65535 along y and z, got "
            f"{shape[:3]}; CUDA says cudaErrorInvalidConfiguration"
        )
    if bz > 64 or bx * by * bz > 1024:
        raise LaunchError(
            f"{name}: a block has at most 1024 threads, and 64 along z, got {shape[3:]}; "
            "CUDA says cudaErrorInvalidConfiguration"
        )


class RawModule:
    """Kernels of one CUDA source. It is compiled when the first of them is asked for.

    Parameters
    ----------
    code : str
        The source; its kernels are ``extern "C" __global__``.
    options : tuple of str
        What the compiler is told, of which definitions matter here.
    """

    def __init__(self, code: str, *, options: tuple[str, ...] = (), backend: str = "nvrtc") -> None:
        if not isinstance(options, tuple):
            raise TypeError(
                f"Argument 'options' has incorrect type (expected tuple, got {options})"
            )
        if backend != "nvrtc":
            raise RehearsalError(f"the rehearsal stands for nvrtc, not for {backend!r}")
        self.code, self.options = code, options
        self._macros = macros_of(options)
        self._kernels: dict[str, Kernel] | None = None

    def compile(self, log_stream: Any = None) -> None:
        """Compile the source, unless that is done."""
        if self._kernels is None:
            self._kernels = _compiled(self.code, self._macros)

    def get_function(self, name: str) -> Kernel:
        """Return a kernel by its name."""
        self.compile()
        assert self._kernels is not None
        if name not in self._kernels:
            raise LaunchError(
                f"there is no kernel {name!r}, only {', '.join(sorted(self._kernels))}; CUDA says "
                "CUDA_ERROR_NOT_FOUND"
            )
        return self._kernels[name]


def _compiled(code: str, macros: tuple[str, ...]) -> dict[str, Kernel]:
    kernels = kernels_of(code, macros)
    wrappers = [
        f"REHEARSAL_KERNEL({name}, {'true' if waits else 'false'})"
        for name, waits in kernels.items()
    ]
    unit = "\n".join(['#line 1 "kernels.cu"', code, *wrappers, ""])
    library = build(unit, macros, include=["cuda_on_cpu.h"])
    return {name: _kernel(library, name) for name in kernels}


def _kernel(library: ctypes.PyDLL, name: str) -> Kernel:
    message, describe, launch = (
        getattr(library, f"rehearsal_{what}")
        for what in ("message", f"signature_{name}", f"launch_{name}")
    )
    message.restype = describe.restype = ctypes.c_char_p
    launch.argtypes = [ctypes.c_char_p]
    return Kernel(name, launch, describe().decode(), message)
