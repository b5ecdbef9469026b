"""The part ``suite``: the tests that are marked ``gpu``.

Several processes run them, a file each at a time. A test that takes too long, or takes its process
with it, is one that failed; the rest of its file goes on in a new process.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.gpu.session import ROOT, LeftOut, Notes, Session

NEEDED = ("pytest", "hypothesis")
# The plugin that tells of each test, and the variable that says how long one may take.
PLUGIN, TEST_SECONDS = "bench.gpu.suite_plugin", "BENCH_TEST_SECONDS"
# How a line of that plugin begins.
MARK = "::test::"
# The record is written whenever so much has come together.
KEEP_SECONDS = 1.0


@dataclass
class File:
    """Tests of a file that are still to be run."""

    path: str
    done: list[str] = field(default_factory=list)


class Suite:
    """The tests, as they are run by a number of processes."""

    def __init__(self, files: list[str], processes: int, seconds: float) -> None:
        self._files = deque(File(path) for path in files)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._stopped = False
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._said: list[str] = []  # why tests failed
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(processes)]

    def run(self) -> Iterator[None]:
        """Run all, and come back every now and then meanwhile."""
        try:
            for thread in self._threads:
                thread.start()
            while any(thread.is_alive() for thread in self._threads):
                for thread in self._threads:
                    thread.join(KEEP_SECONDS / len(self._threads))
                yield
        finally:
            self._stop()

    def left(self) -> list[str]:
        """Return the files that nobody has begun."""
        with self._lock:
            return [file.path for file in self._files]

    def take_said(self) -> list[str]:
        """Return what was said of failures since this was asked last."""
        with self._lock:
            said, self._said = self._said, []
            return said

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            process.kill()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._stopped or not self._files:
                    return
                file = self._files.popleft()
            self._run(file)

    def _run(self, file: File) -> None:
        command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--tb=short", "--no-summary"]
        command += [
            "--color=no",
            "-p",
            PLUGIN,
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            file.path,
        ]
        command += [word for test in file.done for word in ("--deselect", test)]
        with self._lock:
            if self._stopped:
                return
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=os.environ | {TEST_SECONDS: str(self._seconds), "PYTHONPATH": _path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            self._running.add(process)
        said: list[str] = []  # since a test began or ended
        running = None
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(MARK):
                _, what, test = line.rstrip().split(maxsplit=2)
                running = test if what == "begun" else None
                self._note(file, what, test, said)
                said = []
            elif line.strip():
                said.append(line.rstrip())
        process.stdout.close()
        process.wait()
        with self._lock:
            self._running.discard(process)
            if not self._stopped:
                self._judge(file, process.returncode, running, said)

    def _note(self, file: File, what: str, test: str, said: list[str]) -> None:
        """Count what became of a test."""
        if what == "begun":
            return
        with self._lock:
            file.done.append(test)
            self.counts[what] += 1
            if what in ("failed", "error"):
                self.failures.append(test)
                self._said += ["", test, *said]

    def _judge(self, file: File, status: int, running: str | None, said: list[str]) -> None:
        """See how a process ended, and which test it was at.

        0 is good, and so is 5, where none was for a GPU; at 1 tests failed, which was told.
        """
        if status in (0, 1, 5) and running is None:
            return
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        text = f"{running or file.path}: its process ended ({how})"
        self.counts["ended"] += 1
        self.failures.append(text)
        self._said += ["", text, *said]
        if running is not None:
            file.done.append(running)
            self._files.append(file)


def _path() -> str:
    """Return where modules are looked for: tests start programs elsewhere, too."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


def suite(session: Session, notes: Notes) -> None:
    """Run the tests that need a GPU, on several processes, and show what they say."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise LeftOut(f"the tests need {' and '.join(missing)}: pip install {' '.join(missing)}")
    session.free()
    files = sorted(str(path.relative_to(ROOT)) for path in _files_for_a_gpu(ROOT / "tests"))
    processes = min(session.sizes.processes, os.cpu_count() or 1)
    running = Suite(files, processes, session.sizes.test_seconds)
    notes.results |= {"files": len(files), "command": "python -m pytest -m gpu"}
    start = time.monotonic()
    try:
        for _ in running.run():
            _tell(running, notes.results, start)
            notes.keep()
    finally:
        _tell(running, notes.results, start)
    if running.failures:
        notes.problems.append(f"{len(running.failures)} tests failed")


# Tests that are for a GPU, too, say so or ask for a backend; a file without either is not begun.
FOR_A_GPU = re.compile(r"""def \w+\([^)]*\bbackend\b|usefixtures\("backend"|mark\.gpu""")


def _files_for_a_gpu(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("test_*.py"):
        if FOR_A_GPU.search(path.read_text(encoding="utf-8")):
            yield path


def _tell(running: Suite, results: dict[str, Any], start: float) -> None:
    for text in running.take_said():
        print(text, flush=True)
    results |= {"passed": 0, "failed": 0, "skipped": 0} | dict(running.counts)
    results["failures"] = running.failures[:50]
    results["files_left"] = running.left()
    results["seconds"] = round(time.monotonic() - start, 1)
