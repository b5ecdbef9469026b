"""Work shared among the CPU's cores, with the BLAS library kept to one thread meanwhile.

NumPy's products release Python's lock, so threads that each take a part of a batch run side by
side; a BLAS that started threads of its own for each small product would only get in their way.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeAlias

from xpdl.errors import ArgumentError

Part: TypeAlias = tuple[int, int]


def thread_count() -> int:
    """Return how many threads share the work: ``XPDL_THREADS``, else the cores we may use."""
    text = os.environ.get("XPDL_THREADS")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ArgumentError(f"XPDL_THREADS must be a number of at least 1, got {text!r}.")
        return int(text)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class SingleThreadedBlas:
    """Keeps BLAS to one thread as long as anyone is inside; the last one out restores it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._controller: Any = None
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                if self._controller is None:
                    # Looking for the loaded libraries takes milliseconds: once is enough.
                    from threadpoolctl import ThreadpoolController

                    self._controller = ThreadpoolController().select(user_api="blas")
                _take_control()
                self._limit = self._controller.limit(limits=1)
                self._limit.__enter__()
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _take_control()
                self._limit.__exit__(None, None, None)


def _take_control() -> None:
    """Let this thread set OpenBLAS's limit, whichever set it last, as threadpoolctl 3.8 wants."""
    from threadpoolctl import OpenBLASController

    clear = getattr(OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


class Workers:
    """A pool of threads that takes parts of a range of images."""

    def __init__(self) -> None:
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)  # threads do not survive a fork

    def _start(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._size = 0
        self._lock = threading.Lock()
        self._blas = SingleThreadedBlas()
        self._part = threading.local()

    def _submit(self, run: Callable[[Part], Any], parts: list[Part]) -> list[Future[Any]]:
        with self._lock:  # nobody may put a larger pool in this one's place meanwhile
            if self._pool is None or self._size < len(parts):
                if self._pool is not None:
                    self._pool.shutdown(wait=False)  # what it was given, it still finishes
                self._size = max(len(parts), thread_count())
                self._pool = ThreadPoolExecutor(self._size, thread_name_prefix="xpdl")
            return [self._pool.submit(run, part) for part in parts]

    def over(self, count: int, work: Callable[[int, int], Any]) -> list[Any]:
        """Call ``work(start, stop)`` on equal parts of range(count), one a thread, in order.

        The parts depend on the number of threads alone, so sums over the results do too. An error
        in a part is raised when all parts are done.
        """
        parts = list(_equal_parts(count, thread_count()))

        def run(part: Part) -> Any:
            self._part.inside = True
            try:
                return work(*part)
            finally:
                self._part.inside = False

        with self._blas:
            # Work within a part stays on its thread: waiting for the pool could wait for ever.
            if len(parts) == 1 or getattr(self._part, "inside", False):
                return [work(*part) for part in parts]
            futures = self._submit(run, parts)
            wait(futures)
            return [future.result() for future in futures]


def _equal_parts(count: int, parts: int) -> Iterator[tuple[int, int]]:
    parts = max(1, min(parts, count))
    for i in range(parts):
        yield count * i // parts, count * (i + 1) // parts
