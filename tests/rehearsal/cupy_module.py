"""A module like CuPy: its names, over arrays that live in the rehearsal."""

from __future__ import annotations

import types
from typing import Any

from rehearsal import kernels, rules, streams
from rehearsal import memory as pools
from rehearsal.device import DeviceArray, StrictBackend
from rehearsal.errors import CompileError, CUDARuntimeError, OutOfMemoryError

VERSION = "14.2.0"
CAPABILITY = (9, 0)
PROCESSORS = 132

# cudaDeviceAttr -> value
_ATTRIBUTES = {1: 1024, 8: 49152, 10: 32, 16: PROCESSORS, 75: CAPABILITY[0], 76: CAPABILITY[1]}


class Device:
    """The one device there is."""

    compute_capability = f"{CAPABILITY[0]}{CAPABILITY[1]}"
    attributes = types.MappingProxyType(
        {
            "MultiProcessorCount": PROCESSORS,
            "MaxThreadsPerBlock": 1024,
            "MaxSharedMemoryPerBlock": 49152,
            "WarpSize": 32,
        }
    )

    def __init__(self, device: int = 0) -> None:
        if device != 0:
            raise CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self.id = 0

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the device chosen: there is no other."""

    @property
    def mem_info(self) -> tuple[int, int]:
        """Free and total bytes."""
        return pools.info()

    def use(self) -> Device:
        """Choose this device."""
        return self

    def synchronize(self) -> None:
        """Wait for all work of the device."""
        streams.synchronize_all()


def _device_properties(number: int) -> dict[str, Any]:
    Device(number)
    return {
        "name": b"Rehearsed GPU",
        "major": CAPABILITY[0],
        "minor": CAPABILITY[1],
        "multiProcessorCount": PROCESSORS,
        "warpSize": 32,
        "maxThreadsPerBlock": 1024,
        "sharedMemPerBlock": 49152,
        "totalGlobalMem": pools.info()[1],
    }


def _runtime() -> types.SimpleNamespace:
    return types.SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        deviceGetAttribute=lambda attribute, number: _ATTRIBUTES[attribute],
        deviceSynchronize=streams.synchronize_all,
        driverGetVersion=lambda: 13020,
        getDevice=lambda: 0,
        getDeviceCount=lambda: 1,
        getDeviceProperties=_device_properties,
        is_hip=False,
        memGetInfo=pools.info,
        runtimeGetVersion=lambda: 13020,
        streamCaptureModeGlobal=0,
        streamCaptureModeRelaxed=2,
        streamCaptureModeThreadLocal=1,
    )


def _cuda() -> types.SimpleNamespace:
    return types.SimpleNamespace(
        Device=Device,
        Event=streams.Event,
        Graph=streams.Graph,
        MemoryPool=pools.MemoryPool,
        Stream=streams.Stream,
        compiler=types.SimpleNamespace(CompileException=CompileError),
        get_current_stream=streams.get_current_stream,
        is_available=lambda: True,
        nvrtc=types.SimpleNamespace(getVersion=lambda: (13, 2)),
        memory=types.SimpleNamespace(
            MemoryPool=pools.MemoryPool, OutOfMemoryError=OutOfMemoryError
        ),
        runtime=_runtime(),
        using_allocator=pools.using_allocator,
    )


def make_cupy(memory: int | None = None) -> types.ModuleType:
    """Return a module `cupy` whose device computes on the CPU.

    There is one device, which starts anew with each call: no work, no streams, empty memory.

    Parameters
    ----------
    memory : int, optional
        How many bytes the device has; without it, arrays never fail for want of memory.
    """
    streams.reset()
    pools.reset(memory)
    backend = StrictBackend()
    module = types.ModuleType("cupy", "CuPy, rehearsed on a CPU.")

    def asarray(a: Any, dtype: Any = None, order: Any = None, *, blocking: bool = False) -> Any:
        return backend.xp.asarray(a, dtype)

    def default_rng(seed: int) -> Any:
        # CuPy's generators take one integer that fits 64 bits, and no sequence.
        if type(seed) is not int or not 0 <= seed < 2**64:
            raise TypeError(f"a seed is an integer of 64 bits, got {seed!r}")
        return backend.generator(seed)

    def of_strict(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module 'cupy' has no attribute {name!r}")
        return getattr(backend.xp, name)

    names = {
        "RawModule": kernels.RawModule,
        "__getattr__": of_strict,
        "__version__": VERSION,
        "asarray": asarray,
        "asnumpy": rules.asnumpy,
        "cuda": _cuda(),
        "get_default_memory_pool": pools.get_default_memory_pool,
        "is_available": lambda: True,
        "ndarray": DeviceArray,
        "random": types.SimpleNamespace(default_rng=default_rng),
    }
    vars(module).update(names)
    return module
