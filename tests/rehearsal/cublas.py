"""cuBLAS, as far as it is called through ctypes: column by column, with NumPy's products."""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np

from rehearsal.compiler import build
from rehearsal.counting import PRODUCT, note
from rehearsal.device import is_recording, record
from rehearsal.errors import RehearsalError
from rehearsal.memory import note_use
from rehearsal.streams import get_current_stream, work_on_current_stream

# cudaDataType -> NumPy's type
_TYPES = {0: np.dtype(np.float32), 1: np.dtype(np.float64), 2: np.dtype(np.float16)}
_TF32 = 77
_KEPT_BITS = 13  # float32 has 23 bits behind the point, TF32 has 10


class _Problem(ctypes.Structure):
    """A product that cublas.cpp found to be in order."""

    _fields_ = tuple(
        [(name, ctypes.c_int64) for name in ("transa", "transb", "m", "n", "k")]
        + [(f"{matrix}_type", ctypes.c_int64) for matrix in "abc"]
        + [(f"ld{matrix}", ctypes.c_int64) for matrix in "abc"]
        + [("compute", ctypes.c_int64)]
        + [(matrix, ctypes.c_void_p) for matrix in "abc"]
        + [("alpha", ctypes.c_double), ("beta", ctypes.c_double)]
    )


def _matrix(address: int | None, dtype: np.dtype, rows: int, columns: int, lead: int) -> np.ndarray:
    """Return memory as a matrix (rows, columns), whose columns lie `lead` numbers apart."""
    if not rows or not columns:
        return np.empty((rows, columns), dtype)
    size = ((columns - 1) * lead + rows) * dtype.itemsize
    memory = (ctypes.c_char * size).from_address(address or 0)
    strides = (dtype.itemsize, lead * dtype.itemsize)
    return np.ndarray((rows, columns), dtype, memory, strides=strides)


def _operand(
    address: int | None, dtype: np.dtype, transposed: int, rows: int, columns: int, lead: int
) -> np.ndarray:
    if transposed:
        return _matrix(address, dtype, columns, rows, lead).T
    return _matrix(address, dtype, rows, columns, lead)


def round_to_tf32(x: np.ndarray) -> np.ndarray:
    """Return float32 numbers rounded to 10 bits behind the point, ties to even."""
    bits = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
    half = np.uint64((1 << (_KEPT_BITS - 1)) - 1) + ((bits >> np.uint64(_KEPT_BITS)) & np.uint64(1))
    rounded = (bits + half) & ~np.uint64((1 << _KEPT_BITS) - 1)
    return np.where(np.isfinite(x), rounded.astype(np.uint32).view(np.float32), x)


def _multiply(p: _Problem) -> None:
    """C <- alpha op(A) op(B) + beta C, rounded once; C is not read where beta is 0."""
    c = _matrix(p.c, _TYPES[p.c_type], p.m, p.n, p.ldc)
    a = _operand(p.a, _TYPES[p.a_type], p.transa, p.m, p.k, p.lda)
    b = _operand(p.b, _TYPES[p.b_type], p.transb, p.k, p.n, p.ldb)
    if p.compute == _TF32:
        a, b = round_to_tf32(a), round_to_tf32(b)
    wide = np.promote_types(a.dtype, np.float32)
    with np.errstate(all="ignore"):
        result = a.astype(wide, copy=False) @ b.astype(wide, copy=False)
        if p.alpha != 1:
            result *= wide.type(p.alpha)
        if p.beta != 0:
            result += wide.type(p.beta) * c.astype(wide, copy=False)
        c[...] = result


@ctypes.CFUNCTYPE(None, ctypes.POINTER(_Problem))
def _product(problem: Any) -> None:
    _multiply(problem.contents)


class CublasLibrary:
    """A library as ctypes loads it, whose products are captured where a stream captures."""

    def __init__(self, library: Any) -> None:
        library.rehearsal_set_product(_product)
        self._library = library
        self.cublasGemmEx = _Gemm(library)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)


class _Gemm:
    """The function cublasGemmEx, as one of ctypes."""

    def __init__(self, library: Any) -> None:
        self.__dict__["_function"] = library.cublasGemmEx
        self.__dict__["_library"] = library

    def __getattr__(self, name: str) -> Any:
        return getattr(self._function, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._function, name, value)

    def __call__(self, *arguments: Any) -> int:
        if len(arguments) != 19:
            raise RehearsalError(f"cublasGemmEx takes 19 arguments, got {len(arguments)}")
        work_on_current_stream("cublasGemmEx")
        self._check_stream(arguments[0])
        if not is_recording():
            return self._function(*arguments)
        kept, written = _kept(arguments)
        note_use([_number(arguments[place]) for place in (7, 10, 14)])
        record(lambda: self._function(*kept), written)
        note("KERNEL", PRODUCT, _size(arguments))
        return self._function(*kept)

    def _check_stream(self, handle: Any) -> None:
        stream = ctypes.c_void_p()
        if self._library.cublasGetStream_v2(_pointer(handle), ctypes.byref(stream)):
            return  # not a handle, which the call itself will say
        current = get_current_stream()
        if (stream.value or 0) != current.ptr:
            raise RehearsalError(
                f"cublasGemmEx would work on stream {stream.value or 0:#x}, while {current} is the "
                "current one; call cublasSetStream_v2 first"
            )


def _size(arguments: tuple[Any, ...]) -> int:
    """Return how many bytes the three matrices of a product are."""
    m, n, k, a, b, c = (_number(arguments[place]) for place in (3, 4, 5, 8, 11, 15))
    sizes = zip((m * k, k * n, m * n), (a, b, c), strict=True)
    return sum(count * _TYPES[kind].itemsize for count, kind in sizes)


def _kept(arguments: tuple[Any, ...]) -> tuple[list[Any], list[np.ndarray]]:
    """Return a copy of the arguments that does not change any more, and the matrix C."""
    numbers = [_number(a) for a in arguments]
    scalar = ctypes.c_double if numbers[17] == 70 else ctypes.c_float
    kept: list[Any] = list(arguments)
    for place in (6, 13):  # alpha and beta, which lie on the host
        kept[place] = ctypes.pointer(scalar.from_buffer_copy(_at(arguments[place], scalar)))
    m, n, kind, lead = numbers[3], numbers[4], numbers[15], numbers[16]
    if kind not in _TYPES or m <= 0 or n <= 0 or lead < m or not numbers[14]:
        return kept, []  # the call itself will refuse it
    return kept, [_matrix(numbers[14], _TYPES[kind], m, n, lead)]


def _number(value: Any) -> int:
    """Return the integer or address in an argument, 0 for a null pointer."""
    return int(getattr(value, "value", value) or 0) if _is_number(value) else 0


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | np.integer | ctypes._SimpleCData)


def _pointer(value: Any) -> Any:
    return ctypes.c_void_p(_number(value))


def _at(value: Any, kind: Any) -> Any:
    """Return the ctypes number that a pointer, a byref or an address leads to."""
    if _is_number(value):
        return kind.from_address(_number(value))
    target = getattr(value, "_obj", None)  # of ctypes.byref
    return target if target is not None else ctypes.cast(value, ctypes.POINTER(kind)).contents


@functools.cache
def cublas_library() -> CublasLibrary:
    """Return the library; a real one is ``ctypes.CDLL("libcublas.so.13")``."""
    source = Path(__file__).with_name("cublas.cpp").read_text()
    library = build(source)
    library.cublasGetStream_v2.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    return CublasLibrary(library)
