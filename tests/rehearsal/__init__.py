"""A GPU rehearsed on the CPU: the CUDA kernels and the code of the backend `cupy`, unchanged.

`make_cupy` returns a module that stands for CuPy. Its arrays follow the rules of the strict
backend; its `RawModule` compiles CUDA source with g++ and runs each thread of each block; its
streams capture graphs; `cublas_library` stands for cuBLAS. What a GPU would refuse, or run into
undefined behaviour with, raises `RehearsalError`.

What it cannot show: what a kernel costs, how the GPU's compiler rounds and fuses, and two blocks
or two streams that really run at the same time.
"""

from rehearsal.compiler import why_not
from rehearsal.cublas import cublas_library
from rehearsal.cupy_module import make_cupy
from rehearsal.device import DeviceArray
from rehearsal.errors import CompileError, LaunchError, OutOfMemoryError, RehearsalError
from rehearsal.kernels import Kernel, RawModule

__all__ = [
    "CompileError",
    "DeviceArray",
    "Kernel",
    "LaunchError",
    "OutOfMemoryError",
    "RawModule",
    "RehearsalError",
    "cublas_library",
    "make_cupy",
    "why_not",
]
