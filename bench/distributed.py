"""Several processes beside one, and what a model of a step says of up to 1,000."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench import charts, step_model
from bench.measure import record
from bench.step_model import Link, Work
from xpdl.errors import RanksError

# processes, threads of each, rows of the batch
CONFIGURATIONS = {
    "1 process of 1 thread": (1, 1, 100),
    "1 process of 2 threads": (1, 2, 100),
    "2 processes of 1 thread": (2, 1, 100),
    "4 processes of 1 thread": (4, 1, 100),
    # To fit what a row costs, and to check the model where it was not fitted.
    "1 process, 50 rows": (1, 1, 50),
    "1 process, 200 rows": (1, 1, 200),
    "2 processes, 200 rows": (2, 1, 200),
}
CHECKED = "2 processes, 200 rows"
PIECES = (2**16, 2**18, 2**20, 2**22)
# The short form: against one process, and against two that compute as much and tell nothing.
SEPARATE = "2 processes that do not speak"
SCALING = ("1 process of 1 thread", "1 process of 2 threads", "2 processes of 1 thread")


def add_options(
    parser: argparse.ArgumentParser, count: Callable[[str], int], results: Path
) -> None:
    """Add what the command takes."""
    parser.set_defaults(run=run)
    add = parser.add_argument
    add("--backend", default="numba")
    add("--network", default="deep", help="(default: deep: DeepConvNet)")
    add("--rounds", type=count, default=5, metavar="N", help="turns of each configuration")
    add("--steps", type=count, default=20, metavar="N", help="in a turn (default: 20)")
    add("--pieces", action="store_true", help="measure the size of a piece, too")
    add("--scaling", action="store_true", help="measure two processes beside one, and no more")
    add("--plan", action="store_true", help="measure nothing; draw what the model plans")
    add("--out", type=Path, default=results, help="folder (default: bench/results)")


def run(options: argparse.Namespace) -> None:
    """Measure, fit, check, plan; print, record and draw."""
    if options.scaling:
        path = options.out / f"distributed-scaling-{options.backend}.json"
        record(path, {"title": "two processes beside one"} | scaling(options))
        return
    results: dict[str, Any] = {"title": "several processes", "ranks": step_model.RANKS}
    if not options.plan:
        results |= measured(options)
    results["plan"] = step_model.plan()
    results["points"] = step_model.POINTS
    results["simulation"] = {
        f"{name}, {link.name}": step_model.check(work, rows, link)
        for name, (work, rows) in step_model.PLANNED.items()
        for link in (step_model.ETHERNET, step_model.NVLINK)
    }
    off = [
        abs(row["simulated"] / row["formula"] - 1)
        for rows in results["simulation"].values()
        for row in rows
    ]
    print(f"  the formula is within {100 * max(off):.1f} % of the simulation, ring and tree")
    for name, speed_ups in results["plan"].items():
        told = ", ".join(f"{n}: {speed_ups[step_model.RANKS.index(n)]:.0f}" for n in (100, 1000))
        print(f"  {name}: {told} times")
    path = options.out / ("distributed-plan" if options.plan else f"distributed-{options.backend}")
    record(path.with_suffix(".json"), results)
    charts.speed_ups(path.with_suffix(".png"), results)


def scaling(options: argparse.Namespace) -> dict[str, Any]:
    """Return what two processes take beside one, turn by turn, and why it is not half."""
    names = [*SCALING, SEPARATE]
    times: dict[str, list[float]] = {name: [] for name in names}
    pings: list[dict[str, dict[str, float]]] = []
    for turn in range(options.rounds):
        for name in names if turn % 2 else reversed(names):
            processes, threads, rows = CONFIGURATIONS.get(name, (2, 1, 100))
            told = _start(options, processes, threads, rows, separate=name == SEPARATE)
            times[name].append(statistics.median(told["seconds"]))
            if name == SCALING[-1]:
                pings.append(told["pings"])
    _show_times(times)
    for nbytes in pings[0]["float32"]:
        each = [
            1e6 * statistics.median(ping[dtype][nbytes] for ping in pings) for dtype in pings[0]
        ]
        print(f"  a sum of {nbytes} bytes: {each[0]:.0f} us, in half as many {each[1]:.0f} us")
    one, threads_of_one, two = SCALING
    ratios = {
        "two processes against one of one thread": _ratios(times, one, two),
        "two processes' time against one process's of two threads": _ratios(
            times, two, threads_of_one
        ),
        "two that do not speak against one of one thread": _ratios(times, one, SEPARATE),
        "two processes' time against two that do not speak": _ratios(times, two, SEPARATE),
    }
    for name, each in ratios.items():
        print(f"  {name}: {statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})")
    return {"seconds": times, "ratios": ratios, "pings": pings}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Return the times of each configuration, in turns, and what they say of the model."""
    times: dict[str, list[float]] = {name: [] for name in CONFIGURATIONS}
    pings: dict[int, list[float]] = {}
    size = 0
    for _ in range(options.rounds):
        for name, configuration in CONFIGURATIONS.items():
            told = _start(options, *configuration)
            times[name].append(statistics.median(told["seconds"]))
            size = told["size"]
            if name == "2 processes of 1 thread":
                for nbytes, seconds in told["pings"]["float32"].items():
                    pings.setdefault(int(nbytes), []).append(seconds)
    medians = _show_times(times)
    one, threads_of_one, two = SCALING
    ratios = {
        name: round(statistics.median(each), 3)
        for name, each in (
            ("two processes against one of one thread", _ratios(times, one, two)),
            (
                "two processes' time against one process's of two threads",
                _ratios(times, two, threads_of_one),
            ),
        )
    }
    for name, ratio in ratios.items():
        print(f"  {name}: {ratio:.2f}")
    work, link = _fitted(medians, {k: statistics.median(v) for k, v in pings.items()}, size)
    processes, _, rows = CONFIGURATIONS[CHECKED]
    modelled = step_model.step_time(work, rows / processes, processes, link)
    print(f"  not fitted: {CHECKED}, the model says {1000 * modelled:.1f} ms, "
          f"{modelled / medians[CHECKED]:.2f} of what was measured")  # fmt: skip
    results = {
        "seconds": times, "ratios": ratios, "pings": pings, "fitted": [vars(work), vars(link)],
        "model_of_the_checked": modelled / medians[CHECKED],
    }  # fmt: skip
    if options.pieces:
        results["pieces"] = _pieces(options)
    return results


