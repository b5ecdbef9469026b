"""Ranks that are processes, on one machine or on many: host arrays and values by MPI."""

from __future__ import annotations

import os
import platform
import time
from _thread import interrupt_main
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpdl.arguments import number
from xpdl.backends import Array
from xpdl.distributed.life import SignsOfLife
from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError, BackendMismatchError, RanksError

TIMEOUT = 20.0  # seconds that a message may take, of ranks that are at the same place
FIRST_TIMEOUT = 120.0  # until a step was made: what is compiled then takes its time
ROLL_CALL = 3.0  # in which those that wait find out who does not
_SPINS = 100  # before others get the core
_LONGEST_LOOK = 0.5  # seconds between two looks at a message
_HERE, _FAREWELL = 71, 72  # tags


class _Request:
    """A message of MPI that is under way; it moves on only within its calls."""

    def __init__(self, ranks: MpiRanks, request: Any) -> None:
        self._ranks, self._request = ranks, request

    def test(self) -> bool:
        return bool(self._request.Test())

    def wait(self) -> None:
        self._ranks.wait_for(self._request)


class _Arriving(_Request):
    """A message of MPI that brings an array."""

    def __init__(self, ranks: MpiRanks, request: Any, a: Array) -> None:
        super().__init__(ranks, request)
        self._a = a

    def wait(self) -> Array:  # type: ignore[override]
        super().wait()
        return self._a


