"""Ctrl-C, a closed terminal, and what a machine sends before it goes down: all is kept."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)  # which Windows does not have
# SIGUSR1 comes from Slurm before a job's time is up, and through mpiexec, which hands it on.
_OF_UNIX = [vars(signal)[name] for name in ("SIGHUP", "SIGUSR1") if hasattr(signal, name)]
STOPPING = (signal.SIGINT, signal.SIGTERM, *_OF_UNIX)


class Stopped(KeyboardInterrupt):
    """A training was stopped by a signal, and has kept all that it came to.

    Parameters
    ----------
    number : int
        Of the signal; ``128 + number`` is the exit code that a shell knows it by.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def stopping_in_order(interrupt: Callable[[], object]) -> Iterator[None]:
    """Within a block, let the first signal to stop call `interrupt`, and a second stop at once.

    A KeyboardInterrupt that ends the block is then a `Stopped`. A signal that is ignored, as Ctrl-C
    is in a shell's background job and SIGHUP under nohup, stays so. Only the main thread can do
    this; in another one the block runs as it stands.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    terminals = _terminals()  # asked now: one that was closed is none any more

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if number == HANGUP:  # comes twice, if both the shell and the system send it
            _print_nowhere(terminals)
        elif len(received) > 1:
            raise KeyboardInterrupt
        interrupt()

    before: dict[int, Any] = {}
    try:
        for number in map(int, STOPPING):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, receive)
        yield
    except KeyboardInterrupt as error:
        raise Stopped(received[0] if received else signal.SIGINT) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminals() -> list[int]:
    """Return which of the descriptors that are printed to are terminals."""
    streams = (stream for stream in (sys.stdout, sys.stderr) if stream is not None)
    return [stream.fileno() for stream in streams if stream.isatty()]


def _print_nowhere(terminals: list[int]) -> None:
    """Let what is printed to terminals that were closed go nowhere; it would be an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for terminal in terminals:
        os.dup2(nowhere, terminal)
    os.close(nowhere)
