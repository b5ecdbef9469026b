"""An experiment: a function that computes numbers and draws figures, made into a command.

The examples of the book are experiments, and so may be yours::

    \"\"\"How fast a small network learns.\"\"\"

    from xpdl import plots
    from xpdl.cli.experiment import Experiment, run

    def main(experiment: Experiment) -> None:
        epochs = experiment.choose(quick=1, full=20)
        ...
        experiment.record("test accuracy", accuracy, ".2%", book="98.96 %")
        experiment.save(plots.curves({"loss": losses}))

    if __name__ == "__main__":
        run(main)

Its command takes ``--out``, ``--quick``, ``--seed``, ``--backend`` and ``--dtype``, and leaves in
the folder ``--out`` the figures, as PNG files, and the numbers, as a JSON file, called after the
experiment's own file.
"""

from __future__ import annotations

import argparse
import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from xpdl import files
from xpdl.backends import backend_of, get_backend
from xpdl.backends.numpy.threads import thread_count
from xpdl.cli.command import Parser, add_device_options, escape_output, run_command
from xpdl.cli.command import seed as seed_of
from xpdl.errors import ArgumentError
from xpdl.precision import get_precision
from xpdl.training.history import History
from xpdl.training.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xpdl.tuning import RandomSearch, SearchResult

Choice = TypeVar("Choice")

COLOURS = 128  # of a picture's file: a drawing needs no more, and the file is a third of the size


class Experiment:
    """What an experiment is told, and where it leaves what it found.

    Parameters
    ----------
    name : str
        What its files are called.
    title, about : str
        What it shows, and more about it.
    out : path
        The folder for its files; made where it is missing.
    quick : bool
        Whether a glimpse is wanted, in seconds, rather than the whole.
    seed : int
        For all that is random in it.
    source : path, optional
        Its own file, by whose digest its results are known to be of it as it is.
    """

    def __init__(
        self,
        name: str,
        *,
        title: str = "",
        about: str = "",
        out: str | Path = "figures",
        quick: bool = False,
        seed: int = 0,
        source: str | Path | None = None,
    ) -> None:
        self.name, self.title, self.about = name, title, about
        self.out = files.make_folder(out, "--out")
        self.quick = quick
        self.seed = seed
        self._source = None if source is None else sha256(files.read_bytes(source)).hexdigest()
        self.numbers: dict[str, Any] = {}
        self.shown: list[dict[str, str]] = []
        self.figures: list[str] = []
        self._start = time.perf_counter()
        self._before = 0.0  # seconds that trainings took in earlier sittings

    def choose(self, *, quick: Choice, full: Choice) -> Choice:
        """Return `quick` if a glimpse is wanted, else `full`."""
        return quick if self.quick else full

    def record(self, label: str, value: Any, form: str = "", book: str | None = None) -> None:
        """Print a number, or a few, and keep it among the experiment's results.

        Parameters
        ----------
        label : str
            What it is the number of.
        value : number, str, array or (nested) sequence of these
            On any device.
        form : str
            How to print a number of it: ".2%", ".4f" ...
        book : str, optional
            What the book has in its place.
        """
        if label in self.numbers:
            raise ArgumentError(f"{label!r} was recorded before; give each number its own label.")
        plain = _plain(value)
        text = _text(plain, form)
        self.numbers[label] = plain
        self.shown.append({"label": label, "text": text, "book": book or ""})
        print(f"{label}: {text}" + (f"  (the book: {book})" if book else ""), flush=True)

    def save(self, figure: Figure, part: str = "") -> None:
        """Write a figure to a PNG file called after the experiment, and `part` if it has more."""
        from PIL import Image

        path = self.out / f"{self.name}{'-' if part else ''}{part}.png"
        if path.name in self.figures:
            raise ArgumentError(f"{path.name} was saved before; give each figure its own part.")
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=100)
        reduced = Image.open(drawn).convert("RGB").quantize(COLOURS)
        with files.replacing(path) as stream:
            reduced.save(stream, format="png", optimize=True)
        self.figures.append(path.name)
        print(path, flush=True)

    def checkpoint(self, part: str = "", suffix: str = ".safetensors") -> Path | None:
        """Return where a long training may keep how far it came; None for a glimpse.

        A `Trainer` that is given it goes on from there, also when all is trained already. What is
        another training (of another seed, say) needs another `part`, but for the backend and the
        float policy, which are in the name.
        """
        if self.quick:
            return None
        folder = files.make_folder(self.out / "checkpoints")
        name = "-".join(filter(None, (self.name, part, get_backend().name, get_precision().name)))
        return folder / f"{name}{suffix}"

    def fit(self, trainer: Trainer) -> History:
        """Train; epochs that a checkpoint holds from an earlier sitting count in the time taken."""
        start = time.perf_counter()
        history = trainer.fit()
        self._count(sum(epoch.seconds for epoch in history.epochs), start)
        return history

    def search(self, search: RandomSearch) -> SearchResult:
        """Make a search's trials; those in its file from an earlier sitting count in the time."""
        start = time.perf_counter()
        result = search.run()
        self._count(sum(trial.seconds for trial in result.trials), start)
        return result

    def _count(self, took: float, start: float) -> None:
        """Count of `took` seconds those that are not since `start`, but of earlier sittings."""
        self._before += max(0.0, took - (time.perf_counter() - start))

    def finish(self) -> None:
        """Write the numbers, and under what circumstances they came about, to a JSON file."""
        backend = get_backend()
        record = {
            "title": self.title,
            "about": self.about,
            "quick": self.quick,
            "seed": self.seed,
            "backend": backend.name,
            "dtype": get_precision(None).name,
            "threads": thread_count(),
            "machine": backend.describe(),
            "seconds": self._before + time.perf_counter() - self._start,
            "source": self._source,
            "figures": self.figures,
            "shown": self.shown,
            "numbers": self.numbers,
        }
        files.write_json(self.out / f"{self.name}.json", record)


