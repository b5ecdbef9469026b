"""Ranks that are threads of one process: for tests, and to see how it works without MPI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from xpdl.arguments import whole_number
from xpdl.backends import Array, backend_of
from xpdl.distributed.ranks import Ranks
from xpdl.errors import RanksError

Result = TypeVar("Result")


class _Table:
    """What all threads see: a place for each, and where they wait for each other."""

    def __init__(self, size: int, timeout: float) -> None:
        self.places: list[Any] = [None] * size
        self.gate = threading.Barrier(size, timeout=timeout)


class _Done:
    """A message that was done at once."""

    def test(self) -> bool:
        return True

    def wait(self) -> None:
        return


class _Came(_Done):
    """A message that was done at once, and brought an array."""

    def __init__(self, a: Array) -> None:
        self._a = a

    def wait(self) -> Array:  # type: ignore[override]
        return self._a


class ThreadRanks(Ranks):
    """One of several threads that train together, each its own copy of the network.

    See `in_threads`, which starts them.
    """

    def __init__(self, rank: int, table: Any) -> None:
        self.rank, self.size, self._table = rank, len(table.places), table

    def broadcast(self, value: Any = None, *, patient: bool = False) -> Any:
        return self.gather(value)[0]

    def gather(self, value: Any, *, patient: bool = False) -> list[Any]:
        self._table.places[self.rank] = value
        self._meet()
        values = list(self._table.places)
        self._meet()
        return values

    def begin_sum(self, a: Array) -> _Done:
        arrays = self.gather(a)
        total = arrays[0].copy()
        for other in arrays[1:]:
            total += other
        self._meet()  # nobody may change what others still read
        a[...] = total
        return _Done()

    def begin_exchange(self, a: Array) -> _Came:
        rows = [other[self.rank] for other in self.gather(a)]
        came = _Came(backend_of(a).xp.stack(rows))
        self._meet()
        return came

    def begin_stack(self, a: Array) -> _Came:
        return _Came(self.stack(a))

    def stack(self, a: Array) -> Array:
        stacked: Array = backend_of(a).xp.stack(self.gather(a))
        self._meet()
        return stacked

    def _meet(self) -> None:
        try:
            self._table.gate.wait()
        except threading.BrokenBarrierError as error:
            raise RanksError(
                f"rank {self.rank} of {self.size} waited for another that did not come."
            ) from error


def in_threads(
    size: int, function: Callable[[Ranks], Result], *, timeout: float = 60.0
) -> list[Result]:
    """Return what `function` returns for each of `size` ranks, which run at the same time.

    Parameters
    ----------
    size : int
    function : callable
        Called as ``function(ranks)`` in a thread of each rank.
    timeout : float
        For how many seconds one waits for another.

    Raises
    ------
    Exception
        The first error, by rank, that is not about one waiting for another.
    """
    table = _Table(whole_number("size", size), timeout)
    results: list[Any] = [None] * size
    errors: dict[int, BaseException] = {}

    def work(rank: int) -> None:
        try:
            results[rank] = function(ThreadRanks(rank, table))
        except BaseException as error:
            errors[rank] = error
            table.gate.abort()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _, error in sorted(errors.items(), key=lambda item: isinstance(item[1], RanksError)):
        raise error
    return results
