"""A step that is captured, to be replayed as a CUDA graph is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from xpdl.backends.base.types import Array
from xpdl.errors import DeviceRuleError


class Recording:
    """What was done on the device, to be done again: a CUDA graph, rehearsed.

    CUDA does not execute what it captures. Here operations must run, so that later ones find their
    arrays; `end` therefore puts all memory back as it was.
    """

    def __init__(self) -> None:
        self._redo: list[Callable[[], object]] = []
        self._undo: list[Callable[[], object]] = []

    def add(self, redo: Callable[[], object], undo: Callable[[], object]) -> None:
        """Keep an operation, and how to take back its first execution."""
        self._redo.append(redo)
        self._undo.append(undo)

    def end(self) -> None:
        """Take back what was executed, the last first."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def replay(self) -> None:
        """Do it all again, on the memory as it now is."""
        for redo in self._redo:
            redo()


_recording: Recording | None = None


def current() -> Recording | None:
    """Return what is being captured, if a step is."""
    return _recording


def begin() -> None:
    """Capture from now on what is done to device arrays."""
    global _recording
    _recording = Recording()


def end() -> Recording:
    """Stop capturing, and return what was captured, as if it had not been executed."""
    global _recording
    assert _recording is not None
    recording, _recording = _recording, None
    recording.end()
    return recording


def record(redo: Callable[[], object], written: Sequence[Array]) -> None:
    """While a step is captured, keep an operation that is about to write into host memory."""
    if _recording is not None:
        saved = [(a, a.copy()) for a in written]

        def undo() -> None:
            for a, before in saved:
                np.copyto(a, before)

        _recording.add(redo, undo)


def refuse_while_recording(what: str) -> None:
    """Refuse what a captured step cannot do, if one is being captured."""
    if _recording is not None:
        raise DeviceRuleError(
            f"{what} while a step is captured; CUDA refuses, since a replay has no host. "
            "Do it before or after the step."
        )
