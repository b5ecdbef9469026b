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


def each_array(function: Callable[[Array], Any], parts: Any) -> Any:
    """Return tuples, however deep, with what `function` makes of each array in them."""
    if isinstance(parts, tuple):
        return tuple(each_array(function, part) for part in parts)
    return None if parts is None else function(parts)


def copy_into(kept: Any, parts: Any) -> None:
    """Copy each array of `parts`, tuples of them however deep, into that of `kept`."""
    if isinstance(parts, tuple):
        for inner, part in zip(kept, parts, strict=True):
            copy_into(inner, part)
    elif parts is not None:
        kept[...] = parts


class Capturing(Protocol):
    """A device that can capture what is given to it to do."""

    xp: Any

    def release(self) -> None:
        """Give memory that no array holds back."""

    def capture(self, step: Step, *parts: Any) -> tuple[Any, Callable[[], object]]:
        """Run ``step(*parts)`` without executing it; return what it returned, and the replay."""


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
        self._graphs: dict[tuple[Any, ...], tuple[Any, Any, Callable[[], object]]] = {}

    def _capture(self, key: tuple[Any, ...], parts: tuple[Any, ...]) -> None:
        if self._prepare is not None:
            self._prepare()
        inputs = each_array(lambda a: a.copy(), parts)
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

    def __call__(self, *parts: Any) -> Any:
        """Do the step for arrays, tuples of them, or None: as it stands first, replayed later."""
        key = each_array(lambda a: (a.shape, a.strides, a.dtype), parts)
        if key not in self._graphs:
            self._seen[key] += 1
            if self._seen[key] <= WARM_UP:
                return self._step(*parts)
            self._capture(key, parts)
        if key not in self._graphs:
            return self._step(*parts)
        inputs, result, replay = self._graphs[key]
        copy_into(inputs, parts)
        replay()
        return result
