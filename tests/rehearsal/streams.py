"""Streams and graphs: which work waits for which, and work that is kept to be done again.

Everything is done at once here. What a GPU would do later, and perhaps in another order, is told
by a stream's ticks: work on one stream after unfinished work on another, with nothing in between
that makes it wait, raises.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import Any

from rehearsal import counting, device, memory
from rehearsal.errors import CUDARuntimeError, RehearsalError

_UNSUPPORTED = "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
_INVALIDATED = (
    "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture"
)

_pointers = itertools.count(0x5000_0000, 0x100)
_ticks = itertools.count(1)


class Stream:
    """A queue of work. As a context manager it is the current one of the thread."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False, ptds: bool = False) -> None:
        if ptds:
            raise RehearsalError("per-thread default streams are not rehearsed")
        self.ptr = 0 if null else next(_pointers)
        self.non_blocking = non_blocking
        self._worked = 0  # at which tick it was last given work
        # Up to which tick it has waited for others.
        self._waited: weakref.WeakKeyDictionary[Stream, int] = weakref.WeakKeyDictionary()
        self._before: list[Stream] = []
        self._spoiled = False  # its capture has failed
        _all.add(self)

    def __repr__(self) -> str:
        return "the null stream" if self.ptr == 0 else f"stream {self.ptr:#x}"

    def __enter__(self) -> Stream:
        self._before.append(get_current_stream())
        return self.use()

    def __exit__(self, *_: object) -> None:
        self._before.pop().use()

    def use(self) -> Stream:
        """Make this stream the current one."""
        _thread.stream = self
        return self

    # ---- waiting ------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether all work is finished; asking is refused while it captures."""
        refuse_while_capturing()
        return True

    def synchronize(self) -> None:
        """Let the host wait for the work of this stream."""
        if self.is_capturing():
            refuse_while_capturing()
        done = self._clock()
        for stream in _all:
            stream._wait(done)

    def record(self, event: Event | None = None) -> Event:
        """Return an event that marks the work up to now."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Let what comes after wait for what an event marks."""
        self._wait(event.marked)

    def _clock(self) -> dict[Stream, int]:
        """Return up to which tick each stream's work is done when this one's is."""
        return {**self._waited, self: self._worked}

    def _wait(self, clock: dict[Stream, int]) -> None:
        for stream, tick in clock.items():
            self._waited[stream] = max(tick, self._waited.get(stream, 0))

    # ---- capturing ----------------------------------------------------------------------

    def is_capturing(self) -> bool:
        """Tell whether work is kept rather than done."""
        return _capturing is self

    def begin_capture(self, mode: int | None = None) -> None:
        """Keep from now on the work that is given to this stream."""
        global _capturing
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if _capturing is not None:
            raise CUDARuntimeError(
                "cudaErrorIllegalState: the operation cannot be performed in the present state"
            )
        if get_current_stream() is not self:
            raise RehearsalError(
                f"{self} captures while {get_current_stream()} is the current one: nothing would "
                "be captured. Capture inside `with stream:`."
            )
        device.begin_recording()
        self._spoiled = False
        _capturing = self

    def end_capture(self) -> Graph:
        """Return what was kept."""
        global _capturing
        if not self.is_capturing():
            raise CUDARuntimeError(
                "cudaErrorIllegalState: the operation cannot be performed in the present state"
            )
        _capturing = None
        recording = device.end_recording()
        if self._spoiled:
            raise CUDARuntimeError(_INVALIDATED)
        return Graph(recording)


class Event:
    """A mark in a stream."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.marked: dict[Stream, int] = {}

    def record(self, stream: Stream | None = None) -> None:
        """Mark the work given to a stream up to now."""
        self.marked = (stream or get_current_stream())._clock()

    def synchronize(self) -> None:
        """Let the host wait for the marked work."""
        refuse_while_capturing()
        for stream in _all:
            stream._wait(self.marked)


class Graph:
    """Work that was captured, to be done again."""

    def __init__(self, recording: Any) -> None:
        self._recording = recording

    @property
    def nodes(self) -> list[counting.Node]:
        """What a launch does, in order."""
        return counting.nodes_of(self._recording)

    def debug_dot_str(self, flags: int = 0) -> str:
        """Return the graph in the language of Graphviz, as far as its labels go."""
        labels = (f'label="{{{node.kind}\n| {node.name}\n}}"' for node in self.nodes)
        return "digraph dot {\n" + "\n".join(labels) + "\n}\n"

    def upload(self, stream: Stream | None = None) -> None:
        """Prepare a launch; nothing has to be done for that here."""

    def launch(self, stream: Stream | None = None) -> None:
        """Do all of it, on the memory as it is now."""
        if _capturing is not None:
            raise RehearsalError("a graph is launched inside a capture, which is not rehearsed")
        work_on(stream or get_current_stream(), "a graph")
        memory.check_use(self._recording)
        self._recording.replay()


class _Thread(threading.local):
    stream: Stream | None = None


_all: weakref.WeakSet[Stream] = weakref.WeakSet()
_last: Stream | None = None  # which was given work, and had waited for all others
_thread = _Thread()
_capturing: Stream | None = None
Stream.null = Stream(null=True)


def get_current_stream() -> Stream:
    """Return the stream that work goes to."""
    return _thread.stream or Stream.null


def synchronize_all() -> None:
    """Let the host wait for the whole device."""
    refuse_while_capturing()
    for stream in _all:
        stream.synchronize()


def refuse_while_capturing() -> None:
    """Raise as CUDA does, and spoil the capture, where one is going on."""
    if _capturing is not None:
        _capturing._spoiled = True
        raise CUDARuntimeError(_UNSUPPORTED)


def refuse_cublas_while_capturing() -> None:
    """Raise as CuPy does where it would call cuBLAS itself."""
    if _capturing is not None:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )


def work_on_current_stream(what: str) -> None:
    """Note that the current stream is given something to do."""
    work_on(get_current_stream(), what)


def work_on(stream: Stream, what: str) -> None:
    """Note that a stream is given something to do; raise where it would run into other work."""
    global _last
    if _capturing is not None:
        if stream is not _capturing:
            raise RehearsalError(
                f"{what} is given to {stream} while {_capturing} captures; it would not be captured"
            )
        return
    if stream is not _last:
        _wait_for_blocking(stream)
        for other in _all:
            if other is not stream and other._worked > stream._waited.get(other, 0):
                raise RehearsalError(
                    f"{what} is given to {stream} while work on {other} may be unfinished; a GPU "
                    "may do both at the same time. Let one wait: stream.synchronize()."
                )
        _last = stream
    stream._worked = next(_ticks)


def _wait_for_blocking(stream: Stream) -> None:
    """Let the null stream wait for all blocking ones, and each of them for the null stream."""
    for other in list(_all):
        if 0 in (stream.ptr, other.ptr) and not (stream.non_blocking or other.non_blocking):
            stream._wait(other._clock())


def reset() -> None:
    """Start as a new device does: no work, the null stream, no capture."""
    global _capturing, _last
    if _capturing is not None:
        device.end_recording()
    _capturing = _last = None
    for stream in _all:
        stream._worked = 0
    _thread.stream = None
