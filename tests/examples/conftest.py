"""The examples, run as a glimpse, once each."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl.cli.experiment import Experiment

FOLDER = Path(__file__).parents[2] / "examples"
EXAMPLES = {path.stem: path for path in sorted(FOLDER.glob("ch*/*.py"))}
SECONDS = 20  # on the default backend; the strict one is not made for speed


class Results:
    """What an example leaves: its numbers by label, and the paths of its figures by name."""

    def __init__(self, folder: Path, name: str) -> None:
        record = json.loads((folder / f"{name}.json").read_text())
        self.numbers: dict[str, Any] = record["numbers"]
        self.figures = {figure: folder / figure for figure in record["figures"]}
        self.title, self.about = record["title"], record["about"]


def look_at(path: Path) -> None:
    """See that a figure opens, is small, and has more on it than frames and numbers."""
    assert path.stat().st_size < 100_000, f"{path.name} has {path.stat().st_size:,} bytes"
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert min(pixels.shape[:2]) > 100
    coloured = (pixels.max(axis=2) - pixels.min(axis=2) > 30).mean()
    dark = (pixels.max(axis=2) < 200).mean()
    assert coloured > 0.001 or dark > 0.03, f"{path.name} is blank"


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Results]:
    """Return a function that runs an example by its file's name, if it has not run yet."""
    done: dict[tuple[str, int], Results] = {}

    def run(name: str, seed: int = 0) -> Results:
        if (name, seed) not in done:
            spec = importlib.util.spec_from_file_location(name, EXAMPLES[name])
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            folder = tmp_path_factory.mktemp(name)
            experiment = Experiment(name, out=folder, quick=True, seed=seed)
            start = time.perf_counter(), time.process_time()
            module.main(experiment)
            wall, busy = time.perf_counter() - start[0], time.process_time() - start[1]
            seconds = min(wall, busy)  # what other programs take does not count
            experiment.finish()
            results = Results(folder, name)
            slow = xpdl.get_backend().name == "numpy" and seconds > SECONDS
            assert not slow, f"{name} --quick took {seconds:.1f} s"
            assert results.numbers
            assert results.figures
            for path in results.figures.values():
                look_at(path)
            done[name, seed] = results
        return done[name, seed]

    return run
