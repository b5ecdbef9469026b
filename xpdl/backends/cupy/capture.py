"""A step of training captured once and replayed: what a launch by the host costs is paid once."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from xpdl.backends.base.types import Array, Step
from xpdl.errors import CaptureError

# A shape is captured when it has come so often; before, kernels are compiled and pools filled.
WARM_UP = 2


class Capturing(Protocol):
    """A device that can capture what is given to it to do."""

    xp: Any

    def release(self) -> None:
        """Give memory that no array holds back."""

    def capture(self, step: Step, *arrays: Array) -> tuple[Any, Callable[[], object]]:
        """Run ``step(*arrays)`` without executing it; return what it returned, and the replay."""


class CapturedStep:
    """A function of device arrays that is captured, once for each set of shapes, and replayed.

    What it reads and writes by itself (parameters, counters) must stay where it is, so that layers
    must not be seeded anew meanwhile; numbers of the host are frozen as they were when it was
    captured. What it returns lies in memory that the next call writes over.
    """

    def __init__(
        self, backend: Capturing, step: Step, prepare: Callable[[], object] | None = None
    ) -> None:
        self._backend = backend
        self._prepare = prepare
        self._step = step
        self._seen: Counter[tuple[Any, ...]] = Counter()
        self._graphs: dict[tuple[Any, ...], tuple[tuple[Array, ...], Any, Callable[[], object]]]
        self._graphs = {}

    def _capture(self, key: tuple[Any, ...], arrays: tuple[Array, ...]) -> None:
        if self._prepare is not None:
            self._prepare()
        inputs = tuple(a.copy() for a in arrays)
        try:
            self._graphs[key] = (inputs, *self._backend.capture(self._step, *inputs))
        except CaptureError as error:
            warnings.warn(
                f"{error}. It runs as it stands, which a GPU may spend mostly waiting.",
                stacklevel=4,
            )
            self._seen[key] = -(2**62)  # do not try again
        else:
            return
        # Not within `except`: the error holds the arrays of the attempt.
        if self._prepare is not None:
            self._prepare()
        self._backend.release()  # what the attempt took

    def __call__(self, *arrays: Array) -> Any:
        """Do the step for `arrays`: executed as it stands at first, replayed later."""
        key = tuple((a.shape, a.strides, a.dtype) for a in arrays)
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] <= WARM_UP:
                return self._step(*arrays)
            self._capture(key, arrays)
        if key not in self._graphs:
            return self._step(*arrays)
        inputs, result, replay = self._graphs[key]
        for kept, array in zip(inputs, arrays, strict=True):
            kept[...] = array
        replay()
        return result
