"""Timing in turns, and what a figure needs beside it: spread, ratio, machine and versions."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import platform
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

import xpdl
from xpdl.backends.numpy.threads import thread_count

Run = Callable[[], object]

# Threads of one program may spin for 100 ms and more in the hope of work; the next program must
# not have to share its cores with them.
PAUSE = 0.15


def in_turns(
    programs: Mapping[str, Run],
    rounds: int,
    repeats: int = 3,
    warm_up: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds that each program takes, `rounds` times `repeats` runs, A B A B.

    Each turn begins with a pause and a run that is not counted.
    """
    for run in programs.values():
        for _ in range(warm_up):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, run in programs.items():
                time.sleep(PAUSE)
                run()
                for _ in range(repeats):
                    start = clock()
                    run()
                    seconds[name].append(clock() - start)
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the median and the spread, in milliseconds."""
    low, high = np.percentile(np.array(seconds) * 1000, [10, 90])
    return {
        "median_ms": round(1000 * statistics.median(seconds), 3),
        "from_ms": round(float(low), 3),
        "to_ms": round(float(high), 3),
        "least_ms": round(1000 * min(seconds), 3),
        "runs": len(seconds),
    }


def compare(measured: Mapping[str, list[float]], ours: str) -> dict[str, dict[str, float]]:
    """Return the summary of each program, with the share of its median that ours takes."""
    own = statistics.median(measured[ours])
    return {
        name: summary(seconds) | {"ours_takes": round(own / statistics.median(seconds), 3)}
        for name, seconds in measured.items()
    }


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print a comparison."""
    print(title)
    width = max(map(len, rows))
    for name, row in rows.items():
        spread = f"(10 % to 90 %: {row['from_ms']:.1f} to {row['to_ms']:.1f})"
        print(
            f"  {name:<{width}} {row['median_ms']:9.1f} ms  {spread:<36} "
            f"ours takes {row['ours_takes']:.2f} of it"
        )


def machine() -> dict[str, Any]:
    """Return what the figures were measured on, and with what."""
    packages = {}
    for name in ("numpy", "numba", "torch", "cupy-cuda12x", "cupy-cuda13x"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    settings = ("OPENBLAS_", "OMP_", "MKL_", "XPDL_", "MALLOC_")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "threads": thread_count(),
        "memory_gib": round(_memory() / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "xpdl": xpdl.__version__,
        "packages": packages,
        "blas": [
            {key: library.get(key) for key in ("internal_api", "version", "architecture")}
            for library in threadpool_info()
            if library["user_api"] == "blas"
        ],
        "environment": {
            name: value for name, value in os.environ.items() if name.startswith(settings)
        },
    }


def said_by(*command: str) -> str | None:
    """Return the first line of what a program prints; None without it."""
    if shutil.which(command[0]) is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command,
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return next(iter(done.stdout.splitlines()), None)
    return None


def _processor() -> str:
    try:
        return processor_name(Path("/proc/cpuinfo").read_text())
    except OSError:
        return processor_name("")  # another system than Linux


def processor_name(cpuinfo: str) -> str:
    """Return the name of the first processor in the text of Linux's /proc/cpuinfo.

    With its family and model where they are told: clouds call several generations by one name.
    """
    lines = cpuinfo.partition("\n\n")[0].splitlines()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = told.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in told:
        name += f", family {told['cpu family']}, model {told['model']}"
    return name


def _memory() -> int:
    if hasattr(os, "sysconf"):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def command_line() -> str:
    """Return the command that measures, but for where its results go."""
    words = sys.argv[1:]
    for i in reversed(range(len(words))):
        if words[i] == "--out":
            del words[i : i + 2]
        elif words[i].startswith("--out="):
            del words[i]
    return shlex.join(["python", "-m", "bench", *words])


def record(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, with the command, the time and the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "command": command_line(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    path.write_text(json.dumps(about | dict(results), indent=1) + "\n")
    print(f"  {path}")
