"""The module handle `xp`."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from xpdl.backends.strict import recording
from xpdl.backends.strict.array import DeviceArray
from xpdl.backends.strict.functions import Function
from xpdl.backends.strict.refusals import refuse_reading
from xpdl.errors import DeviceRuleError

# Functions that print or save the numbers, which reads them all.
_READING = {"array2string", "array_repr", "array_str", "save", "savetxt", "savez"}


@dataclass
class Transfers:
    """How often arrays went from the host to the device and back."""

    to_device: int = 0
    to_host: int = 0


class DeviceModule:
    """The module handle `xp` of the strict backend: NumPy's names, a device's rules."""

    ndarray = DeviceArray

    def __init__(self, module: ModuleType, transfers: Transfers) -> None:
        self._module = module
        self._transfers = transfers

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._module, name)
        if name == "random":
            raise DeviceRuleError(
                "xp.random has one hidden state a device; use backend.generator(seed).random(...)"
            )
        if name in _READING:
            refuse_reading(f"xp.{name}")
        if name == "put":
            raise DeviceRuleError(
                "xp.put may write one place more than once, which is undefined on a GPU; "
                "write a[index] = values, which is checked."
            )
        if isinstance(value, ModuleType):
            return DeviceModule(value, self._transfers)
        if isinstance(value, type) or not callable(value):
            return value
        return Function(name, value)

    def asarray(self, a: Any, dtype: Any = None) -> DeviceArray:
        """Put a host array on the device, or convert one that is there."""
        if isinstance(a, DeviceArray):
            return a if dtype is None else a.astype(dtype, copy=False)
        host = np.array(a, dtype=dtype)
        if host.dtype == np.float64 and dtype is None and not isinstance(a, np.ndarray):
            raise DeviceRuleError("xp.asarray of Python floats gives float64; give dtype=.")
        recording.refuse_while_recording("an array went from the host to the device")
        self._transfers.to_device += 1
        return DeviceArray(host)

    def array(self, a: Any, dtype: Any = None) -> DeviceArray:
        """Make a new array on the device."""
        made = self.asarray(a, dtype)
        return made.__copy__() if made is a else made
