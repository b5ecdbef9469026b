"""The memory of the rehearsed GPU: how much is in use, in which pool, and when it ends.

Memory is in use from the first device array that looks at it to the last, in whole blocks of 512
bytes as CuPy's pools give them. What is freed stays with its pool, for the next array, until the
pool is told to give it back or the device is full.

A graph goes on using the memory that it was captured with. So the rehearsal raises where such
memory could hold something else by then: where it was freed, or where the pool that it went back
to gives it to another array. On a GPU numbers would silently change.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from rehearsal import device
from rehearsal.errors import OutOfMemoryError, RehearsalError

BLOCK = 512


class MemoryPool:
    """Memory that was asked from the device, in use or kept for the next array."""

    def __init__(self, allocator: Any = None) -> None:
        self._used = 0
        self._total = 0
        # The captures whose freed memory is kept here.
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        self.reference = weakref.ref(self)  # a pool can go before its arrays
        _pools.add(self)

    def __del__(self) -> None:
        """Leave the device without what was kept: CuPy 14's pools give nothing back as they go."""
        global _lost
        if _pools is not None and self in _pools:  # None as Python ends
            _lost += self._total

    def malloc(self, size: int) -> MemoryPointer:
        """Return `size` bytes."""
        return MemoryPointer(size, self)

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        """Accept that there is no limit; others are not rehearsed."""
        assert size == 0

    def used_bytes(self) -> int:
        """Return how much is in use."""
        return self._used

    def total_bytes(self) -> int:
        """Return how much the device is without."""
        return self._total

    def free_bytes(self) -> int:
        """Return how much is kept for the next array."""
        return self._total - self._used

    def free_all_blocks(self, stream: Any = None) -> None:
        """Give back to the device what is not in use."""
        self._spare_graphs("is given back")
        self._total = self._used

    def _take(self, size: int, captured: bool) -> None:
        # What is kept for later fits whatever comes next, as if it lay in one piece.
        if self._graphs and not captured:
            self._spare_graphs("could be given to another array")
        self._used += size
        if self._used <= self._total:
            return
        before, self._total = self._total, self._used
        if _limit is not None and _taken() > _limit:
            self._used -= size
            self._total = before
            raise OutOfMemoryError(size, before)

    def _spare_graphs(self, what: str) -> None:
        if self._graphs:
            raise RehearsalError(
                f"memory that a captured graph works in {what}; capture with a MemoryPool of its "
                "own, by using_allocator, and use that for nothing else"
            )


class MemoryPointer:
    """Memory of a pool, without a shape."""

    def __init__(self, size: int, pool: MemoryPool) -> None:
        memory = np.empty(max(size, 1), np.uint8)
        self.ptr = memory.ctypes.data if size else 0
        _hold(memory, pool)
        weakref.finalize(self, _release, memory)


class _Allocation:
    """Memory that device arrays look at."""

    __slots__ = ("_captured_by", "_pool", "holders", "owner", "size")

    def __init__(self, owner: np.ndarray, pool: MemoryPool) -> None:
        self.owner = owner
        self.size = -(-owner.nbytes // BLOCK) * BLOCK
        self.holders = 0
        capture = device.recording()
        self._captured_by = None if capture is None else weakref.ref(capture)
        self._pool = pool.reference
        pool._take(self.size, capture is not None)

    def holds(self, address: int) -> bool:
        """Tell whether an address lies in this memory."""
        return 0 <= address - self.owner.__array_interface__["data"][0] < self.owner.nbytes

    def free(self) -> None:
        """Give the memory back to its pool."""
        pool = self._pool()
        if pool is not None:
            pool._used -= self.size
            if (capture := self._capture()) is not None:
                pool._graphs.add(capture)

    def _capture(self) -> Any:
        """Return the capture in which the memory was asked for, while there is such a graph."""
        return None if self._captured_by is None else self._captured_by()

    def check(self, recording: Any) -> None:
        """Raise unless the memory still belongs to what was captured."""
        if self.holders:
            return
        if self._capture() is not recording:
            raise RehearsalError("a graph is launched that uses an array which is no more")
        if self._pool() is None:
            raise RehearsalError("a graph is launched whose memory pool is no more")


class _Thread(threading.local):
    pool: MemoryPool | None = None


_pools: weakref.WeakSet[MemoryPool] = weakref.WeakSet()
_thread = _Thread()
_limit: int | None = None
_allocations: dict[int, _Allocation] = {}
_lost = 0  # with pools that are no more
_default_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    """Return the pool that arrays come from where no other was chosen."""
    return _default_pool


@contextlib.contextmanager
def using_allocator(allocator: Callable[[int], Any] | None = None) -> Iterator[None]:
    """Take the arrays of this thread from the pool whose `malloc` is given."""
    pool = getattr(allocator, "__self__", None)
    if allocator is not None and not isinstance(pool, MemoryPool):
        raise TypeError("the rehearsal's allocators are the method malloc of a MemoryPool")
    before, _thread.pool = _thread.pool, pool
    try:
        yield
    finally:
        _thread.pool = before


def reset(size: int | None) -> None:
    """Start as a new device does: with `size` bytes, or without end, and all of them free.

    Arrays from before can be used as ever, but do not count any more.
    """
    global _default_pool, _limit, _lost
    _pools.clear()
    _lost = 0
    _default_pool = MemoryPool()
    _limit = size


def info() -> tuple[int, int]:
    """Return how many bytes are free, and how many there are."""
    total = _limit if _limit is not None else 80 * 2**30
    return total - _taken(), total


def _taken() -> int:
    return _lost + sum(pool._total for pool in _pools)


# ---- what is in use ----------------------------------------------------------------------------


def owner_of(host: np.ndarray) -> np.ndarray:
    """Return the array whose memory a view looks at."""
    while isinstance(host.base, np.ndarray):
        host = host.base
    return host


def _hold(host: np.ndarray, pool: MemoryPool) -> None:
    owner = owner_of(host)
    allocation = _allocations.get(id(owner))
    if allocation is None:
        allocation = _allocations[id(owner)] = _Allocation(owner, pool)
    allocation.holders += 1


def _release(host: np.ndarray) -> None:
    key = id(owner_of(host))
    allocation = _allocations[key]
    allocation.holders -= 1
    if not allocation.holders:
        del _allocations[key]
        allocation.free()


def note_use(addresses: Sequence[int]) -> None:
    """Keep in mind what memory is used by the capture that is going on."""
    used = device.recording().__dict__.setdefault("_used", set())
    for allocation in list(_allocations.values()):
        if any(map(allocation.holds, addresses)):
            used.add(allocation)


def check_use(recording: Any) -> None:
    """Raise if memory that a capture used could hold something else by now."""
    for allocation in recording.__dict__.get("_used", ()):
        allocation.check(recording)


def _count_arrays() -> None:
    make = device.DeviceArray.__init__

    def counted(self: Any, host: np.ndarray) -> None:
        _hold(host, _thread.pool or _default_pool)
        make(self, host)

    def gone(self: Any) -> None:
        host = getattr(self, "_host", None)
        if host is not None:  # else there was no memory to make it
            _release(host)

    device.DeviceArray.__init__ = counted
    device.DeviceArray.__del__ = gone


def _watch_captures() -> None:
    record = device.recordings.record

    def watched(redo: Callable[[], object], written: Sequence[np.ndarray]) -> None:
        if device.is_recording():
            note_use([a.__array_interface__["data"][0] for a in written])
        record(redo, written)

    device.recordings.record = watched


_count_arrays()
_watch_captures()
