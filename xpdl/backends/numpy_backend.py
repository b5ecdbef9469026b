"""NumPy on a CPU, at speed."""

from __future__ import annotations

from xpdl.backends.base import Backend


class NumpyBackend(Backend):
    """Overrides of the generic primitives that are faster on a CPU."""

    name = "numpy"
