"""Arrays of a device: where they are, and how they get there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpdl.backends.base.types import Array, Step, host_array
from xpdl.backends.generators import Generators
from xpdl.backends.machine import Machine


class Arrays(Generators, Machine):
    """What holds and moves arrays; this class serves NumPy's."""

    xp: Any = np
    array_type: type = np.ndarray

    def owns(self, a: object) -> bool:
        """Tell whether `a` is an array of this backend."""
        return isinstance(a, self.array_type)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        """Return `a` (a host array, a list, a number, or an array already here) on this device.

        Raises
        ------
        BackendMismatchError
            If `a` lives on another device; bring it to the host first, with `to_numpy`.
        DTypeError
            If `a` does not hold numbers.
        """
        if not self.owns(a) or isinstance(a, np.ndarray):
            a = host_array(a)
        array: Array = self.xp.asarray(a, dtype=dtype)
        return array

    def to_numpy(self, a: Any) -> Array:
        """Return a host copy of `a`. On a GPU this waits for all work that `a` depends on."""
        return np.array(a)

    def item(self, a: Any) -> float:
        """Return the one number in `a` as a Python number. On a GPU this waits for it."""
        return self.to_numpy(a).item()

    def release(self) -> None:
        """Give memory that no array holds back to the device or the system."""

    def synchronize(self) -> None:
        """Wait until all work given to the device is done; a CPU has none outstanding."""

    def compile_step(self, step: Step, prepare: Callable[[], object] | None = None) -> Step:
        """Return a function that does what `step` does, with less work for the host.

        On a CPU that is `step` itself. On a GPU it is captured and replayed, see `CapturedStep`;
        `prepare` is called before, and may free memory.
        """
        return step
