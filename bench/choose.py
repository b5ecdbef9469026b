"""Which recipe: candidates trained on 50,000 images and measured on 10,000 others, set aside.

The test set has no part in it. Each candidate is a recipe's base with some options in their place;
what was measured is kept, so that a list that has grown measures what is new alone.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import xpdl
from bench.measure import machine, record
from xpdl.backends import Array
from xpdl.datasets import split_validation
from xpdl.errors import UnknownNameError
from xpdl.network import Network
from xpdl.runs.options import RunOptions
from xpdl.runs.preparation import load_data, make_network, make_trainer
from xpdl.training.trainer import Trainer
from xpdl.tuning.ensemble import Ensemble, train_ensemble
from xpdl.tuning.shifts import ShiftAverage

ONE_IN = 6  # images are set aside
SPLIT_SEED = 0

_FAST: dict[str, Any] = {
    "model": "DeepConvNet",
    "model_options": {"drop_scores": False},
    "epochs": 3,
    "batch_size": 100,
    "optimizer": "adam",
    "learning_rate": 0.004,
    "schedule": "one-cycle",
}

_LESS = _FAST | {"model_options": {"drop_scores": False, "dropout_ratio": 0.25}}
_TWO = _LESS | {"epochs": 2, "average": 0.99, "batch_size": 32, "learning_rate": 0.003}
_SMALL = _FAST | {"batch_size": 32, "learning_rate": 0.0025}

# The filters of the book's network and a part of the epochs that `best` has time for.
_NARROW: dict[str, Any] = {
    "model": "NormalizedConvNet",
    "model_options": {"widths": [16, 32, 64]},
    "epochs": 8,
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": 0.004,
    "schedule": "one-cycle",
    "label_smoothing": 0.1,
    "augment": {"rotate": 10, "zoom": 0.1, "shear": 10, "shift": 2},
    "average": 0.998,
}
_WIDE = _NARROW | {"model_options": {"widths": [32, 64, 128]}}

CANDIDATES: dict[str, dict[str, dict[str, Any]]] = {
    "fast": {
        "3 epochs": _FAST,
        "2 epochs": _FAST | {"epochs": 2},
        "4 epochs": _FAST | {"epochs": 4},
        "batch 50": _FAST | {"batch_size": 50, "learning_rate": 0.003},
        "batch 32": _SMALL,
        "peak 0.003": _FAST | {"learning_rate": 0.003},
        "peak 0.006": _FAST | {"learning_rate": 0.006},
        "dropout 0.25": _LESS,
        "smoothing 0.05": _FAST | {"label_smoothing": 0.05},
        "shift 1": _FAST | {"augment": {"shift": 1}},
        "average 0.99": _FAST | {"average": 0.99},
        "average 0.99, peak 0.006": _FAST | {"average": 0.99, "learning_rate": 0.006},
        "no dropout": _FAST | {"model_options": {"drop_scores": False, "dropout_ratio": 0.0}},
        "warm-up 0.15": _FAST | {"warm_up": 0.15},
        "adamw 0.05": _FAST | {"optimizer": "adamw", "weight_decay": 0.05},
        "batch 50, then 100": _FAST | {"batch_size": {0: 50, 1: 100}},
        "dropout 0.25, average 0.99": _LESS | {"average": 0.99},
        "dropout 0.25, average 0.995": _LESS | {"average": 0.995},
        "dropout 0.25, average 0.99, peak 0.006": _LESS | {"average": 0.99, "learning_rate": 0.006},
        "dropout 0.25, average 0.99, batch 64": _LESS
        | {"average": 0.99, "batch_size": 64, "learning_rate": 0.0035},
        "2 epochs, dropout 0.25, average 0.99, batch 32": _TWO,
        "2 epochs, dropout 0.1, average 0.99, batch 32": _TWO
        | {"model_options": {"drop_scores": False, "dropout_ratio": 0.1}},
        "2 epochs, no dropout, average 0.99, batch 32": _TWO
        | {"model_options": {"drop_scores": False, "dropout_ratio": 0.0}},
        "2 epochs, dropout 0.25, average 0.99, batch 50": _TWO
        | {"batch_size": 50, "learning_rate": 0.004},
        "2 epochs, dropout 0.1, average 0.99, batch 50": _TWO
        | {
            "batch_size": 50,
            "learning_rate": 0.004,
            "model_options": {"drop_scores": False, "dropout_ratio": 0.1},
        },
        "2 epochs, dropout 0.25, average 0.995, batch 32": _TWO | {"average": 0.995},
        "2 epochs, dropout 0.25, average 0.99, batch 32, warm-up 0.15": _TWO | {"warm_up": 0.15},
        "2 epochs, dropout 0.25, average 0.99, batch 32, smoothing 0.05": _TWO
        | {"label_smoothing": 0.05},
        "2 epochs, dropout 0.25, average 0.99, batch 32, smoothing 0.1": _TWO
        | {"label_smoothing": 0.1},
        "2 epochs, dropout 0.25, average 0.99, batch 50, smoothing 0.05": _TWO
        | {"batch_size": 50, "learning_rate": 0.004, "label_smoothing": 0.05},
        "2 epochs, dropout 0.25, average 0.99, batch 50, smoothing 0.1": _TWO
        | {"batch_size": 50, "learning_rate": 0.004, "label_smoothing": 0.1},
        "1 epoch, dropout 0.25, average 0.99, batch 32, smoothing 0.1": _TWO
        | {"epochs": 1, "label_smoothing": 0.1},
        "1 epoch, no dropout, average 0.99, batch 20, smoothing 0.1": _TWO
        | {
            "epochs": 1,
            "batch_size": 20,
            "label_smoothing": 0.1,
            "model_options": {"drop_scores": False, "dropout_ratio": 0.0},
        },
        "2 epochs, batch 32": _SMALL | {"epochs": 2},
        "2 epochs, batch 16": _SMALL | {"epochs": 2, "batch_size": 16, "learning_rate": 0.0015},
        "batch 32, peak 0.0015": _SMALL | {"learning_rate": 0.0015},
        "batch 32, peak 0.004": _SMALL | {"learning_rate": 0.004},
        "batch 20": _SMALL | {"batch_size": 20, "learning_rate": 0.002},
        "batch 32, dropout 0.25": _SMALL
        | {"model_options": {"drop_scores": False, "dropout_ratio": 0.25}},
        "batch 32, no dropout": _SMALL
        | {"model_options": {"drop_scores": False, "dropout_ratio": 0.0}},
        "batch 32, smoothing 0.05": _SMALL | {"label_smoothing": 0.05},
        "batch 32, shift 1": _SMALL | {"augment": {"shift": 1}},
        "batch 32, average 0.995": _SMALL | {"average": 0.995},
    },
    "best": {
        "all four": _NARROW,
        "rotate 10, shift 2": _NARROW | {"augment": {"rotate": 10, "shift": 2}},
        "more of all four": _NARROW
        | {"augment": {"rotate": 15, "zoom": 0.15, "shear": 15, "shift": 3}},
        "and erase": _NARROW
        | {"augment": {**_NARROW["augment"], "erase": {"size": 7, "probability": 0.5}}},
        "no smoothing": _NARROW | {"label_smoothing": 0.0},
        "dropout 0.3": _NARROW | {"model_options": {"widths": [16, 32, 64], "dropout_ratio": 0.3}},
        "peak 0.01": _NARROW | {"learning_rate": 0.01},
        "adamw 0.05": _NARROW | {"optimizer": "adamw", "weight_decay": 0.05},
        "no pictures changed": _NARROW | {"augment": {}},
        "all four, 24 epochs": _NARROW | {"epochs": 24},
        "all four, 60 epochs": _NARROW | {"epochs": 60},
        "all four and elastic 1, 24 epochs": _NARROW
        | {"epochs": 24, "augment": {**_NARROW["augment"], "elastic": 1}},
        "all four and elastic 1.4, 24 epochs": _NARROW
        | {
            "epochs": 24,
            "augment": {**_NARROW["augment"], "elastic": {"pixels": 1.4, "sigma": 5}},
        },
        "all four, all filters": _WIDE,
        "all four, all filters, 24 epochs": _WIDE | {"epochs": 24},
    },
    "ensemble": {
        "5 members, 15 epochs": _NARROW | {"epochs": 15, "members": 5},
        "3 members, all filters, 18 epochs": _WIDE | {"epochs": 18, "members": 3},
    },
}


def choose(
    recipe: str, names: list[str] | None, seeds: list[int], workers: int, backend: str, out: Path
) -> None:
    """Train the candidates of a recipe that are not yet in the log, and print them, best first.

    Parameters
    ----------
    recipe : str
        One of `CANDIDATES`.
    names : list of str, optional
        Which of them; all by default.
    seeds : list of int
        Each candidate is trained from each.
    workers : int
        How many trainings at a time: 1 on all threads, or several on one thread each.
    backend : str
    out : path
        The folder of the log.

    Raises
    ------
    UnknownNameError
        If one of `names` is no candidate.
    """
    candidates = CANDIDATES[recipe]
    for name in names or ():
        if name not in candidates:
            raise UnknownNameError("candidate", name, candidates)
    written = json.loads(json.dumps(candidates))  # as they read in the log
    path = out / f"choice-{recipe}.json"
    log: dict[str, Any] = json.loads(path.read_text())["candidates"] if path.exists() else {}
    wanted = [
        (name, seed)
        for seed in seeds
        for name in names or candidates
        if str(seed) not in log.get(name, {}).get("runs", {})
        or log[name]["options"] != written[name]
    ]
    for name, seed, result in _trained(candidates, wanted, workers, backend):
        if log.get(name, {}).get("options") != written[name]:
            log[name] = {"options": written[name], "runs": {}}
        log[name]["runs"][str(seed)] = result
        record(
            path,
            {
                "title": f"candidates for the recipe {recipe}, measured on validation data",
                "validation": f"split_validation(x, t, 1/{ONE_IN}, seed={SPLIT_SEED})",
                "candidates": log,
            },
        )
    show(log)


def _trained(
    candidates: Mapping[str, Mapping[str, Any]],
    wanted: Sequence[tuple[str, int]],
    workers: int,
    backend: str,
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield a candidate's name, the seed and the result, in the order in which they end."""
    if workers == 1:
        for name, seed in wanted:
            yield name, seed, train_candidate(candidates[name], seed, backend)
        return
    os.environ |= {"XPDL_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs = {
            pool.submit(train_candidate, candidates[name], seed, backend): (name, seed)
            for name, seed in wanted
        }
        for job in as_completed(jobs):
            yield *jobs[job], job.result()


