"""Experiments: files and numbers as promised, from Python and from a command line."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment
from xpdl.errors import ArgumentError, FileAccessError
from xpdl.layers import Affine
from xpdl.network import Network
from xpdl.optimizers import SGD
from xpdl.tuning import RandomSearch, Uniform

PROGRAM = '''\
"""What it shows.

Book, section 1.2; figure 1-3. More about it,
on two lines.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run


def main(experiment: Experiment) -> None:
    experiment.record("sum", xpdl.asarray([1.0, 2.0]).sum(), ".1f", book="3")
    experiment.record("steps", experiment.choose(quick=1, full=1000))
    experiment.record("seed", experiment.seed)
    experiment.save(plots.curves({"a": [1, 2]}))


if __name__ == "__main__":
    run(main)
'''


@pytest.fixture
def command(tmp_path):
    """Return a function that runs an experiment's command in a folder of its own."""
    (tmp_path / "wave.py").write_text(PROGRAM)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "wave.py", *arguments], cwd=tmp_path, capture_output=True, text=True
        )

    return run


def test_a_command_leaves_figures_and_numbers(command, tmp_path):
    done = command("--quick", "--seed", "7", "--out", "new/folder", "--dtype", "float64")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "sum: 3.0  (the book: 3)",
        "steps: 1",
        "seed: 7",
        "new/folder/wave.png",
    ]
    record = json.loads((tmp_path / "new/folder/wave.json").read_text())
    assert record["title"] == "What it shows."
    assert record["about"] == "Book, section 1.2; figure 1-3. More about it, on two lines."
    assert record["numbers"] == {"sum": 3.0, "steps": 1, "seed": 7}
    assert record["shown"][0] == {"label": "sum", "text": "3.0", "book": "3"}
    assert record["figures"] == ["wave.png"]
    assert (record["quick"], record["seed"], record["dtype"]) == (True, 7, "float64")
    with Image.open(tmp_path / "new/folder/wave.png") as picture:
        assert picture.size == (600, 400)


def test_the_help_says_what_it_shows(command):
    done = command("--help")
    assert done.returncode == 0
    assert "What it shows." in done.stdout
    assert "Book, section 1.2" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "x"], "must be a whole number of at least 0, got 'x'"),
        (["--backend", "nope"], "unknown backend 'nope'"),
        (["--dtype", "int8"], "unknown dtype 'int8'"),
        (["--out", "wave.py"], "cannot create the folder 'wave.py'"),
        (["--out", ""], "--out is empty"),
        (["--fast"], "unknown: --fast. See wave.py --help."),
        (["--qick"], "unknown: --qick (did you mean --quick?)"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(command, arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("wave.py: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_values_of_every_kind_are_kept(backend, tmp_path, capsys):
    experiment = Experiment("a", out=tmp_path)
    experiment.record("array", backend.asarray(np.array([1.5, 2.5], np.float32)), ".2f")
    experiment.record("scalar", np.float32(0.5), ".0%")
    experiment.record("nested", [(1, 2), [3]])
    experiment.record("infinite", float("inf"))
    experiment.record("text", "yes", ".2f")
    experiment.finish()
    assert json.loads((tmp_path / "a.json").read_text())["numbers"] == {
        "array": [1.5, 2.5],
        "scalar": 0.5,
        "nested": [[1, 2], [3]],
        "infinite": "inf",
        "text": "yes",
    }
    assert capsys.readouterr().out.splitlines() == [
        "array: (1.50, 2.50)",
        "scalar: 50%",
        "nested: ((1, 2), (3))",
        "infinite: inf",
        "text: yes",
    ]
    with pytest.raises(ArgumentError, match="'text' was recorded before"):
        experiment.record("text", 1)
    with pytest.raises(ArgumentError, match="value must be a number, a text, an array"):
        experiment.record("nothing", None)


def test_figures_are_named_after_the_experiment_and_keep_their_colours(tmp_path):
    experiment = Experiment("a", out=tmp_path)
    experiment.save(plots.curves({"line": [1, 2]}))
    experiment.save(plots.curves({"line": [1, 2]}), "second")
    with pytest.raises(ArgumentError, match=r"a-second\.png was saved before"):
        experiment.save(plots.curves({"line": [1, 2]}), "second")
    assert experiment.figures == ["a.png", "a-second.png"]
    with Image.open(tmp_path / "a.png") as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    blue = np.abs(colours - (0x1F, 0x77, 0xB4)).sum(axis=1).min()  # Matplotlib's first colour
    assert blue < 12


def test_a_training_goes_on_where_it_stopped_and_its_time_counts(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.random((20, 3), dtype=np.float32), rng.integers(0, 2, 20)

    def trainer(experiment, epochs=2):
        return xpdl.Trainer(
            Network([Affine(2)], 3),
            data,
            epochs=epochs,
            progress=False,
            checkpoint=experiment.checkpoint("x"),
        )

    first = Experiment("a", out=tmp_path)
    history = first.fit(trainer(first))
    assert (tmp_path / "checkpoints" / first.checkpoint("x").name).exists()
    history.epochs[0].seconds = 1000.0  # as if it had been a long one
    again = Experiment("a", out=tmp_path)
    resumed = trainer(again)
    resumed.fit = lambda: history
    assert again.fit(resumed) is history
    again.finish()
    assert json.loads((tmp_path / "a.json").read_text())["seconds"] >= 1000
    assert Experiment("a", out=tmp_path, quick=True).checkpoint("x") is None


def test_a_search_goes_on_where_it_stopped_and_its_time_counts(tmp_path):
    rng = np.random.default_rng(0)
    data = rng.random((20, 3), dtype=np.float32), rng.integers(0, 2, 20)

    def make(values, train, validation, seed):
        network = Network([Affine(2)], 3)
        options = {"optimizer": SGD(values["rate"]), "epochs": 1, "seed": seed}
        return xpdl.Trainer(network, train, validation, progress=False, **options)

    def search(experiment):
        path = experiment.checkpoint("x", ".json")
        ranges = {"rate": Uniform(0.1, 1.0)}
        return RandomSearch(
            ranges, make, data, validation=5, trials=3, path=path, progress=False, stopping=None
        )

    first = Experiment("a", out=tmp_path)
    result = first.search(search(first))
    path = first.checkpoint("x", ".json")
    kept = json.loads(path.read_text())
    kept["trials"][0]["seconds"] = 1000.0  # as if it had been a long one
    path.write_text(json.dumps(kept))
    again = Experiment("a", out=tmp_path)
    resumed = again.search(search(again))
    assert [t.accuracy for t in resumed.trials] == [t.accuracy for t in result.trials]
    again.finish()
    assert 1000 <= json.loads((tmp_path / "a.json").read_text())["seconds"] < 1100


def test_a_checkpoint_is_of_one_backend_and_float_policy(tmp_path):
    experiment = Experiment("a", out=tmp_path)
    names = set()
    for backend in ("numpy", "generic"):
        with xpdl.use_backend(backend):
            names.add(experiment.checkpoint("x").name)
    assert names == {"a-x-numpy-float32.safetensors", "a-x-generic-float32.safetensors"}


def test_a_number_that_cannot_be_printed_is_not_kept(tmp_path):
    experiment = Experiment("a", out=tmp_path)
    with pytest.raises(ValueError, match="format"):
        experiment.record("share", 0.5, "no form")
    experiment.record("share", 0.5, ".0%")


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileAccessError, match="cannot create the folder"):
        Experiment("a", out=tmp_path / "file" / "below")
