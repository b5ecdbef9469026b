"""Matrix products by cuBLAS, called directly.

CuPy's own calls refuse while a step is captured, and give half precision back for half precision;
these do neither: they can be replayed, and sums of products of halves can stay in float32.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.errors import BackendError, BackendUnavailableError

# Of cuBLAS's and CUDA's headers: cudaDataType, cublasComputeType_t, cublasOperation_t.
_TYPES = {"float32": 0, "float64": 1, "float16": 2}
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_32F_FAST_TF32 = 68, 70, 77
_AS_IT_LIES, _TRANSPOSED = 0, 1
_DEFAULT_ALGORITHM = -1
_DISALLOW_REDUCED_PRECISION_REDUCTION = 16

# What NVIDIA advises for Hopper. With memory of its own, cuBLAS allocates none while a step is
# captured, and gives the same bits in every run.
WORKSPACE_BYTES = 32 * 1024 * 1024


def load_cublas(cupy: Any) -> Any:
    """Return cuBLAS, of the CUDA version that CuPy uses, as a library of `ctypes`.

    Raises
    ------
    BackendUnavailableError
        If it is not found.
    """
    version = cupy.cuda.runtime.runtimeGetVersion() // 1000
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        path = load_nvidia_dynamic_lib("cublas").abs_path
        if path is None:
            raise FileNotFoundError("cublas")
        return ctypes.CDLL(path)
    except Exception:  # not installed by pip, or not where it is looked for: the system may know
        try:
            return ctypes.CDLL(f"libcublas.so.{version}")
        except OSError as error:
            raise BackendUnavailableError(
                f"cuBLAS of CUDA {version} does not load ({error}); install CuPy with its "
                "libraries: pip install 'xpdl[cuda13]' (or 'xpdl[cuda12]')."
            ) from error


class Products:
    """Matrix products on the current stream of one device.

    One workspace serves all, so products of two streams must not run at the same time.

    Parameters
    ----------
    cupy : module
    library : ctypes library
        cuBLAS.
    tf32 : bool
        Whether products of float32 may round their factors to 10 bits, which is several times as
        fast on an Ampere GPU or later.
    """

    def __init__(self, cupy: Any, library: Any, tf32: bool = False) -> None:
        self._cupy = cupy
        self._library = library
        self.tf32 = tf32
        self._compute = {
            "float16": _COMPUTE_32F,
            "float32": _COMPUTE_32F_FAST_TF32 if tf32 else _COMPUTE_32F,
            "float64": _COMPUTE_64F,
        }
        self._lock = threading.Lock()
        self._stream: int | None = None
        library.cublasGemmEx.argtypes = (
            *(ctypes.c_void_p, *[ctypes.c_int] * 5, ctypes.c_void_p),
            *(ctypes.c_void_p, ctypes.c_int, ctypes.c_int) * 2,
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int),
            *(ctypes.c_int, ctypes.c_int),
        )
        self._handle = ctypes.c_void_p()
        _check("cublasCreate", library.cublasCreate_v2(ctypes.byref(self._handle)))
        # Or parts of a product of halves might be added in half precision.
        _check(
            "cublasSetMathMode",
            library.cublasSetMathMode(self._handle, _DISALLOW_REDUCED_PRECISION_REDUCTION),
        )
        self._workspace = cupy.empty(WORKSPACE_BYTES, np.uint8)

    def multiply(self, a: Array, b: Array, out: Array, accumulate: bool = False) -> None:
        """Write a b, (m, k) times (k, n), into `out` (m, n); or, with `accumulate`, add it.

        a and b are of one type. `out` is in C order, of that type or, for halves, of float32.
        """
        (m, k), n = a.shape, b.shape[1]
        if not m * n:
            return
        if not k:
            if not accumulate:
                out[...] = 0
            return
        # cuBLAS counts rows where we count columns: it computes out^T = b^T a^T.
        (a, a_op, a_line), (b, b_op, b_line) = self._laid_out(a), self._laid_out(b)
        kind = ctypes.c_double if a.dtype == np.float64 else ctypes.c_float
        one, before = kind(1.0), kind(1.0 if accumulate else 0.0)
        source, target = _TYPES[a.dtype.name], _TYPES[out.dtype.name]
        with self._lock:
            self._follow_stream()
            status = self._library.cublasGemmEx(
                *(self._handle, b_op, a_op, n, m, k, ctypes.byref(one)),
                *(_address(b), source, b_line, _address(a), source, a_line),
                *(ctypes.byref(before), _address(out), target, n),
                *(self._compute[a.dtype.name], _DEFAULT_ALGORITHM),
            )
        _check(f"cublasGemmEx of ({m}, {k}) and ({k}, {n}) in {a.dtype}", status)

    def _follow_stream(self) -> None:
        """Use the current stream, and our workspace there: a change of stream forgets it."""
        stream = self._cupy.cuda.get_current_stream().ptr
        if stream != self._stream:
            library, pointer = self._library, ctypes.c_void_p
            _check("cublasSetStream", library.cublasSetStream_v2(self._handle, pointer(stream)))
            workspace = pointer(_address(self._workspace)), ctypes.c_size_t(WORKSPACE_BYTES)
            _check("cublasSetWorkspace", library.cublasSetWorkspace_v2(self._handle, *workspace))
            self._stream = stream

    def _laid_out(self, a: Array) -> tuple[Array, int, int]:
        """Return a matrix, whether cuBLAS must turn it, and the length of its lines."""
        rows, columns = a.shape
        down, right = (stride // a.itemsize for stride in a.strides)
        if (right == 1 or columns == 1) and (down >= columns or rows == 1):
            return a, _AS_IT_LIES, max(down, columns) if rows > 1 else columns
        if (down == 1 or rows == 1) and (right >= rows or columns == 1):
            return a, _TRANSPOSED, max(right, rows) if columns > 1 else rows
        return self._cupy.ascontiguousarray(a), _AS_IT_LIES, columns


def _address(a: Any) -> int:
    address: int = a.data.ptr
    return address


def _check(call: str, status: int) -> None:
    if status:
        raise BackendError(
            f"{call} failed with cuBLAS's status {status}; "
            "if memory is short, a smaller batch helps."
        )
