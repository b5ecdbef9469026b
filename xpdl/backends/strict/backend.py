"""The generic primitives, on the rehearsed device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpdl.backends.base import Backend
from xpdl.backends.base.types import Array, Shape, Step, host_array
from xpdl.backends.cupy.capture import CapturedStep
from xpdl.backends.generators import RandomGenerator
from xpdl.backends.strict import recording
from xpdl.backends.strict.array import DeviceArray
from xpdl.backends.strict.module import DeviceModule, Transfers


class _DeviceGenerator:
    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    @property
    def bit_generator(self) -> Any:
        """NumPy's, whose state says how much was drawn."""
        return self._generator.bit_generator

    def random(self, size: Shape, dtype: Any) -> Any:
        bits = self.bit_generator
        capture = recording.current()
        before = None if capture is None else bits.state
        drawn = np.asarray(self._generator.random(size, dtype=dtype))
        if capture is not None:  # a device's generator counts on the device: each replay draws
            capture.add(
                lambda: np.copyto(drawn, self._generator.random(size, dtype=dtype)),
                lambda: setattr(bits, "state", before),
            )
        return DeviceArray(drawn)


class StrictBackend(Backend):
    """The generic primitives on rehearsed device arrays."""

    name = "strict"
    compiles = True
    array_type = DeviceArray

    def __init__(self) -> None:
        self.transfers = Transfers()
        self.xp = DeviceModule(np, self.transfers)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        return self.xp.asarray(a if self.owns(a) else host_array(a), dtype=dtype)

    def to_numpy(self, a: Any) -> Array:
        if not self.owns(a):
            return np.array(a)
        recording.refuse_while_recording("an array went from the device to the host")
        self.transfers.to_host += 1
        return a._host.copy()

    def generator(self, seed: int | Sequence[int]) -> RandomGenerator:
        return _DeviceGenerator(super().generator(seed))  # type: ignore[arg-type]

    def synchronize(self) -> None:
        recording.refuse_while_recording("the host waited for the device")

    def compile_step(self, step: Step, prepare: Callable[[], object] | None = None) -> Step:
        return CapturedStep(self, step, prepare)

    def capture(self, step: Step, *parts: Any) -> tuple[Any, Callable[[], object]]:
        recording.begin()
        try:
            result = step(*parts)
        finally:
            captured = recording.end()
        return result, captured.replay
