"""Processes under `mpiexec`, for tests: to start, to find, to end. Not a test itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SMALL_TRAIN = HERE.parent / "small_train.py"
BEGINNING = 60.0  # seconds that a job may take until it trains, on a busy machine


def why_not() -> str:
    """Say why there can be no job here; nothing if there can."""
    try:
        import mpi4py.MPI as _  # noqa: F401
    except (ImportError, RuntimeError) as error:
        return f"no MPI: pip install '.[mpi]' ({error})"
    return "" if launcher() else "no mpiexec beside this Python"


def launcher() -> str | None:
    """Return the `mpiexec` of this environment, else that of the path."""
    return shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")


def mpiexec() -> list[str]:
    """Return the launcher, as it starts more processes than there are cores."""
    more = ["--oversubscribe", "--bind-to", "none"]
    if os.getuid() == 0:
        more.append("--allow-run-as-root")
    return [launcher() or "mpiexec", *more]


class Job:
    """A program of Python on several processes; within a block, and gone after it."""

    def __init__(self, size: int, *arguments: Any, **variables: str) -> None:
        command = [*mpiexec(), "-n", str(size), sys.executable]
        environment = {"XPDL_THREADS": "1", "PYTHONPATH": str(HERE.parent), **os.environ}
        self.process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment | variables,
        )

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [self.process.pid, *self.ranks().values()]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def end(self, timeout: float = 120.0) -> tuple[int, str, str]:
        """Return the exit code, and what was printed, of a job that ends by itself."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def ranks(self) -> dict[int, int]:
        """Return the process of each rank."""
        found = {}
        for place in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
                told = (place / "environ").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue
            rank = [v for v in told if v.startswith(b"OMPI_COMM_WORLD_RANK=")]
            if parent == self.process.pid and rank:
                found[int(rank[0].partition(b"=")[2])] = int(place.name)
        return found

    def wait_for(self, path: Path) -> None:
        """Return when a file is there."""
        end = time.monotonic() + BEGINNING
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, f"{path} did not come"
            time.sleep(0.02)


def run(size: int, *arguments: Any, **variables: str) -> tuple[int, str, str]:
    """Return the exit code of a job, and what it printed."""
    with Job(size, *arguments, **variables) as job:
        return job.end()


def ours(err: str) -> Sequence[str]:
    """Return the lines of standard error that are by xpdl, not by the launcher."""
    return [line for line in err.splitlines() if line.startswith("xpdl ")]
