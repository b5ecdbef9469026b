"""CuPy's arrays, streams and NCCL, as far as `NcclRanks` needs them; each rank has a GPU's own.

A message is carried out as late as a GPU may: when the current stream waits for it. What is read
before is what was there before. A message that does not wait for the work of the current stream, or
whose buffer is gone or too small when it is carried out, raises.
"""

from __future__ import annotations

import ctypes
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np


class StandInError(AssertionError):
    """A GPU would have gone wrong here."""


class DeviceArray(np.ndarray):
    """An array that tells its address as CuPy's do."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return types.SimpleNamespace(ptr=self.ctypes.data)


class _Memory:
    """Which addresses are held by arrays that still live."""

    def __init__(self) -> None:
        self._blocks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()

    def hold(self, a: np.ndarray) -> DeviceArray:
        array = np.array(a).view(DeviceArray)
        self._blocks[array.ctypes.data] = array
        return array

    def numbers(self, address: int, count: int, dtype: Any) -> np.ndarray:
        nbytes = count * np.dtype(dtype).itemsize
        for start, block in list(self._blocks.items()):
            if start <= address and address + nbytes <= start + block.nbytes:
                place = (ctypes.c_char * nbytes).from_address(address)
                return np.frombuffer(place, dtype)
        raise StandInError("a message is about memory that no array holds any more")


class _Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = id(self)
        self.non_blocking = non_blocking
        self.work: list[Callable[[], None]] = []
        self.heard: Any = None  # the last event that it waited for

    def wait_event(self, event: Any) -> None:
        self.heard = event
        event.carry_out()


class _Event:
    def __init__(self, disable_timing: bool = False) -> None:
        self._stream: _Stream | None = None
        self.of: _Stream | None = None

    def record(self, stream: _Stream) -> None:
        self.of = self._stream = stream
        self._upto = len(stream.work)

    @property
    def done(self) -> bool:
        return self._stream is None or not self._stream.work

    def carry_out(self) -> None:
        assert self._stream is not None
        for work in self._stream.work[: self._upto]:
            work()
        del self._stream.work[: self._upto]
        self._upto = 0


class _Table:
    """Where the ranks of a communicator put what they send."""

    tables: ClassVar[dict[Any, _Table]] = {}
    making = threading.Lock()

    def __init__(self, size: int) -> None:
        self.gate = threading.Barrier(size, timeout=30)
        self.sent: list[Any] = [None] * size

    @classmethod
    def of(cls, name: Any, size: int) -> _Table:
        with cls.making:
            return cls.tables.setdefault(name, cls(size))


def make_cupy() -> Any:
    """Return a module like CuPy, of one GPU."""
    memory, current = _Memory(), _Stream()
    streams: dict[int, _Stream] = {}
    types_of = {7: "float32", 8: "float64", 6: "float16"}

    def make_stream(non_blocking: bool = False) -> _Stream:
        stream = _Stream(non_blocking)
        streams[stream.ptr] = stream
        return stream

    class Communicator:
        def __init__(self, size: int, name: Any, rank: int) -> None:
            assert len(name) == 128
            self._table, self._rank = _Table.of(name, size), rank

        def send(self, a: int, count: int, kind: int, rank: int, stream: int) -> None:
            self._in_group(stream)[0][rank] = (a, count, types_of[kind])

        def recv(self, to: int, count: int, kind: int, rank: int, stream: int) -> None:
            self._in_group(stream)[1][rank] = (to, count, types_of[kind])

        def _in_group(self, stream: int) -> Any:
            if not groups:
                raise StandInError("a message to one rank alone waits until that one receives")
            groups[-1]["of"] = self, stream
            return groups[-1]["sends"], groups[-1]["receives"]

        def exchange(self, sends: Any, receives: Any, stream: int) -> None:
            def work() -> None:
                mine = {rank: memory.numbers(*a).copy() for rank, a in sends.items()}
                sent = self._exchange(mine)
                for rank, to in receives.items():
                    memory.numbers(*to)[...] = sent[rank][self._rank]

            self._give(stream, work)

        def _give(self, stream: int, work: Callable[[], None]) -> None:
            if stream not in streams:
                raise StandInError("NCCL was not given a stream of its own")
            own = streams[stream]
            if not own.non_blocking or own.heard is None or own.heard.of is not current:
                raise StandInError("a message does not wait for what the array is computed by")
            own.heard = None
            own.work.append(work)

        def _exchange(self, mine: Any) -> list[Any]:
            self._table.sent[self._rank] = mine
            self._table.gate.wait()
            sent = list(self._table.sent)
            self._table.gate.wait()
            return sent

        def allReduce(self, a: int, to: int, count: int, kind: int, op: int, stream: int) -> None:
            assert op == 0

            def work() -> None:
                sent = self._exchange(memory.numbers(a, count, types_of[kind]).copy())
                memory.numbers(to, count, types_of[kind])[...] = sum(sent[1:], start=sent[0])

            self._give(stream, work)

        def allGather(self, a: int, to: int, count: int, kind: int, stream: int) -> None:
            def work() -> None:
                sent = self._exchange(memory.numbers(a, count, types_of[kind]).copy())
                place = memory.numbers(to, count * len(sent), types_of[kind])
                place[...] = np.concatenate(sent)

            self._give(stream, work)

    groups: list[Any] = []

    def end_group() -> None:
        group = groups.pop()
        communicator, stream = group["of"]
        communicator.exchange(group["sends"], group["receives"], stream)

    nccl = types.SimpleNamespace(
        groupStart=lambda: groups.append({"sends": {}, "receives": {}}), groupEnd=end_group,
        NCCL_FLOAT16=6, NCCL_FLOAT32=7, NCCL_FLOAT64=8, NCCL_SUM=0, NcclCommunicator=Communicator,
        available=True, get_unique_id=lambda: (id(memory) % 256, *range(127)),
    )  # fmt: skip
    cuda = types.SimpleNamespace(
        Event=_Event, Stream=make_stream, get_current_stream=lambda: current, nccl=nccl
    )
    return types.SimpleNamespace(
        **{name: getattr(np, name) for name in ("abs", "clip", "frexp", "ldexp", "ones")},
        asarray=memory.hold,
        ascontiguousarray=lambda a: memory.hold(np.ascontiguousarray(a)),
        cuda=cuda,
        empty=lambda shape, dtype: memory.hold(np.empty(shape, dtype)),
        zeros=lambda shape, dtype: memory.hold(np.zeros(shape, dtype)),
    )
