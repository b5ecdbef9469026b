"""The part ``training``: DeepConvNet by the book's recipe to the end, and its accuracy then."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

import xpdl
from bench.gpu.session import LeftOut, Notes, Session
from xpdl.backends import Backend
from xpdl.datasets import load_mnist
from xpdl.errors import DataUnavailableError, XpdlError
from xpdl.layers import Normalize
from xpdl.models import DeepConvNet
from xpdl.optimizers import Adam
from xpdl.runs.recipes import RECIPES

DTYPES = ("float32", "float16")


def training(session: Session, notes: Notes) -> None:
    """Train as the book does, in both precisions and from several seeds.

    An epoch in each precision comes first and does not count: kernels are compiled in it.
    """
    recipe, sizes = RECIPES["book"], session.sizes
    try:
        with xpdl.use_backend("numpy"):
            data = load_mnist(normalize=False, flatten=False)
    except DataUnavailableError as error:
        raise LeftOut(f"no MNIST: {error}") from error
    notes.results |= {"recipe": asdict(recipe), "epochs": sizes.epochs, "warm_up_seconds": {}}
    notes.results |= {"runs": [], "summary": {}}
    for dtype in DTYPES:
        row = _new_row(dtype, 0)
        _train(session.backend, data, row, 1, notes)
        notes.results["warm_up_seconds"][dtype] = row["epochs"][0]["seconds"]
        session.free()
    for seed in range(sizes.seeds):
        for dtype in DTYPES:
            row = _new_row(dtype, seed)
            notes.results["runs"].append(row)
            try:
                _train(session.backend, data, row, sizes.epochs, notes)
            except XpdlError as error:
                notes.add_problem(f"{dtype}, seed {seed}", error)
            notes.results["summary"] = _of_all(notes.results["runs"])
            session.free()
            notes.keep()


def _new_row(dtype: str, seed: int) -> dict[str, Any]:
    return {"dtype": dtype, "seed": seed, "finished": False, "epochs": []}


def _train(backend: Backend, data: Any, row: dict[str, Any], epochs: int, notes: Notes) -> None:
    """Train a network, and put down each epoch as it ends."""
    recipe, (train, test) = RECIPES["book"], data
    dtype, seed = row["dtype"], row["seed"]

    def keep(trainer: xpdl.Trainer, epoch: Any) -> None:
        row["epochs"].append(asdict(epoch))
        row["test_accuracy"] = epoch.test_accuracy
        row["finished"] = len(row["epochs"]) == epochs
        notes.keep()

    with xpdl.use_backend(backend):
        network = DeepConvNet(
            dtype=dtype, seed=seed, normalize=Normalize(255), **recipe.model_options
        )
        trainer = xpdl.Trainer(
            network,
            train,
            test,
            optimizer=Adam(recipe.learning_rate),
            epochs=epochs,
            batch_size=recipe.batch_size,
            schedule=recipe.schedule,
            seed=seed,
            progress=False,
            callbacks=[keep],
        )
        trainer.fit()
    print(f"{dtype}, seed {seed}: {epochs} epochs, test accuracy {row['test_accuracy']}")


def _of_all(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the finished runs, and deviations where there is more than one."""
    found: dict[str, Any] = {}
    for dtype in DTYPES:
        rows = [row for row in runs if row["dtype"] == dtype and row["finished"]]
        if not rows:
            continue
        seconds = [sum(epoch["seconds"] for epoch in row["epochs"]) for row in rows]
        accuracies = [row["test_accuracy"] for row in rows]
        found[dtype] = {
            "runs": len(rows),
            "test_accuracy": statistics.mean(accuracies),
            "test_accuracy_deviation": _deviation(accuracies),
            "seconds": statistics.mean(seconds),
            "seconds_deviation": _deviation(seconds),
            "skipped_steps": sum(epoch["skipped_steps"] for row in rows for epoch in row["epochs"]),
            "loss_scales": [row["epochs"][-1]["loss_scale"] for row in rows],
        }
    return found


def _deviation(values: list[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