def train_candidate(chosen: Mapping[str, Any], seed: int, backend: str) -> dict[str, Any]:
    """Train one on what is left of the training data, and return how it does on the rest.

    Of an ensemble also what each member does alone, and the first two, three ... do together, at
    one look and over shifts.
    """
    with xpdl.use_backend(backend):
        options = RunOptions(data="mnist", seed=seed, backend=backend, dtype="float32", **chosen)
        network = make_network(options)
        (x, t), _ = load_data(options.data, network, normalize=False)
        train, (x, t) = split_validation(x, t, 1 / ONE_IN, seed=SPLIT_SEED)
        start = time.perf_counter()
        model: Network | Ensemble
        if options.members == 1:
            make_trainer(options, network, train, progress=False).fit()
            model = network
        else:
            model = train_ensemble(
                lambda own: _trainer(replace(options, seed=own, members=1), train),
                options.members,
                seed=seed,
                progress=False,
            )
        seconds = time.perf_counter() - start
        x = x.astype(network.precision.compute) / 255
        result: dict[str, Any] = {"accuracy": model.accuracy(x, t)}
        if options.augment:
            result["over shifts"] = ShiftAverage(model).accuracy(x, t)
        if isinstance(model, Ensemble):
            members = model.members
            result["alone"] = [member.accuracy(x, t) for member in members]
            first = [Ensemble(members[:n]) for n in range(1, len(members) + 1)]
            result["together"] = [some.accuracy(x, t) for some in first]
            if options.augment:
                result["together over shifts"] = [
                    ShiftAverage(some).accuracy(x, t) for some in first
                ]
    on = machine()
    return result | {
        "seconds": round(seconds, 1),
        "backend": backend,
        "processor": on["processor"],
        "threads": on["threads"],
    }


def _trainer(options: RunOptions, train: tuple[Array, Array]) -> Trainer:
    return make_trainer(options, make_network(options), train, progress=False)


def show(log: Mapping[str, Any]) -> None:
    """Print the candidates by their mean accuracy."""

    def mean(name: str, what: str = "accuracy") -> float:
        return statistics.mean([float(run[what]) for run in log[name]["runs"].values()])

    width = max(map(len, log))
    for name in sorted(log, key=mean, reverse=True):
        runs = log[name]["runs"]
        accuracies = [run["accuracy"] for _, run in sorted(runs.items())]
        spread = f" (sd {100 * statistics.stdev(accuracies):.3f})" if len(runs) > 1 else ""
        shifted = ""
        if all("over shifts" in run for run in runs.values()):
            shifted = f", over shifts {100 * mean(name, 'over shifts'):.3f} %"
        told = " ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies)
        print(
            f"  {name:<{width}}  {100 * mean(name):.3f} %{spread}{shifted}, "
            f"{mean(name, 'seconds'):.0f} s   {told}"
        )
