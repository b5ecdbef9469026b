"""Work shared among the CPU's cores, with the BLAS library kept to one thread meanwhile.

NumPy's products and copies release Python's lock, so threads that each take a part of a batch run
side by side; a BLAS that started threads of its own for each small product would only get in their
way.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from xpdl.errors import ArgumentError

Task = TypeVar("Task")
Result = TypeVar("Result")


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


class Lock(Protocol):
    """What can be acquired and released."""

    def acquire(self) -> object: ...
    def release(self) -> object: ...


def hold_while_forking(lock: Lock) -> None:
    """Let a fork wait for whoever has `lock`, and free it in the child.

    In the child there is one thread. A lock that another one held would be held for ever, and what
    it protects left half changed.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
        )


class SingleThreadedBlas:
    """Keeps BLAS to one thread as long as anyone is inside; the last one out restores it.

    Not for order's sake alone: a BLAS thread that has had work spins for 100 ms in the hope of
    more, and takes a core from ours meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: list[Any] | None = None
        self._threads: list[int] | None = None  # before there was a limit; None where there is none
        hold_while_forking(self._lock)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_others)

    def _forget_others(self) -> None:
        """In a forked child, be told that nobody is inside; the next one out lifts the limit."""
        self._inside = 0

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                if self._libraries is None:
                    # Looking for the loaded libraries takes milliseconds: once is enough.
                    from threadpoolctl import ThreadpoolController

                    found = ThreadpoolController().select(user_api="blas")
                    self._libraries = found.lib_controllers
                _take_control()
                if self._threads is None:
                    self._threads = [library.get_num_threads() for library in self._libraries]
                for library in self._libraries:
                    library.set_num_threads(1)
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                _take_control()
                assert self._libraries is not None
                assert self._threads is not None
                for library, threads in zip(self._libraries, self._threads, strict=True):
                    library.set_num_threads(threads)
                self._threads = None


def _take_control() -> None:
    """Let this thread set OpenBLAS's limit, whichever set it last, as threadpoolctl 3.8 wants."""
    from threadpoolctl import OpenBLASController

    clear = getattr(OpenBLASController, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)


class _Job(Generic[Task]):
    """Tasks that threads take from, one at a time, until none is left.

    Thread k of n begins with the k-th part of them, and helps with the last of another's when it
    has no more of its own. So the same thread gets the same images from layer to layer, and finds
    them in its own core's cache.
    """

    def __init__(
        self,
        work: Callable[[Task], Any],
        tasks: Sequence[Task],
        threads: int,
    ) -> None:
        self._work, self._tasks = work, tasks
        self._warnings = np.geterr()  # of the caller; a helper has its own
        self.results: list[Any] = [None] * len(tasks)
        self.errors: dict[int, BaseException] = {}
        bounds = [len(tasks) * k // threads for k in range(threads + 1)]
        self._left = [deque(range(a, b)) for a, b in itertools.pairwise(bounds)]
        # One step of the interpreter, so two threads never get the same number.
        self._ended = itertools.count(1).__next__
        self._done = threading.Lock()
        self._done.acquire()

    def _next(self, thread: int) -> int | None:
        """Return a task that nobody has begun, or None if there is none."""
        for k in range(len(self._left)):
            part = self._left[(thread + k) % len(self._left)]
            try:
                return part.popleft() if k == 0 else part.pop()
            except IndexError:  # nothing left there
                continue
        return None

    def help(self, thread: int) -> None:
        """Do as `run`, in a thread that is not the caller's."""
        with np.errstate(**self._warnings):
            self.run(thread)

    def run(self, thread: int) -> None:
        """Do tasks, those of `thread` first, until none is left."""
        while (i := self._next(thread)) is not None:
            try:
                if not self.errors:  # after an error, nothing new is begun
                    self.results[i] = self._work(self._tasks[i])
            except BaseException as error:  # raised where the job was given, by `wait`
                self.errors[i] = error
            finally:
                if self._ended() == len(self._tasks):
                    self._done.release()

    def wait(self) -> list[Any]:
        """Return the results once every task has ended, or raise the first task's error."""
        try:
            self._done.acquire()
        except BaseException as error:  # Ctrl-C: what runs must end before the caller goes on
            self.errors[len(self._tasks)] = error
            self._done.acquire()
        if self.errors:
            raise self.errors[min(self.errors)]
        return self.results


class Apart:
    """Keeps helpers off the core of the thread that calls them, where the system allows (Linux).

    On a virtual machine, Linux takes a core that sleeps for one that is not to be had, and wakes a
    thread on the core of the one that woke it; the two then share it, for seconds, while the other
    core has nothing to do.
    """

    def __init__(self) -> None:
        self._helpers: list[int] = []  # as the system numbers threads
        self._current_core: Callable[[], int] | None = None
        self._last: int | None = None
        if hasattr(os, "sched_setaffinity"):
            self._current_core = getattr(ctypes.CDLL(None), "sched_getcpu", None)

    def add(self, helper: threading.Thread) -> None:
        """Take a thread that has been started into account."""
        if helper.native_id is not None:
            self._helpers.append(helper.native_id)
            self._last = None

    def keep(self) -> None:
        """Let helpers run on all cores that the caller may use, but the one it is on."""
        if self._current_core is None:
            return
        core = self._current_core()
        if core == self._last:
            return
        self._last = core
        others = os.sched_getaffinity(0) - {core}
        if others:
            for helper in self._helpers:
                with contextlib.suppress(OSError):  # forbidden here: then it stays as it was
                    os.sched_setaffinity(helper, others)


class Workers:
    """Threads that help the one that calls: whoever is free takes a task.

    So a core that is slow for a moment, or a thread that is late to wake, holds nobody up.
    """

    def __init__(self) -> None:
        self._start()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start)  # threads do not survive a fork

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[SimpleQueue[_Job[Any]]] = []  # one for each thread of ours
        self._apart = Apart()
        self._own = threading.local()

    def _help(self, jobs: SimpleQueue[_Job[Any]], thread: int) -> None:
        self._own.inside = True
        while True:
            job = jobs.get()
            job.help(thread)
            del job  # and what it holds

    def _call_helpers(self, job: _Job[Any], count: int) -> None:
        with self._lock:
            for thread in range(len(self._jobs) + 1, count + 1):
                self._jobs.append(SimpleQueue())
                helper = threading.Thread(
                    target=self._help,
                    args=(self._jobs[-1], thread),
                    name=f"xpdl-{thread}",
                    daemon=True,
                )
                helper.start()
                self._apart.add(helper)
            self._apart.keep()
        for jobs in self._jobs[:count]:
            jobs.put(job)

    def each(self, tasks: Sequence[Task], work: Callable[[Task], Result]) -> list[Result]:
        """Return ``[work(task) for task in tasks]``, with the work shared among the threads.

        Which thread does which task is left to chance; let no result depend on it. If a task
        raises, the tasks under way end, no other is begun, and the error is raised here.
        """
        helpers = min(thread_count(), len(tasks)) - 1 if len(tasks) > 1 else 0
        # Work within a task stays on its thread: waiting for helpers could wait for ever.
        if helpers < 1 or getattr(self._own, "inside", False):
            return [work(task) for task in tasks]
        job = _Job(work, tasks, helpers + 1)
        self._call_helpers(job, helpers)
        self._own.inside = True
        try:
            job.run(0)
        finally:
            self._own.inside = False
        return job.wait()


workers = Workers()
single_threaded_blas = SingleThreadedBlas()
