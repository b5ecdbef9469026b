"""Ranks whose arrays live on GPUs, one a process: sums and gathers by NCCL.

It has met no GPU yet: it passes the tests of the others with a stand-in for NCCL that checks
streams and buffers.
"""

from __future__ import annotations

from _thread import interrupt_main
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from xpdl.backends import Array
from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError


class _OnStream:
    """A message that NCCL's stream carries; the stream of the arrays waits for it, no host does."""

    def __init__(self, cupy: Any, done: Any, kept: Any) -> None:
        self._cupy, self._done, self._kept = cupy, done, kept

    def test(self) -> bool:
        return bool(self._done.done)

    def wait(self) -> None:
        self._cupy.cuda.get_current_stream().wait_event(self._done)
        self._kept = None  # from now on the stream's order keeps the buffer


class _Arriving(_OnStream):
    """A message that brings an array."""

    def __init__(self, cupy: Any, done: Any, kept: Any, a: Array) -> None:
        super().__init__(cupy, done, kept)
        self._a = a

    def wait(self) -> Array:  # type: ignore[override]
        super().wait()
        return self._a


class NcclRanks(Ranks):
    """Ranks that speak of values by others, such as MPI's, and of CuPy's arrays by NCCL.

    NCCL works on a stream of its own, behind what the current stream has been given so far; so a
    sum may run beside kernels that do not need it.

    Parameters
    ----------
    others : Ranks
        By whom values of the host are told.
    cupy : module
        CuPy, with ``cupy.cuda.nccl``.
    """

    stacks_apart = False  # NCCL's stream has one order, which all ranks must keep

    def __init__(self, others: Ranks, cupy: Any) -> None:
        self.rank, self.size = others.rank, others.size
        self._others, self._cupy, self._nccl = others, cupy, cupy.cuda.nccl
        name = others.first(self._nccl.get_unique_id)
        self._comm = self._nccl.NcclCommunicator(self.size, name, self.rank)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._types = {
            np.dtype("float16"): self._nccl.NCCL_FLOAT16,
            np.dtype("float32"): self._nccl.NCCL_FLOAT32,
            np.dtype("float64"): self._nccl.NCCL_FLOAT64,
        }

    # ---- values of the host ---------------------------------------------------------------------

    def broadcast(self, value: Any = None, *, patient: bool = False) -> Any:
        return self._others.broadcast(value, patient=patient)

    def gather(self, value: Any, *, patient: bool = False) -> list[Any]:
        return self._others.gather(value, patient=patient)

    def any(self, flag: bool) -> bool:
        return self._others.any(flag)

    def working_alone(
        self, interrupt: Callable[[], object] = interrupt_main
    ) -> AbstractContextManager[None]:
        return self._others.working_alone(interrupt)

    def settle(self) -> None:
        self._others.settle()

    @property
    def speaks(self) -> bool:
        return self._others.speaks

    def leave(self, message: str) -> bool:
        return self._others.leave(message)

    def abort(self, code: int) -> None:
        self._others.abort(code)

    # ---- arrays ---------------------------------------------------------------------------------

    def begin_sum(self, a: Array) -> _OnStream:
        kind, flags = self._type_of(a), a.flags
        if not flags.c_contiguous:
            raise ArgumentError(f"a must be contiguous, got an array of strides {a.strides}.")
        self._behind()
        place: Any = a.data
        self._comm.allReduce(
            *(place.ptr, place.ptr, a.size, kind, self._nccl.NCCL_SUM, self._stream.ptr)
        )
        return self._under_way(a)

    def begin_exchange(self, a: Array) -> _Arriving:
        came: Array = self._cupy.empty(a.shape, a.dtype)
        kind, rows = self._type_of(a), range(self.size)
        self._behind()
        self._nccl.groupStart()  # or each would wait for the other to receive
        for rank in rows:
            from_here: Any = a[rank].data
            to: Any = came[rank].data
            self._comm.send(from_here.ptr, a[rank].size, kind, rank, self._stream.ptr)
            self._comm.recv(to.ptr, a[rank].size, kind, rank, self._stream.ptr)
        self._nccl.groupEnd()
        return self._arriving(a, came)

    def begin_stack(self, a: Array) -> _Arriving:
        stacked: Array = self._cupy.empty((self.size, *a.shape), a.dtype)
        from_here: Any = a.data
        to: Any = stacked.data
        self._behind()
        self._comm.allGather(from_here.ptr, to.ptr, a.size, self._type_of(a), self._stream.ptr)
        return self._arriving(a, stacked)

    def stack(self, a: Array) -> Array:
        return self.begin_stack(self._cupy.ascontiguousarray(a)).wait()

    def _type_of(self, a: Array) -> Any:
        if a.dtype not in self._types:
            raise ArgumentError(f"a must hold floats, got {a.dtype}.")
        return self._types[a.dtype]

    def _behind(self) -> None:
        """Let NCCL's stream wait for all that the current one has been given."""
        event = self._cupy.cuda.Event(disable_timing=True)
        event.record(self._cupy.cuda.get_current_stream())
        self._stream.wait_event(event)

    def _under_way(self, kept: Any) -> _OnStream:
        return _OnStream(self._cupy, self._done(), kept)

    def _arriving(self, a: Array, came: Array) -> _Arriving:
        return _Arriving(self._cupy, self._done(), (a, came), came)

    def _done(self) -> Any:
        """Return an event that comes when NCCL's stream has done all it was given."""
        done = self._cupy.cuda.Event(disable_timing=True)
        done.record(self._stream)
        return done
