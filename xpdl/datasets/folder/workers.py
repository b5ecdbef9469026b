"""Worker processes that share a folder's pictures among them.

They are of a program of ours, `xpdl.datasets.folder.worker`, fed through pipes: unlike those of
`multiprocessing` they never run the user's script anew, on no system. One that a picture brings
down is replaced, and the picture is said to be broken.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from xpdl.datasets.folder.worker import do_task
from xpdl.errors import DataError, FileAccessError

Advance = Callable[[int], object]

FEWEST = 256
"""Fewer pictures than this are read here, before a worker process would have begun."""

_PROGRAM = "xpdl.datasets.folder.worker"
_IN_ONE_LINE = 16  # pictures; two lines at most wait in a pipe, which holds 4 KB at the least


def share_out(
    task: dict[str, Any], paths: Sequence[str], workers: int, advance: Advance
) -> list[dict[str, Any]]:
    """Return what `do_task` does for each path, whose row is its place, in their order.

    Parameters
    ----------
    task : dict
        What is to be done: 'pixels', a file's name or None, and 'form'.
    workers : int
        How many processes; 0 works here.
    advance : callable
        Called with how many more are done, of one thread at a time.

    Raises
    ------
    FileAccessError
        If the pixels cannot be written.
    DataError
        If no worker process can be started.
    """
    # A program that Python is embedded in has no interpreter to start.
    if workers and sys.executable and len(paths) >= FEWEST:
        return _Crew(task, paths, advance).work(workers)
    answers = []
    for row, path in enumerate(paths):
        answers.append(_checked(do_task(task, row, path)))
        advance(1)
    return answers


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "disk" in answer:
        raise FileAccessError(
            f"cannot write decoded pictures: {answer['disk']}. "
            "Set XPDL_DATA to a folder that is writable and has room."
        )
    return answer


class _Crew:
    """Threads that each feed one process, and what has come of the pictures so far."""

    def __init__(self, task: dict[str, Any], paths: Sequence[str], advance: Advance) -> None:
        self._task, self._advance = task, advance
        self._left: Iterator[tuple[int, str]] = iter(enumerate(paths))
        self._answers: list[dict[str, Any]] = [{} for _ in paths]
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[str]] = set()
        self._error: BaseException | None = None

    def work(self, workers: int) -> list[dict[str, Any]]:
        threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(workers)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)  # where Ctrl-C is heard, on every system
        except BaseException as error:
            self._give_up(error)
            raise
        if self._error is not None:
            raise self._error
        return self._answers

    def _give_up(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error
            for process in self._processes:
                process.kill()

    def _feed(self) -> None:
        try:
            self._feed_one_process()
        except BaseException as error:
            self._give_up(error)

    def _feed_one_process(self) -> None:
        waiting: deque[tuple[int, str]] = deque()
        while self._next(waiting):
            with self._process() as process:
                self._ask(process, waiting)
                if len(waiting) <= _IN_ONE_LINE:
                    self._next(waiting, process)
                while waiting or self._next(waiting, process):
                    line = _stream(process.stdout).readline()
                    if not line and self._error is not None:
                        return
                    row, _ = waiting.popleft()
                    if not line:
                        told = f"its decoder ended with code {process.wait()}"
                        self._done(row, {"broken": told})
                        break
                    self._done(row, _checked(json.loads(line)))
                    if len(waiting) == _IN_ONE_LINE:
                        self._next(waiting, process)

    def _next(
        self, waiting: deque[tuple[int, str]], process: subprocess.Popen[str] | None = None
    ) -> bool:
        """Take some more pictures, ask `process` for them, and say whether any are waiting."""
        with self._lock:
            more = deque(itertools.islice(self._left, _IN_ONE_LINE))
        waiting.extend(more)
        if process is not None and more:
            self._ask(process, more)
        return bool(waiting)

    def _ask(self, process: subprocess.Popen[str], pictures: deque[tuple[int, str]]) -> None:
        with contextlib.suppress(OSError):  # of one that has ended, as its silence will show
            question = self._task | {"pictures": list(pictures)}
            _stream(process.stdin).write(json.dumps(question) + "\n")
            _stream(process.stdin).flush()

    def _done(self, row: int, answer: dict[str, Any]) -> None:
        with self._lock:
            self._answers[row] = answer
            self._advance(1)

    @contextlib.contextmanager
    def _process(self) -> Iterator[subprocess.Popen[str]]:
        """Start a worker process, for as long as a block lasts."""
        with tempfile.TemporaryFile("w+") as complaints:
            process = _start(complaints)
            try:
                with self._lock:
                    self._processes.add(process)
                if _stream(process.stdout).readline() != "ready\n" and self._error is None:
                    complaints.seek(0)
                    lines = complaints.read().strip().splitlines() or ["it says nothing"]
                    raise DataError(
                        f"a worker process cannot be started: {lines[-1]}. "
                        "Give workers=0 to read the pictures without any."
                    )
                yield process
            finally:
                with self._lock:
                    self._processes.discard(process)
                with contextlib.suppress(OSError):
                    _stream(process.stdin).close()  # at which it ends
                process.kill()
                _stream(process.stdout).close()
                process.wait()


def _start(complaints: IO[str]) -> subprocess.Popen[str]:
    # The same modules as here, and none that happen to lie in the current folder (-P).
    program = [sys.executable, "-P", "-X", f"utf8={sys.flags.utf8_mode}"]
    return subprocess.Popen(
        [*program, "-m", _PROGRAM],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
    )


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream
