"""The arrays of the rehearsed GPU: those of the strict backend, in a copy of their own.

The strict backend's module is loaded a second time, under another name. So the arrays of both can
be told apart where a test has both, and this copy can be given what a GPU has and strict has not:
the mark of CUDA's arrays, a memory that ends, a matrix product that cannot be captured.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from xpdl.backends import strict as strict_backend


def _copy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rehearsal.strict_copy", strict_backend.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


strict = _copy()

DeviceArray = strict.DeviceArray
DeviceModule = strict.DeviceModule
StrictBackend = strict.StrictBackend
begin_recording = strict.begin_recording
end_recording = strict.end_recording
is_recording = strict.is_recording


def recording() -> Any:
    """Return what is being captured, or None."""
    return strict._recording


def record(redo: Callable[[], object], written: Sequence[np.ndarray]) -> None:
    """While a step is captured, keep an operation that is about to write into memory."""
    strict.record(redo, written)


# By this the framework knows an array of CuPy; by the other one of the strict backend.
DeviceArray.__cuda_array_interface__ = {"version": 3}
del DeviceArray.__xpdl_device__
