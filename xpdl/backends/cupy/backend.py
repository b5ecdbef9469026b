"""CuPy on a CUDA GPU: arrays, memory, capture. Its kernels are in `fused`."""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xpdl.backends.base import Backend
from xpdl.backends.base.types import Array, Step
from xpdl.backends.cupy.capture import CapturedStep
from xpdl.backends.generators import RandomGenerator
from xpdl.errors import BackendError, BackendUnavailableError, CaptureError

_INSTALL = "pip install 'xpdl[cuda13]' (or 'xpdl[cuda12]' for a driver older than release 580)"


class CupyBackend(Backend):
    """The generic primitives on `cupy`; made only when asked for, since it imports CuPy.

    Raises
    ------
    BackendUnavailableError
        If CuPy is not installed, does not load, or finds no device.
    """

    name = "cupy"
    provider = "cupy"

    def __init__(self) -> None:
        self.xp = _import_cupy()
        self.array_type = self.xp.ndarray

    def to_numpy(self, a: Any) -> Array:
        return self.xp.asnumpy(a)

    def free_memory(self) -> int:
        pool = self.xp.get_default_memory_pool()
        free, _ = self.xp.cuda.runtime.memGetInfo()
        return int(free) + int(pool.total_bytes()) - int(pool.used_bytes())

    def release(self) -> None:
        self.xp.get_default_memory_pool().free_all_blocks()

    def has_room_for(self, size: int) -> bool:
        return size <= self.free_memory() // 2

    def synchronize(self) -> None:
        self.xp.cuda.get_current_stream().synchronize()

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        # Condensed to one number here, so that nothing depends on what CuPy takes for a seed.
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        return self.xp.random.default_rng(int(state[0]))

    def reseed(self, generator: RandomGenerator, seed: int | Sequence[int]) -> None:
        state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
        generator.bit_generator = type(generator.bit_generator)(int(state[0]))  # type: ignore[attr-defined]

    def skip(self, generator: RandomGenerator, numbers: int) -> None:
        generator.random((numbers,), np.dtype(np.float32))

    def generator_state(self, generator: RandomGenerator) -> dict[str, int]:
        raise BackendError("a generator of CuPy's own does not say how much was drawn.")

    def set_generator_state(self, generator: RandomGenerator, state: Mapping[str, int]) -> None:
        raise BackendError("a generator of CuPy's own cannot be set to how much was drawn.")

    def matmul(self, a: Array, b: Array, dtype: Any = None, out: Array | None = None) -> Array:
        if out is not None or (dtype is not None and a.dtype != dtype):
            return super().matmul(a, b, dtype, out)
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

    def ways(self) -> dict[str, str]:
        return super().ways() | {"XPDL_PROVIDER": self.provider}


class CapturingCupyBackend(CupyBackend):
    """A CuPy backend all of whose primitives can be captured as a CUDA graph."""

    compiles = True

    def __init__(self) -> None:
        super().__init__()
        self._retired: list[Any] = []  # pools of captured steps that are no more

    def free_memory(self) -> int:
        self._empty_retired()
        return super().free_memory()

    def release(self) -> None:
        self._empty_retired()
        super().release()

    def compile_step(self, step: Step, prepare: Callable[[], object] | None = None) -> Step:
        self._empty_retired()  # of the epoch before
        return CapturedStep(self, step, prepare)

    def capture(self, step: Step, *parts: Any) -> tuple[Any, Callable[[], object]]:
        """Return what ``step(*parts)`` returns, not yet computed, and what computes it.

        Raises
        ------
        CaptureError
            If the step does what cannot be captured, such as reading a number from the device.
        """
        cuda = self.xp.cuda
        # Of its own, so that nothing else is ever put where a replay writes.
        pool, stream = cuda.MemoryPool(self._device_memory), cuda.Stream(non_blocking=True)
        pool.set_limit(size=0)  # at a limit, a pool would give memory back that is in the graph
        self.synchronize()  # the other stream does not wait for what was given to this one
        self.release()  # what is kept for later is wanted now
        with cuda.using_allocator(pool.malloc), stream:
            try:
                stream.begin_capture()
                result = step(*parts)
                graph = stream.end_capture()
            except BaseException as error:
                with contextlib.suppress(Exception):  # the first error is the one that counts
                    stream.end_capture()
                self._retired.append(pool)
                if not isinstance(error, Exception):
                    raise
                raise CaptureError(f"the step cannot be captured: {_line(error)}") from error

        def replay() -> None:
            graph.launch()

        weakref.finalize(replay, self._retired.append, pool)
        return result, replay

    def _device_memory(self, size: int) -> Any:
        """Return memory of the device, or raise MemoryError.

        CuPy's own pool answers CUDA's refusal by giving back all that it does not use at that
        moment, and tries again; a graph goes on writing there.
        """
        cuda = self.xp.cuda
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(f"Out of memory allocating {size:,} bytes.") from error

    def _empty_retired(self) -> None:
        """Give back the memory of steps that are no more, but for what layers still keep.

        A pool of CuPy's that goes away does not give its memory back by itself.
        """
        for pool in self._retired:
            pool.free_all_blocks()
        self._retired[:] = [pool for pool in self._retired if pool.total_bytes()]


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
