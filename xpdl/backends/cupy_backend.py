"""CuPy on a CUDA GPU."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpdl.backends.base import Array, Backend, RandomGenerator
from xpdl.errors import BackendUnavailableError

_INSTALL = "pip install 'xpdl[cuda13]' (or 'xpdl[cuda12]' for a driver older than release 580)"


class CupyBackend(Backend):
    """The generic primitives on `cupy`; made only when asked for, since it imports CuPy.

    Raises
    ------
    BackendUnavailableError
        If CuPy is not installed, does not load, or finds no device.
    """

    name = "cupy"

    def __init__(self) -> None:
        self.xp = _import_cupy()
        self.array_type = self.xp.ndarray

    def to_numpy(self, a: Any) -> Array:
        return self.xp.asnumpy(a)

    def has_room_for(self, size: int) -> bool:
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return size <= free // 2

    def synchronize(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        # Condensed to one number here, so that nothing depends on what CuPy takes for a seed.
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        return self.xp.random.default_rng(int(state[0]))

    def matmul(self, a: Array, b: Array) -> Array:
        # cuBLAS sums half-precision products in float32 by itself.
        return self.xp.matmul(a, b)

    def describe(self) -> dict[str, str]:
        runtime = self.xp.cuda.runtime
        properties = runtime.getDeviceProperties(self.xp.cuda.Device().id)
        free, total = runtime.memGetInfo()
        return {
            "CuPy": self.xp.__version__,
            "CUDA": str(runtime.runtimeGetVersion()),
            "device": properties["name"].decode(),
            "device memory": f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB",
        }


def _import_cupy() -> Any:
    try:
        cupy = importlib.import_module("cupy")
        version, _ = cupy.__version__, cupy.ndarray  # an empty folder named cupy has neither
    except ModuleNotFoundError as error:
        if error.name != "cupy":
            raise BackendUnavailableError(
                f"CuPy is installed but broken: {_line(error)}."
            ) from error
        raise BackendUnavailableError(f"CuPy is not installed; get it with {_INSTALL}.") from error
    except Exception as error:
        raise BackendUnavailableError(
            f"CuPy is installed but does not load ({_line(error)}); reinstall it with {_INSTALL}."
        ) from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        raise BackendUnavailableError(
            f"CuPy {version} is installed but finds no CUDA GPU ({_line(error)}); on a machine "
            f"with one, install NVIDIA's driver and {_INSTALL}."
        ) from error
    if count == 0:
        raise BackendUnavailableError(
            f"CuPy {version} is installed but finds no CUDA GPU; "
            "see that CUDA_VISIBLE_DEVICES is not empty."
        )
    try:
        ones = cupy.ones((2, 2), dtype="float32")
        (ones @ ones + 1).sum()  # a compiled kernel and a library's product
        cupy.cuda.get_current_stream().synchronize()
    except Exception as error:
        raise BackendUnavailableError(
            f"CuPy {version} finds a GPU but cannot compute on it ({_line(error)}); CUDA's "
            f"libraries may be missing: {_INSTALL}."
        ) from error
    return cupy


def _line(error: BaseException) -> str:
    """Return an error's name and text in one line; CuPy puts a banner around some of its own."""
    words = [word for word in str(error).split() if set(word) != {"="}]
    return " ".join([f"{type(error).__name__}:", *words])
