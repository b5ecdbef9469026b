"""Who does what until when, and what becomes of it.

The parts are measured in a process of their own, so that one that hangs, or loses the GPU, costs no
more than itself: at the end of its time that process is ended, and the next part gets a new one.
What a part has measured is handed over as it goes, and kept at once.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# A part hears that its time is over so many seconds, or such a share of its time, before it is
# ended: it is to end what it is at by itself.
GRACE_SECONDS, GRACE_SHARE = 5.0, 0.15
# With less time than this a part does not begin.
LEAST_SECONDS = 2.0
# How long a process that was ended is waited for: one that the driver holds may not go.
LONGEST_END = 5.0

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")

RUNNING = {"state": "interrupted", "message": "the program was ended from outside"}
"""The state of a part as long as it runs: what the record says if nobody can write it any more."""


class Interrupted(Exception):
    """The program is to end; the text is the name of the signal that says so."""


class Unavailable(Exception):
    """The process that measures cannot begin; the text says why, in a line."""


class Log:
    """What is printed, and written to a file as soon as there is one."""

    def __init__(self) -> None:
        self._file: IO[str] | None = None
        self._held: list[str] = []
        self._lock = threading.Lock()

    def open(self, path: Path) -> None:
        """Write to `path` what was said and what will be said."""
        with self._lock:
            self._file = path.open("w", encoding="utf-8")
            held, self._held = self._held, []
        for text in held:
            self.say(text)

    def close(self) -> None:
        """Say no more."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def say(self, text: str) -> None:
        """Print a text, and write it."""
        with self._lock:
            if self._file is None:
                self._held.append(text)
            elif not self._file.closed:
                with contextlib.suppress(BrokenPipeError):  # who reads is gone; the file goes on
                    print(text, flush=True)
                self._file.write(text + "\n")
                self._file.flush()

    def last(self) -> str:
        """Return the last line that was said before there was a file."""
        return next((text.strip() for text in reversed(self._held) if text.strip()), "")


class Worker:
    """A process that measures, and what it says."""

    def __init__(
        self, command: Sequence[str], messages: queue.SimpleQueue[tuple[Any, Any]], log: Log
    ) -> None:
        self._messages, self._log = messages, log
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # a group that can be ended whole, and that Ctrl-C spares
        )
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._hear, self._hear_log)
        ]
        for thread in self._threads:
            thread.start()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._messages.put((self, json.loads(line)))
        self._threads[1].join()  # what it said last comes first
        self._messages.put((self, {"gone": self._process.wait()}))

    def _hear_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._log.say("  " + line.decode(errors="replace").rstrip())

    def ask(self, request: Mapping[str, Any]) -> None:
        """Hand a request over; a process that is gone says so by itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """End the process with all that it has begun."""
        with contextlib.suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        try:
            self._process.wait(LONGEST_END)
        except subprocess.TimeoutExpired:
            return
        for thread in self._threads:
            thread.join(LONGEST_END)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def timetable(shares: Mapping[str, float], seconds: float) -> dict[str, float]:
    """Return when each part has to have ended, in seconds from the start.

    So what a part leaves over goes to the next.
    """
    total, so_far, ends = sum(shares.values()), 0.0, {}
    for name, share in shares.items():
        so_far += share
        ends[name] = seconds * so_far / total if math.isfinite(seconds) else math.inf
    return ends


class Plan:
    """Parts that are done one after another.

    Parameters
    ----------
    command : sequence of str
        Starts a process that measures, such as `bench.gpu.worker`.
    sizes : mapping
        What it is told first.
    log : Log
    """

    def __init__(self, command: Sequence[str], sizes: Mapping[str, Any], log: Log) -> None:
        self._command, self._sizes, self._log = command, sizes, log
        self._messages: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._worker: Worker | None = None

    @contextmanager
    def heeding_signals(self) -> Iterator[None]:
        """End by `Interrupted` at a signal, but never in the middle of something."""
        before = {}
        for name in SIGNALS:
            if (number := getattr(signal, name, None)) is not None:
                before[number] = signal.signal(
                    number, lambda number, _: self._messages.put((None, {"signal": number}))
                )
        try:
            yield
        finally:
            self._end_worker()
            for number, handler in before.items():
                signal.signal(number, handler)

    def begin(self, ends_at: float) -> dict[str, Any]:
        """Start a process, and return what it says of the device.

        Raises
        ------
        Unavailable
            If it cannot begin; the text says why.
        Interrupted
        """
        self._worker = Worker(self._command, self._messages, self._log)
        self._worker.ask(self._sizes)
        answer = self._wait(ends_at)
        if "device" in answer:
            device: dict[str, Any] = answer["device"]
            return device
        self._end_worker()
        if "gone" in answer:
            text = f"the process that measures ended at its start ({_status(answer['gone'])})"
            said = self._log.last()
            raise Unavailable(f"{text}: {said}" if said else text)
        raise Unavailable(answer.get("unavailable", "the GPU did not answer in its time"))

    def do(self, name: str, part: dict[str, Any], ends_at: float, keep: Callable[[], None]) -> None:
        """Do a part until `ends_at`, a time on `time.monotonic`; `part` is what becomes of it.

        Raises
        ------
        Interrupted
        """
        start = time.monotonic()
        seconds = ends_at - start
        part |= {**RUNNING, "results": {}, "problems": [], "seconds": 0.0}
        try:
            if seconds < LEAST_SECONDS:
                part |= {"state": "not begun", "message": "no time was left"}
                return
            self._say(name, seconds)
            if self._worker is None:
                self.begin(ends_at)
            self._follow(name, part, ends_at, seconds, keep)
        except Unavailable as error:
            part |= {"state": "failed", "message": str(error)}
        except Interrupted as error:
            part |= {"state": "interrupted", "message": str(error)}
            raise
        finally:
            part["seconds"] = round(time.monotonic() - start, 1)
            keep()

    def _say(self, name: str, seconds: float) -> None:
        within = f" (within {seconds:.0f} s)" if math.isfinite(seconds) else ""
        self._log.say(f"\n== {name}{within}")

    def _follow(
        self,
        name: str,
        part: dict[str, Any],
        ends_at: float,
        seconds: float,
        keep: Callable[[], None],
    ) -> None:
        assert self._worker is not None
        grace = min(GRACE_SECONDS, GRACE_SHARE * seconds)
        left = ends_at - grace - time.monotonic()
        self._worker.ask({"part": name, "seconds": left if math.isfinite(left) else None})
        while True:
            answer = self._wait(ends_at)
            if "late" in answer:
                text = f"it did not stop within its {seconds:.0f} s, and was ended"
                part |= {"state": "interrupted", "message": text}
            elif "gone" in answer:
                text = f"its process ended by itself ({_status(answer['gone'])})"
                part |= {"state": "failed", "message": text}
            else:
                part |= answer
                if "state" not in answer:
                    keep()
                    continue
            if "state" not in answer:
                self._end_worker()
            return

    def _wait(self, ends_at: float) -> dict[str, Any]:
        while True:
            left = ends_at - time.monotonic()
            try:
                timeout = max(0.0, left) if math.isfinite(left) else None
                source, answer = self._messages.get(timeout=timeout)
            except queue.Empty:
                return {"late": True}
            if source is None:
                raise Interrupted(signal.Signals(answer["signal"]).name)
            if source is self._worker:
                return dict(answer)

    def renew(self) -> None:
        """Let the next part begin in a new process."""
        self._end_worker()

    def _end_worker(self) -> None:
        if self._worker is not None:
            self._worker.end()
            self._worker = None


def _status(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"