def _show_times(times: Mapping[str, list[float]]) -> dict[str, float]:
    """Print what a step takes in each configuration; return the medians, in seconds."""
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        spread = f"{1000 * min(seconds):.1f} to {1000 * max(seconds):.1f}"
        print(f"  {name:<30} {1000 * medians[name]:7.1f} ms a step ({spread})")
    return medians


def _ratios(times: Mapping[str, list[float]], one: str, other: str) -> list[float]:
    """Return the ratio of two configurations in each turn."""
    return [a / b for a, b in zip(times[one], times[other], strict=True)]


def _fitted(
    medians: Mapping[str, float], pings: Mapping[int, float], size: int
) -> tuple[Work, Link]:
    """Return what a step computes, and what a message costs, by least squares."""
    rows = [50, 100, 200]
    alone = [medians[f"1 process{end}"] for end in (", 50 rows", " of 1 thread", ", 200 rows")]
    each, fixed = np.polyfit(rows, alone, 1)
    slope, start = np.polyfit(
        list(pings), list(pings.values()), 1, w=1 / np.array([*pings.values()])
    )
    link = Link("measured", max(float(start) / 2, 1e-7), 1 / float(slope))
    return Work("measured", float(fixed), float(each), size, spread=0.0), link


def _pieces(options: argparse.Namespace) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {piece: [] for piece in PIECES}
    for _ in range(options.rounds):
        for piece in PIECES:
            told = _start(options, 2, 1, 100, piece)
            found[piece].append(statistics.median(told["seconds"]))
    for piece, seconds in found.items():
        print(
            f"  pieces of {piece // 1024:5} KiB: {1000 * statistics.median(seconds):.2f} ms a step"
        )
    return found


def _start(
    options: argparse.Namespace,
    processes: int,
    threads: int,
    rows: int,
    piece: int = 0,
    *,
    separate: bool = False,
) -> dict[str, Any]:
    """Return what rank 0 of so many processes prints."""
    worker = ["-m", "bench.distributed_worker", options.backend, options.network]
    command = [sys.executable, *worker, str(rows), str(options.steps), str(piece)]
    command += ["separate"] if separate else []
    if processes > 1:
        launcher = shutil.which("mpiexec", path=Path(sys.executable).parent)
        launcher = launcher or shutil.which("mpiexec")
        if launcher is None:
            raise RanksError("there is no mpiexec: pip install '.[mpi]'.")
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        command = [launcher, *root, "--oversubscribe", "-n", str(processes), *command]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "XPDL_THREADS": str(threads)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode:
        raise RanksError(f"{processes} processes ended with {done.returncode}: {done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    return told
