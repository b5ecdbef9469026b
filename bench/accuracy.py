"""The command ``python -m bench time-to-accuracy``: whole trainings by a recipe, seed after seed.

Each training is a process of its own, from its start to its end, one at a time: ours and PyTorch's
in turns. A seed is recorded when all its trainings have ended, and not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xpdl
from bench import charts, torch_training
from bench.measure import command_line, machine, said_by
from bench.timed_command import Watch
from xpdl import files
from xpdl.cli.command import seed
from xpdl.errors import ArgumentError, XpdlError
from xpdl.runs.folder import read_record
from xpdl.runs.options import RunOptions, make_options
from xpdl.runs.preparation import load_data, make_network, make_trainer

ROOT = Path(xpdl.__file__).parents[1]
START = [sys.executable, "-m"]  # what comes before a module's name to run it
TORCH = "PyTorch"
BOOK = {"mnist": 0.9938}  # what the book reaches, by the data
# What of a machine must be the same for figures to stand side by side.
OF_ONE_MACHINE = (
    "processor", "cores", "threads", "system", "python", "xpdl", "packages", "environment",
)  # fmt: skip
PARTS = {
    "start": "imports and data",
    "steps": "training steps",
    "testing": "tests after epochs",
    "loop": "around the steps",
    "finish": "drawing and saving",
    "exit": "exit",
}

Row = Mapping[str, Any]
Seeds = Mapping[str, Mapping[str, Row]]


class FailedTraining(XpdlError):
    """A training that was to be measured ended with an error."""


def add_options(parser: argparse.ArgumentParser, out: Path) -> None:
    """Give the command's parser its options."""
    add = parser.add_argument
    add("--recipe", default="fast", metavar="NAME", help="of xpdl train (default: fast)")
    add(
        "--seeds",
        type=seed,
        nargs="+",
        default=list(range(10)),
        metavar="N",
        help="(default: 0 to 9)",
    )
    add("--data", default="mnist", metavar="NAME", help="mnist, fashion-mnist (default: mnist)")
    add("--backend", default=xpdl.get_backend().name)
    add("--against", nargs="*", choices=("torch",), default=[], help="the same recipe in PyTorch")
    add("--anew", action="store_true", help="measure what was measured before again")
    add("--out", type=Path, default=out, metavar="DIR", help="(default: bench/results)")
    parser.set_defaults(run=run)
    parser.epilog = "example: python -m bench time-to-accuracy --backend numba --against torch"


def run(options: argparse.Namespace) -> int:
    """Measure the seeds that are not in the record yet; print, record and draw all that are.

    Returns
    -------
    int
        0, or 130 after Ctrl-C.

    Raises
    ------
    XpdlError
        If a recipe, the data or the backend does not serve, if PyTorch cannot follow the recipe, if
        what was measured before was measured otherwise, or if a training fails.
    """
    with xpdl.use_backend(options.backend) as backend:
        if backend.name == "cupy":
            raise ArgumentError(
                "time-to-accuracy is for a CPU, where a step has ended when it returns; "
                "a GPU is measured by: python -m bench gpu"
            )
        chosen = make_options(options.recipe, data=options.data, seed=0, dtype="float32")
    ours = f"xpdl {chosen.backend}"
    programs = [ours, *([TORCH] if options.against else [])]
    about, book = _about(options.recipe, chosen), BOOK.get(chosen.data)
    name = f"time-to-accuracy-{chosen.data}-{options.recipe}-{chosen.backend}"
    path = options.out / f"{name}.json"
    seeds = {} if options.anew else _kept(path, about)
    missing = [
        number
        for number in dict.fromkeys(options.seeds)
        if any(program not in seeds.get(str(number), {}) for program in programs)
    ]
    try:
        if missing:
            _prepare(chosen, programs)
        print(about["title"])
        show_heading(programs)
        for known, rows in seeds.items():
            show_seed(known, rows, programs)
        for number in missing:
            seeds[str(number)] = rows = train(
                options.recipe, replace(chosen, seed=number), programs
            )
            show_seed(str(number), rows, programs)
            seeds = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
            _record(path, about, seeds)
    except KeyboardInterrupt:
        print(
            "python -m bench time-to-accuracy: interrupted; what was measured is kept, and the "
            f"same command{', without --anew,' if options.anew else ''} goes on from there.",
            file=sys.stderr,
        )
        return 130
    show_summary(summarize(seeds), book)
    print(f"  {path}")
    _draw(path.with_suffix(".png"), about["title"], seeds, chosen.epochs, book)
    return 0


