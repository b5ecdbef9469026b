"""A batch in parts, which threads take until none is left, without Python's lock."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numba.core.compiler_lock import global_compiler_lock

from xpdl.backends.base.types import Array
from xpdl.backends.numba.cache import compiled
from xpdl.backends.numba.threads import Helpers, count
from xpdl.backends.numpy.memory import scratch
from xpdl.backends.numpy.threads import hold_while_forking, thread_count

TASKS = 32
"""Into how many parts a batch is cut: the same for any number of threads, so sums are the same."""

ENOUGH = 500_000
"""A part is worth a thread's waking if it multiplies so often, or reads so many bytes."""

SUMS_BYTES = 32 * 1024 * 1024
"""Parts that each need a sum of their own may take so much memory for them, all together."""

helpers = Helpers()
_SINGLE = np.dtype(np.float32)

hold_while_forking(global_compiler_lock)


def cut(count: int, cost: int) -> Array:
    """Cut range(count), each of so many multiplications or bytes, into parts of equal size."""
    parts = max(1, min(count, TASKS, count * cost // ENOUGH))
    return _bounds(count, parts)


@lru_cache(maxsize=1024)
def _bounds(count: int, parts: int) -> Array:
    return np.arange(parts + 1) * count // parts


def share(bounds: Array, kernel: Any, *arguments: Any, **rooms: int) -> None:
    """Let threads run a kernel side by side, which does parts until none is left.

    Parameters
    ----------
    bounds : array of int
        Of the parts, see `cut`.
    kernel : function
        One that is `shared`. As written, it has `shares` for its last argument, for `next_part`.
    *arguments
        For the kernel. They and what they point to must not change meanwhile.
    **rooms : int
        Each becomes one more argument: room for so many float32 for each thread, (threads, size),
        whatever they may be.

    Raises
    ------
    MemoryError
        If a thread finds none for what the kernel makes.
    """
    parts = len(bounds) - 1
    threads = min(thread_count(), parts) if parts > 1 else 1  # to ask the system takes its time
    if threads > 1:
        helpers.come(threads - 1)
    room = [scratch(name, (threads, size), _SINGLE) for name, size in rooms.items()]
    taken = np.zeros(3, np.int64)
    if kernel(helpers.board, threads, bounds, taken, *arguments, *room):
        raise MemoryError("a loop of the backend 'numba' found no memory for its sums.")


@compiled
def next_part(shares):
    """Return a part that no thread has taken yet, its beginning and its end; or -1, 0, 0.

    `shares` is the bounds of the parts, counters of those taken, and the thread's number.
    Even threads take parts from the first on, odd ones from the last back, until they meet: so
    most of the images stay with one thread from layer to layer, and in its core's own cache.
    """
    bounds, counters, thread = shares
    parts, end = len(bounds) - 1, thread % 2
    if count(counters, 0, 1) >= parts:  # of all; there is a counter for each end, too
        return -1, 0, 0
    taken = count(counters, 1 + end, 1)
    part = parts - 1 - taken if end else taken
    return part, bounds[part], bounds[part + 1]


@compiled
def add(numbers, total):
    """Add a part's numbers to the total, one by one."""
    for j in range(len(total)):
        total[j] += numbers[j]
