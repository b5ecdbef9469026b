"""A step of a script of the book: on our modules, and on plain ones of NumPy in float64."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

import xpdl
from bench.measure import Run
from xpdl.book.modules import book_modules

FOLDER = Path(__file__).parent / "book"
SCRIPT = FOLDER / "convnets.py"
PLAIN = FOLDER / "plain"
NETWORKS = {"simple": "SimpleConvNet", "deep": "DeepConvNet"}


def script_step(network: str, batch_size: int, modules: str | Path) -> Run:
    """Return a step of the book's Trainer, with the loss after it, as a script takes it.

    On our modules and the backend of a name; or on those in a folder: `PLAIN`, or the book's own.
    """
    places = _importable(modules) if isinstance(modules, Path) else book_modules(SCRIPT)
    with places, _importable(FOLDER):
        networks = importlib.import_module("convnets")
        trainers = importlib.import_module("common.trainer")
        rng = np.random.default_rng(0)
        x = rng.random((10 * batch_size, 1, 28, 28), dtype=np.float32)
        t = rng.integers(0, 10, len(x)).astype(np.uint8)
        np.random.seed(0)
        trainer = trainers.Trainer(
            getattr(networks, NETWORKS[network])(),
            *(x, t, x[:batch_size], t[:batch_size]),
            epochs=1000,
            mini_batch_size=batch_size,
            optimizer="Adam",
            optimizer_param={"lr": 0.001},
            evaluate_sample_num_per_epoch=batch_size,
            verbose=False,
        )

    def step() -> None:
        with nullcontext() if isinstance(modules, Path) else xpdl.use_backend(modules):
            trainer.train_step()

    step()  # the first one of an epoch measures accuracy as well
    return step


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """For a block, import from a folder; then let other modules be imported by the same names."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            file: Any = getattr(module, "__file__", None)
            if file and Path(file).is_relative_to(folder):
                del sys.modules[name]
