"""Signs of life between ranks that work by themselves, or wait for those who do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

# In the time after which a rank is silent. Looks are counted, not seconds: a process that was
# stopped itself, and wakes up, has not looked.
LOOKS = 8


class SignsOfLife:
    """What ranks tell each other while none waits for the other: that they are still there.

    Whoever calls `look`, a thread beside the work or the one that waits, gives a sign to all others
    and takes theirs. A rank whose process is stopped or ended, or whose machine is gone, gives
    none; one whose work hangs does, as its thread lives on.

    Parameters
    ----------
    communicator : mpi4py.MPI.Comm
        For these messages alone.
    limit : float
        After how many seconds without a sign a rank is silent.
    """

    def __init__(self, communicator: Any, limit: float) -> None:
        self._comm, self._limit = communicator, limit
        self._others = [r for r in range(communicator.size) if r != communicator.rank]
        self._last = 0.0
        self._missed: dict[int, int] = {}

    def begin(self) -> None:
        """Begin to count looks without a sign."""
        self._missed = dict.fromkeys(self._others, 0)

    def look(self) -> list[int]:
        """Give a sign and take those of others, if it is time for that; return who is silent."""
        now = time.monotonic()
        if now - self._last < self._limit / LOOKS:
            return []
        self._last = now
        for other in self._others:
            self._comm.Isend(np.zeros(0, np.int8), other).Free()
        for other in self._others:
            self._missed[other] += 1
            while self._comm.Iprobe(other):
                self._comm.Recv(np.zeros(0, np.int8), other)
                self._missed[other] = 0
        return [rank for rank, missed in self._missed.items() if missed > LOOKS]

    @contextmanager
    def beside(self, work: Callable[[list[int]], object]) -> Iterator[None]:
        """Look from time to time while the block runs; call `work` once if ranks are silent."""
        done = threading.Event()

        def keep_looking() -> None:
            while not done.wait(self._limit / LOOKS / 2):
                if silent := self.look():
                    work(silent)
                    return

        self.begin()
        thread = threading.Thread(target=keep_looking, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
