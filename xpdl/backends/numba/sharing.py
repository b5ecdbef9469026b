"""A batch in parts, which threads take until none is left, without Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numba.core.compiler_lock import global_compiler_lock

from xpdl.backends.base.types import Array
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.vectors import look, ring, take
from xpdl.backends.numpy.threads import hold_while_forking, thread_count, workers

TASKS = 32
"""Into how many parts a batch is cut: the same for any number of threads, so sums are the same."""

ENOUGH = 1_000_000
"""A part is worth a thread's waking if it multiplies so often, or reads so many bytes."""

SUMS_BYTES = 32 * 1024 * 1024
"""Parts that each need a sum of their own may take so much memory for them, all together."""

# A thread looks so often for new work, for some milliseconds, before it goes to sleep.
LOOKS = 100_000

Shares: TypeAlias = tuple[Array, Array, Array, int]
"""A bell, the bounds of the parts, counters, and the thread's number."""

hold_while_forking(global_compiler_lock)


def cut(count: int, cost: int) -> Array:
    """Cut range(count), each of so many multiplications or bytes, into parts of equal size."""
    parts = max(1, min(count, TASKS, count * cost // ENOUGH))
    return _bounds(count, parts)


@lru_cache(maxsize=1024)
def _bounds(count: int, parts: int) -> Array:
    return np.arange(parts + 1) * count // parts


def share(bounds: Array, work: Callable[[Shares], None], counters: int = 1) -> None:
    """Let threads call ``work(shares)`` side by side, which does all parts that are left."""
    taken = np.zeros(3 * counters, np.int64)
    parts = len(bounds) - 1
    threads = min(thread_count(), parts) if parts > 1 else 1  # to ask the system takes its time
    if threads == 1:
        work((workers.bell, bounds, taken, 0))
        return
    shares = [(workers.bell, bounds, taken, thread) for thread in range(threads)]
    workers.each(shares, work, watch)


@compiled
def watch(numbers, old):
    """Return when numbers[0] is not `old` any more, or after `LOOKS` looks."""
    for _ in range(LOOKS):
        if look(numbers) != old:
            break


@compiled
def begin(shares):
    """Ring the bell: Python's lock is free now, and another thread can come."""
    bell, _, _, _ = shares
    ring(bell)


@compiled
def next_part(shares, which):
    """Return a part that no thread has taken yet, its beginning and its end; or -1, 0, 0.

    `shares` is a bell, the bounds of the parts, a place in which to count, and the thread's number.
    Even threads take parts from the first on, odd ones from the last back, until they meet: so
    most of the images stay with one thread from layer to layer, and in its core's own cache.
    """
    _, bounds, counters, thread = shares
    count, end = len(bounds) - 1, thread % 2
    if take(counters, 3 * which) >= count:  # of all; there is a counter for each end, too
        return -1, 0, 0
    taken = take(counters, 3 * which + 1 + end)
    part = count - 1 - taken if end else taken
    return part, bounds[part], bounds[part + 1]


@compiled
def add(numbers, total):
    """Add a part's numbers to the total, one by one."""
    for j in range(len(total)):
        total[j] += numbers[j]
