"""The command ``python -m bench gpu``: its options, and what is done with them."""

from __future__ import annotations

import argparse
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench import charts
from bench.gpu.parts import PARTS
from bench.gpu.plan import Interrupted, Log, Plan, Unavailable, timetable
from bench.gpu.record import as_json, make_record, source_name
from bench.gpu.session import FULL, QUICK, Sizes
from bench.gpu.tables import heading, markdown, table
from xpdl import files
from xpdl.errors import ArgumentError, BackendUnavailableError

WORKER = [sys.executable, "-m", "bench.gpu.worker"]
"""The command that starts the process that measures."""

# Of the minutes asked for, what it takes to write and print the end.
SECONDS_AT_THE_END = 3.0
# How long the process that measures may take to find the GPU where no minutes are given.
LONGEST_BEGIN = 600.0


def add_options(parser: argparse.ArgumentParser, count: Callable[[str], int], out: Path) -> None:
    """Give the command's parser its options; `count` reads a number of at least 1."""
    add = parser.add_argument
    add("--minutes", type=_minutes, metavar="M", help="do what fits into them (default: all)")
    add("--parts", type=_chosen, default=list(PARTS), metavar="LIST", help=f"of {','.join(PARTS)}")
    add("--quick", action="store_true", help="little of each: to see whether all of it runs")
    add("--rounds", type=count, metavar="N", help=f"turns of each program ({FULL.rounds})")
    add("--epochs", type=count, metavar="N", help=f"of a training ({FULL.epochs})")
    add("--seeds", type=count, metavar="N", help=f"trainings of each precision ({FULL.seeds})")
    add("--source", type=Path, metavar="FILE", help="its first line names the source (else Git)")
    add("--out", type=Path, default=out, metavar="DIR", help="(default: bench/results)")
    parser.set_defaults(run=run, against=[])
    parser.epilog = "example: python -m bench gpu --minutes 8 --out results"


def add_chart_options(parser: argparse.ArgumentParser) -> None:
    """Give the parser of the command that draws a record its options."""
    parser.add_argument("record", type=Path, help="the .json that python -m bench gpu wrote")
    parser.set_defaults(run=draw, against=[])


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return minutes


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(map(repr, unknown)) or 'nothing'} is no part; "
            f"the parts are {', '.join(PARTS)}"
        )
    return [name for name in PARTS if name in names]


def run(options: argparse.Namespace) -> int:
    """Do the parts asked for, in order of worth.

    Returns
    -------
    int
        0, or 1 if one of them failed, or 128 and a signal's number if that ended it. A part whose
        time was over has not failed.

    Raises
    ------
    BackendUnavailableError
        If there is no GPU; the message says why.
    ArgumentError
        If the environment would change what the figures' names say.
    FileAccessError
        If the file that names the source cannot be read, or the folder cannot be written.
    """
    began = time.monotonic()
    _expect_plain_environment()
    source, sizes, log = source_name(options.source), _sizes(options), Log()
    seconds = math.inf
    if options.minutes is not None:
        seconds = max(1.0, 60 * options.minutes - SECONDS_AT_THE_END)
    plan = Plan(WORKER, asdict(sizes), log)
    with plan.heeding_signals():
        try:
            device = plan.begin(began + min(seconds, LONGEST_BEGIN))
        except Unavailable as error:
            raise BackendUnavailableError(str(error)) from error
        except Interrupted as error:
            return 128 + signal.Signals[str(error)]
        record = make_record(device, asdict(sizes), source)
        record["minutes"] = options.minutes
        path = _path(options, device["device"])
        _keep(record, path)  # before anything is measured, it is known that it can be kept
        log.open(path.with_suffix(".log"))
        try:
            log.say(f"{heading(record)}\n  {path.with_suffix('.json')}")
            return _do_parts(options.parts, plan, record, path, log, began + seconds)
        finally:
            log.close()


def _do_parts(
    names: list[str], plan: Plan, record: dict[str, Any], path: Path, log: Log, ends_at: float
) -> int:
    def keep() -> None:
        _keep(record, path)

    parts, start = record["parts"], time.monotonic()
    parts |= {name: {"state": "not begun", "message": "", "results": {}} for name in names}
    keep()
    status = None
    ends = timetable({name: PARTS[name].share for name in names}, ends_at - start)
    for name in names:
        try:
            plan.do(name, parts[name], start + ends[name], keep)
        except Interrupted as error:
            status = 128 + signal.Signals[str(error)]
        log.say("\n".join(table(record, name)))
        if status is not None:
            log.say(f"\n{name}: {parts[name]['message']}; what was measured before it is kept.")
            break
        if PARTS[name].alone:
            plan.renew()
    log.say(f"\nTo send or to paste, {path.with_suffix('.md')}:\n\n{markdown(record)}")
    if status is not None:
        return status
    return int(any(part["state"] == "failed" for part in parts.values()))


def _keep(record: dict[str, Any], path: Path) -> None:
    """Write all that is known, so that whatever comes next cannot take it away."""
    files.write_json(path.with_suffix(".json"), as_json(record))
    files.write_bytes(path.with_suffix(".md"), markdown(record).encode())


def _expect_plain_environment() -> None:
    for name, plain in (("XPDL_PROVIDER", ("", "fused")), ("XPDL_TF32", ("", "0"))):
        if os.environ.get(name, "") not in plain:
            raise ArgumentError(f"unset {name}: both ways are measured, each under its name.")


def _sizes(options: argparse.Namespace) -> Sizes:
    given = {name: getattr(options, name) for name in ("rounds", "epochs", "seeds")}
    return replace(
        QUICK if options.quick else FULL,
        **{name: value for name, value in given.items() if value is not None},
    )


def _path(options: argparse.Namespace, device: str) -> Path:
    """Return where the results go, without a suffix."""
    # What is less than the whole does not take the place of the whole.
    names = ["gpu", re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")]
    names += ["quick"] * options.quick + options.parts * (options.parts != list(PARTS))
    path: Path = files.make_folder(options.out, "--out") / "-".join(names)
    return path


def draw(options: argparse.Namespace) -> None:
    """Draw the steps of a record, a picture a batch size, beside it.

    Raises
    ------
    FileAccessError, DataFileError
        If the record cannot be read.
    ArgumentError
        If it has no steps.
    """
    record = files.read_json(options.record)
    try:
        timings = record["parts"]["step"]["results"]["timings"]
    except (KeyError, TypeError) as error:
        text = f"{str(options.record)!r} has no timed steps; give a record of python -m bench gpu."
        raise ArgumentError(text) from error
    for batch_size in dict.fromkeys(timing["batch"] for timing in timings):
        rows = {
            f"{name}, {timing['precision']}": row
            for timing in timings
            if timing["batch"] == batch_size
            for name, row in timing["results"].items()
        }
        if rows:
            path = options.record.with_name(f"{options.record.stem}-step-batch{batch_size}.png")
            charts.bars(path, rows, f"one training step of DeepConvNet, batch {batch_size}")
            print(path)