def _draw(path: Path, title: str, seeds: Seeds, epochs: int, book: float | None) -> None:
    """Draw accuracy against time, a dot a training; of one training alone, epoch by epoch."""
    alone = [row for rows in seeds.values() for row in rows.values()]
    if len(alone) == 1:
        (row,) = alone
        charts.accuracy_by_epoch(path, row["accuracies"], epochs, row["accuracy"], title, book)
        return
    points: dict[str, list[tuple[float, float]]] = {}
    for rows in seeds.values():
        for program, row in rows.items():
            points.setdefault(program, []).append((row["wall"], row["accuracy"]))
    charts.accuracy_over_time(path, points, title, book)


def _about(recipe: str, options: RunOptions) -> dict[str, Any]:
    """Return what is measured, as it reads in a record."""
    epochs = f"{options.epochs} {'epoch' if options.epochs == 1 else 'epochs'}"
    return {
        "title": f"xpdl train --recipe {recipe}: {options.model} on {options.data}, {epochs}, "
        "the whole command",
        "options": _written(options),
    }


# ---- what was measured before ------------------------------------------------------------------


def _kept(path: Path, about: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the seeds that were measured before, in the same way and on the same machine.

    Raises
    ------
    ArgumentError
        If they were measured otherwise: then the two would be mixed.
    """
    if not path.exists():
        return {}
    before = files.read_json(path)
    try:
        # Older records lack the options that are newer, and were measured with what is usual.
        options = RunOptions.from_record(before["options"] | {"seed": 0})
        then, seeds = _comparable(_written(options), before["machine"]), dict(before["seeds"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArgumentError(
            f"{str(path)!r} is no record of this command; --anew replaces it."
        ) from error
    now = _comparable(about["options"], json.loads(json.dumps(machine())))
    differing = [
        f"{name} ({then.get(name)!r} then, {now.get(name)!r} now)"
        for name in now
        if then.get(name) != now.get(name)
    ]
    if differing:
        raise ArgumentError(
            f"{str(path)!r} was measured with other {', '.join(differing)}; start over with "
            "--anew, or give another folder to --out."
        )
    return seeds


def _written(options: RunOptions) -> dict[str, Any]:
    """Return the options that all seeds have in common, as they read in a record."""
    fixed = {name: value for name, value in asdict(options).items() if name != "seed"}
    written: dict[str, Any] = json.loads(json.dumps(fixed))
    return written


def _comparable(options: Mapping[str, Any], machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what must be the same for figures to stand side by side."""
    on = {name: machine.get(name) for name in OF_ONE_MACHINE}
    # The variable may name the backend, or an option; in the end that is one of the options.
    on["environment"] = {
        name: value for name, value in machine["environment"].items() if name != "XPDL_BACKEND"
    }
    return {**on, **options}


def _record(path: Path, about: Mapping[str, Any], seeds: Seeds) -> None:
    """Write what was measured so far; the old record or the new one is there at any time."""
    files.make_folder(path.parent)
    what = {
        "command": command_line(),
        "when": _now(),
        "machine": machine(),
    }
    files.write_json(path, {**what, **about, "summary": summarize(seeds), "seeds": seeds})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _prepare(options: RunOptions, programs: Sequence[str]) -> None:
    """Do what is done once on a machine and is no part of a training: one step, uncounted.

    The data is fetched, Numba's kernels are compiled and kept, PyTorch is read from the disk. What
    no program can follow is refused here.
    """
    with xpdl.use_backend("numpy"):
        if TORCH in programs:
            torch_training.make_twin(options)
    short = replace(options, epochs=1)
    for program in programs:
        with xpdl.use_backend("numpy" if program == TORCH else options.backend):
            network = make_network(short)
            data = load_data(short.data, network, normalize=False)
            train, test = ((x[:200], t[:200]) for x, t in data)
            if program == TORCH:
                torch_training.train(short, (train, test), Watch())
            else:
                make_trainer(short, network, train, test, progress=False).fit()


# ---- one training ------------------------------------------------------------------------------


def train(recipe: str, options: RunOptions, programs: Sequence[str]) -> dict[str, Any]:
    """Train by each program in turn, and return a row of each."""
    return {
        program: (train_torch if program == TORCH else train_ours)(recipe, options)
        for program in programs
    }


def train_ours(recipe: str, options: RunOptions) -> dict[str, Any]:
    """Run ``xpdl train`` in a new process, and return what it came to."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        chosen = ["--recipe", recipe, "--seed", str(options.seed), "--data", options.data]
        more = ["--backend", options.backend, "--dtype", options.dtype, "--out", str(out)]
        start, report, end = _in_process("bench.timed_command", "train", *chosen, *more)
        history = read_record(out)
    if RunOptions.from_record(history["options"]) != options:
        raise FailedTraining(
            f"xpdl train took other options than were asked for: {history['options']}, "
            f"not {asdict(options)}."
        )
    trainings = history.get("members", [history])  # one after another, where they are several
    accuracies = [epoch["test_accuracy"] for part in trainings for epoch in part["epochs"]]
    row = _row(start, report, end, history["test_accuracy"], accuracies)
    if "single_look_accuracy" in history:
        row["single_look_accuracy"] = round(history["single_look_accuracy"], 6)
    return row


def train_torch(recipe: str, options: RunOptions) -> dict[str, Any]:
    """Run PyTorch's training in a new process, and return what it came to."""
    chosen = ["--recipe", recipe, "--seed", str(options.seed), "--data", options.data]
    start, report, end = _in_process("bench.torch_training", *chosen)
    row = _row(start, report, end, report["test_accuracy"], report["accuracies"])
    return row | {"threads": report["threads"]}


def _in_process(module: str, *arguments: str) -> tuple[float, dict[str, Any], float]:
    """Run a module in a new process; return when it began, its last line, and when it ended."""
    start = time.perf_counter()
    done = subprocess.run([*START, module, *arguments], cwd=ROOT, capture_output=True, text=True)
    end = time.perf_counter()
    if done.returncode:
        raise FailedTraining(
            f"{' '.join([module, *arguments])} ended with exit code {done.returncode}: "
            f"{done.stderr.strip() or 'it said nothing'}"
        )
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return start, report, end


def _row(
    start: float, report: Mapping[str, Any], end: float, accuracy: float, epochs: list[float]
) -> dict[str, Any]:
    spent = parts_of(start, report, end)
    return {
        "accuracy": round(accuracy, 6),
        "wall": round(end - start, 3),
        "outside": round(1 - spent["steps"] / (end - start), 4),
        "parts": {name: round(seconds, 3) for name, seconds in spent.items()},
        "steps": report["count"],
        "accuracies": [round(a, 6) for a in epochs],
        "when": _now(),
        "source": said_by("git", "describe", "--always", "--dirty", "--abbrev=40"),
    }


def parts_of(start: float, report: Mapping[str, Any], end: float) -> dict[str, float]:
    """Return the seconds of each part of a process; together they are its wall clock.

    Parameters
    ----------
    start, end : float
        When the process began and ended, by `time.perf_counter`.
    report : mapping
        As `Watch.report` returns it.
    """
    first, trained, steps = report["first_step"], report["trained"], report["steps"]
    parts = {
        "start": first - start,
        "steps": steps,
        "testing": report["testing"],
        "loop": trained - first - steps - report["testing"],
        "finish": report["end"] - trained,
        "exit": end - report["end"],
    }
    assert parts.keys() == PARTS.keys()
    return parts


# ---- all of them -------------------------------------------------------------------------------


def summarize(seeds: Seeds) -> dict[str, dict[str, Any]]:
    """Return what the seeds come to, as JSON can hold it.

    A standard deviation is of a sample (n - 1); None of one seed.

    Returns
    -------
    dict
        "programs": by program the spread of accuracy, wall clock and the share of that outside the
        steps, and the mean seconds of each part. "ours_over": by other program the median and the
        spread of our wall clock over its, seed by seed.
    """
    ours, *others = dict.fromkeys(program for rows in seeds.values() for program in rows)
    programs = {}
    for program in (ours, *others):
        rows = [row[program] for row in seeds.values() if program in row]
        means = {part: statistics.mean(row["parts"][part] for row in rows) for part in PARTS}
        programs[program] = {
            **{
                name: _spread(row[name] for row in rows) for name in ("accuracy", "wall", "outside")
            },
            "parts": {part: round(mean, 3) for part, mean in means.items()},
        }
    ours_over = {}
    for program in others:
        pairs = [(row[ours], row[program]) for row in seeds.values() if program in row]
        ratios = [mine["wall"] / other["wall"] for mine, other in pairs]
        ours_over[program] = {"median": round(statistics.median(ratios), 4), **_spread(ratios)}
    return {"programs": programs, "ours_over": ours_over}


def _spread(values: Iterable[float]) -> dict[str, float | None]:
    values = list(values)
    return {
        "mean": round(statistics.mean(values), 6),
        "sd": round(statistics.stdev(values), 6) if len(values) > 1 else None,
        "least": round(min(values), 6),
        "most": round(max(values), 6),
        "seeds": len(values),
    }


def show_heading(programs: Sequence[str]) -> None:
    """Print what the columns of `show_seed` are."""
    ratio = " ratio" if len(programs) > 1 else ""
    print(("      " + "".join(f"{program:<37}" for program in programs) + ratio).rstrip())
    print(("seed" + f"{'  accuracy    wall  outside the steps':<37}" * len(programs)).rstrip())


def show_seed(number: str, rows: Mapping[str, Row], programs: Sequence[str]) -> None:
    """Print a seed's trainings side by side."""
    cells = [
        f"{row['accuracy']:8.2%} {row['wall']:7.1f} s {row['outside']:16.1%}  "
        if (row := rows.get(program)) is not None
        else f"{'not measured':<37}"
        for program in programs
    ]
    walls = [rows[program]["wall"] for program in programs if program in rows]
    ratio = f" {walls[0] / walls[1]:5.2f}" if len(walls) > 1 else ""
    print((f"{number:>4}  " + "".join(cells) + ratio).rstrip(), flush=True)


def show_summary(summary: Mapping[str, Mapping[str, Any]], book: float | None) -> None:
    """Print each program's means, and where its time goes."""
    for program, row in summary["programs"].items():
        told = "" if book is None else f"; the book: {book:.2%}"
        parts = ", ".join(f"{PARTS[part]} {seconds:.2f}" for part, seconds in row["parts"].items())
        seeds = row["wall"]["seeds"]
        print(f"{program}, {seeds} {'seed' if seeds == 1 else 'seeds'}")
        print(f"  accuracy {_percent(row['accuracy'])}{told}")
        print(f"  wall {_seconds(row['wall'])}, {row['outside']['mean']:.1%} outside the steps")
        print(f"  mean seconds: {parts}")
    for program, row in summary["ours_over"].items():
        print(
            f"our wall over that of {program}, seed by seed: median {row['median']:.2f} "
            f"({row['least']:.2f} to {row['most']:.2f})"
        )


def _percent(row: Mapping[str, Any]) -> str:
    sd = "" if row["sd"] is None else f"sd {100 * row['sd']:.3f}, "
    return f"{row['mean']:.3%} ({sd}{row['least']:.2%} to {row['most']:.2%})"


def _seconds(row: Mapping[str, Any]) -> str:
    sd = "" if row["sd"] is None else f"sd {row['sd']:.1f}, "
    return f"{row['mean']:.1f} s ({sd}{row['least']:.1f} to {row['most']:.1f})"