class MpiRanks(Ranks):
    """The processes that `mpiexec` started; see `connect`.

    Parameters
    ----------
    mpi : module
        ``mpi4py.MPI``.
    communicator : mpi4py.MPI.Comm, optional
        Of which processes; of all by default. Another is made of it, so that no other message can
        come between.

    Attributes
    ----------
    timeout : float
        For how many seconds a rank waits for another, but where it is patient.
    """

    def __init__(self, mpi: Any, communicator: Any = None) -> None:
        self._mpi = mpi
        self._comm = (mpi.COMM_WORLD if communicator is None else communicator).Dup()
        self._stacks = self._comm.Dup()  # which keep no order among other messages
        self._side = self._comm.Dup()  # for what is said when the other is out of step
        self.rank, self.size = self._comm.rank, self._comm.size
        self._usual = usual_timeout()
        self._signs = SignsOfLife(self._comm.Dup(), self._usual)
        # In a thread beside the work, which some builds of MPI cannot serve.
        self._watches = mpi.Query_thread() >= mpi.THREAD_SERIALIZED
        self.timeout = max(FIRST_TIMEOUT, self._usual)
        self._waiting = {self.rank}  # for a message that did not come
        self._in_vain = False
        self.places = self.gather(f"process {os.getpid()} on {platform.node()}")

    # ---- values of the host ---------------------------------------------------------------------

    def broadcast(self, value: Any = None, *, patient: bool = False) -> Any:
        told = self._mpi.pickle.dumps(value) if self.rank == 0 else b""
        length = np.array([len(told)], np.int64)
        self.wait_for(self._comm.Ibcast(length), patient)
        content = bytearray(told) if self.rank == 0 else bytearray(int(length[0]))
        self.wait_for(self._comm.Ibcast([content, self._mpi.BYTE]), patient)
        return self._mpi.pickle.loads(bytes(content))

    def gather(self, value: Any, *, patient: bool = False) -> list[Any]:
        told = self._mpi.pickle.dumps(value)
        lengths = np.zeros(self.size, np.int64)
        mine = np.array([len(told)], np.int64)
        self.wait_for(self._comm.Iallgather(mine, lengths), patient)
        content, ends = bytearray(int(lengths.sum())), np.cumsum(lengths)
        starts = ends - lengths
        place = [content, (lengths.tolist(), starts.tolist()), self._mpi.BYTE]
        self.wait_for(self._comm.Iallgatherv([told, self._mpi.BYTE], place), patient)
        return [
            self._mpi.pickle.loads(bytes(content[start:end]))
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]

    def any(self, flag: bool) -> bool:
        flags = np.array([flag], np.int32)
        self.wait_for(self._comm.Iallreduce(self._mpi.IN_PLACE, flags, op=self._mpi.MAX))
        return bool(flags[0])

    # ---- arrays ---------------------------------------------------------------------------------

    def begin_sum(self, a: Array) -> _Request:
        expect_host(a)
        return _Request(self, self._comm.Iallreduce(self._mpi.IN_PLACE, a, op=self._mpi.SUM))

    def begin_exchange(self, a: Array) -> _Arriving:
        expect_host(a)
        came = np.empty_like(a)
        return _Arriving(self, self._comm.Ialltoall(self._raw(a), self._raw(came)), came)

    def begin_stack(self, a: Array) -> _Arriving:
        expect_host(a)
        came = np.empty((self.size, *a.shape), a.dtype)
        return _Arriving(self, self._stacks.Iallgather(self._raw(a), self._raw(came)), came)

    def stack(self, a: Array) -> Array:
        expect_host(a)
        stacked = np.empty((self.size, *a.shape), a.dtype)
        self.wait_for(self._comm.Iallgather(np.ascontiguousarray(a), stacked))
        return stacked

    def _raw(self, a: Array) -> list[Any]:
        """Return an array as MPI takes numbers of any type: of float16 it does not know."""
        return [a, self._mpi.BYTE]

    # ---- waiting, and not in vain ---------------------------------------------------------------

    def wait_for(self, request: Any, patient: bool = False) -> None:
        """Return when a request of MPI is done.

        Raises
        ------
        RanksError
            If that takes longer than `timeout`, or, where it is `patient`, another rank gives no
            sign of life for so long; it names who is missing.
        """
        if patient:
            self._signs.begin()
        limit, waited, before, looks = self.timeout, 0.0, 0.0, 0
        while not request.Test():
            looks += 1
            if looks < _SPINS:
                continue
            now = time.monotonic()
            # A process that was stopped itself, and wakes up, has not waited for others.
            waited += min(now - (before or now), _LONGEST_LOOK)
            before = now
            if patient and self._watches:
                if silent := self._signs.look():
                    raise RanksError(self._explain(self._usual, silent))
            elif waited > limit and not patient:
                raise RanksError(self._explain(limit))
            # Another process may need this core to come to its message; a long wait can sleep.
            _yield_core() if waited < 1.0 else time.sleep(0.001)

    @contextmanager
    def working_alone(self, interrupt: Callable[[], object] = interrupt_main) -> Iterator[None]:
        if not self._watches:
            yield
            return
        silent: list[int] = []

        def stop(found: list[int]) -> None:
            silent.extend(found)
            interrupt()

        try:
            with self._signs.beside(stop):
                yield
        except KeyboardInterrupt as error:
            if silent:
                raise RanksError(self._explain(self._usual, silent)) from error
            raise

    def _explain(self, limit: float, silent: Sequence[int] = ()) -> str:
        """Say which ranks do not wait as this one does, or are `silent`."""
        sent = [
            self._side.Isend(np.zeros(0, np.int8), other, _HERE)
            for other in range(self.size)
            if other != self.rank
        ]
        self._in_vain = True
        here, end = self._waiting, time.monotonic() + ROLL_CALL
        while time.monotonic() < end and len(here) < self.size:
            status = self._mpi.Status()
            if self._side.Iprobe(tag=_HERE, status=status):
                self._side.Recv(np.zeros(0, np.int8), status.source, _HERE)
                here.add(status.source)
            time.sleep(0.001)
        for request in sent:
            request.Free()
        missing = silent or [rank for rank in range(self.size) if rank not in here]
        told = " and ".join(f"rank {rank} ({self.places[rank]})" for rank in missing)
        if not missing:
            return f"a message between the {self.size} ranks did not arrive within {limit:g} s."
        return f"{told} did not answer within {limit:g} s: it hangs, or cannot be reached."

    def settle(self) -> None:
        self.timeout = self._usual

    # ---- the end --------------------------------------------------------------------------------

    @property
    def speaks(self) -> bool:
        return self.rank == min(self._waiting)

    def leave(self, message: str) -> bool:
        if self._in_vain:
            return False
        done, end = self._side.Ibarrier(), time.monotonic() + ROLL_CALL
        while not done.Test():
            if time.monotonic() > end:
                return False
            time.sleep(0.001)
        return True

    def abort(self, code: int) -> None:
        self._comm.Abort(code)


def usual_timeout() -> float:
    """Return for how many seconds ranks wait for each other: ``XPDL_RANKS_TIMEOUT``, else 20.

    Raises
    ------
    ArgumentError
        If that is no number above 0.
    """
    text = os.environ.get("XPDL_RANKS_TIMEOUT") or str(TIMEOUT)
    try:
        return number("XPDL_RANKS_TIMEOUT", float(text), above=0)
    except ValueError as error:
        raise ArgumentError(
            f"XPDL_RANKS_TIMEOUT must be a number of seconds above 0, got {text!r}."
        ) from error


def expect_host(a: Array) -> None:
    """See that an array is one of the host's, which alone MPI may be given.

    Raises
    ------
    BackendMismatchError
        If it is not.
    """
    if not isinstance(a, np.ndarray):
        raise BackendMismatchError(
            f"MPI carries host arrays, got one of type {type(a).__name__}; GPUs speak by NCCL, "
            "see xpdl.distributed.NcclRanks."
        )


def _yield_core() -> None:
    getattr(os, "sched_yield", lambda: time.sleep(0))()
