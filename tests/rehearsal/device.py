"""The arrays of the rehearsed GPU: those of the strict backend, in a copy of their own.

The strict backend's files are loaded a second time. So the arrays of both can be told apart where a
test has both, and this copy can be given what a GPU has and strict has not: the mark of CUDA's
arrays, a memory that ends, a matrix product that cannot be captured.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from xpdl import backends
from xpdl.backends import strict


def _copies(*names: str) -> list[ModuleType]:
    """Import the files of the strict backend once more, and leave those in use where they were."""
    place = strict.__name__

    def taken_out() -> dict[str, ModuleType]:
        found = [name for name in sys.modules if name == place or name.startswith(f"{place}.")]
        return {name: sys.modules.pop(name) for name in found}

    in_use = taken_out()
    try:
        return [importlib.import_module(f"{place}.{name}") for name in names]
    finally:
        taken_out()
        sys.modules.update(in_use)
        backends.strict = strict  # which the import has set to the copy


array, functions, recordings, backend = _copies("array", "functions", "recording", "backend")

DeviceArray = array.DeviceArray
Function = functions.Function
StrictBackend = backend.StrictBackend
begin_recording = recordings.begin
end_recording = recordings.end
recording = recordings.current


def is_recording() -> bool:
    """Tell whether a step is being captured."""
    return recording() is not None


def record(redo: Callable[[], object], written: Sequence[np.ndarray]) -> None:
    """While a step is captured, keep an operation that is about to write into memory."""
    recordings.record(redo, written)


# By this the framework knows an array of CuPy; by the other one of the strict backend.
DeviceArray.__cuda_array_interface__ = {"version": 3}
del DeviceArray.__xpdl_device__
StrictBackend.__module__ = __name__  # it is none of the framework's