Main: TypeAlias = Callable[[Experiment], None]


def run(main: Main, arguments: Sequence[str] | None = None) -> None:
    """Run an experiment as a command, and leave Python with its exit code.

    The docstring of the file in which `main` stands says what it is about: its first line is the
    title.
    """
    escape_output()
    path = Path(inspect.getsourcefile(main) or main.__name__)
    title, _, about = (inspect.getdoc(inspect.getmodule(main)) or "").partition("\n")
    parser = Parser(prog=path.name, description=title, epilog=" ".join(about.split()))
    add = parser.add_argument
    add("--out", metavar="DIR", default="figures", help="where files go (default: figures)")
    add("--quick", action="store_true", help="a glimpse, in seconds, with less data and training")
    add("--seed", type=seed_of, default=0, metavar="N", help="for all that is random (default: 0)")
    add_device_options(parser)

    def work(options: argparse.Namespace) -> int:
        if options.dtype is not None:
            os.environ["XPDL_DTYPE"] = options.dtype  # for networks, arrays and what is started
        experiment = Experiment(
            path.stem,
            title=title,
            about=" ".join(about.split()),
            out=options.out,
            quick=options.quick,
            seed=options.seed,
            source=path,
        )
        main(experiment)
        experiment.finish()
        return 0

    options, surplus = parser.parse_known_args(arguments)
    if surplus:
        parser.refuse(surplus)
    sys.exit(run_command(path.name, options, work))


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it; NaN and infinity, which it lacks, as text."""
    if isinstance(value, np.generic):
        value = value.item()
    if hasattr(value, "dtype"):
        return _plain(backend_of(value).to_numpy(value).tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if not isinstance(value, str | int | float):
        raise ArgumentError(
            f"value must be a number, a text, an array or a sequence of these, got {value!r}."
        )
    return value


def _text(value: Any, form: str) -> str:
    if isinstance(value, list):
        return f"({', '.join(_text(item, form) for item in value)})"
    return str(value) if isinstance(value, str | bool) else format(value, form)
