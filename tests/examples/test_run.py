"""Running the examples together, and the table of what they showed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
PATHS = sorted(FOLDER.glob("ch*/*.py"))


def load_run():
    spec = importlib.util.spec_from_file_location("examples_run", FOLDER / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, "-m", "examples.run", *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_every_file_is_an_example_with_a_name_of_its_own():
    assert len({path.stem for path in PATHS}) == len(PATHS)
    assert list(load_run().examples()) == [
        path.stem for path in sorted(PATHS, key=load_run()._place)
    ]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_where_in_the_book_it_is(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= 130, "an example is a screen or two"
    title, about = re.match(r'r?"""(.+?)\n\n(.*?)"""', text, re.DOTALL).groups()
    assert "\n" not in title
    assert re.match(r"Book, (section|chapter|appendix|equation)", about)
    assert text.endswith('\n\n\nif __name__ == "__main__":\n    run(main)\n')


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_uses_the_public_api_only(path):
    imported = re.findall(r"^\s*(?:from|import) (xpdl\S*)", path.read_text("utf-8"), re.MULTILINE)
    rooms = {"datasets", "errors", "functions", "initializers", "layers", "losses", "models",
             "network", "optimizers", "plots", "schedules", "storage", "training",
             "tuning"}  # fmt: skip
    for name in imported:
        alone = name in ("xpdl", "xpdl.cli.experiment", "xpdl.runs")
        assert alone or name.split(".")[1] in rooms, name
    assert not re.search(r"\bxpdl\.\w*\._|import _", path.read_text())


def test_a_glimpse_is_not_kept_for_the_whole(tmp_path):
    first = command("gates", "--out", str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "gates.json").read_text())["quick"] is True
    full = command("gates", "--full", "--out", str(tmp_path))
    assert "done before" not in full.stdout
    again = command("gates", "--full", "--out", str(tmp_path))
    assert again.stdout.splitlines() == [f"gates: done before, in {tmp_path}"]


def test_what_was_made_otherwise_or_lost_is_made_again(tmp_path):
    run, path = load_run(), FOLDER / "ch02_perceptron" / "gates.py"
    assert command("gates", "--full", "--out", str(tmp_path)).returncode == 0
    results = run.read_results("gates", tmp_path)

    def done(seed=0, backend=None, dtype=None):
        options = argparse.Namespace(seed=seed, backend=backend, dtype=dtype)
        return run.is_done(results, path, tmp_path, options)

    assert done()
    assert done(dtype="float32", backend=results["backend"])
    assert not done(seed=1)
    assert not done(backend="generic")
    assert not done(dtype="float64")
    results["source"] = "another file"
    assert not done()
    results = run.read_results("gates", tmp_path)
    (tmp_path / "gates.png").unlink()
    assert not done()


def test_a_chapter_stands_for_its_examples(tmp_path):
    done = command("examples/ch01_arrays/", "gates.py", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.glob("*.json")} == {"sine_and_cosine", "gates"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gats"], "unknown example or chapter 'gats'"),
        (["gats"], "Did you mean 'gates'?"),
        (["gates", "--table"], "--table refreshes the whole table"),
        (["gates", "--out", "examples/results"], "examples/results is for the full run"),
        (["gates", "--out", ""], "--out is empty"),
        (["--seed", "-1"], "must be a whole number of at least 0"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    done = command(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "gates.json").write_text("{")
    done = command("gates", "--full", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "gates.json" in done.stderr
    assert "is not a JSON file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_table_tells_what_is_stale(monkeypatch):
    run, path = load_run(), FOLDER / "ch02_perceptron" / "gates.py"
    shown = [{"label": "a", "text": "1", "book": ""}, {"label": "b", "text": "2", "book": "3"}]
    results = {
        "title": "T.", "about": "Book, section 9.", "shown": shown, "figures": ["x.png"],
        "seed": 4, "seconds": 250.0, "backend": "numpy", "source": run.digest(path),
    }  # fmt: skip
    row = run.row("gates", path, results)
    assert "b: **2** (the book: 3)<br>a: **1**" in row
    assert "seed 4, 4 min on `numpy`" in row
    assert "earlier version" not in row
    assert "by an earlier version of the example" in run.row(
        "gates", path, results | {"source": ""}
    )


def test_the_table_is_that_of_the_results():
    run = load_run()
    text = (FOLDER / "README.md").read_text("utf-8")
    inside = text.partition(run.START)[2].partition(run.END)[0].strip()
    assert inside == run.table().strip(), "refresh it: python -m examples.run --table"
    for picture in re.findall(r'<img src="([^"]+)"', inside):
        assert (FOLDER / picture).stat().st_size < 100_000


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_its_results_are_from_the_full_run(path):
    results = json.loads((FOLDER / "results" / f"{path.stem}.json").read_text())
    assert results["quick"] is False
    for figure in results["figures"]:
        assert (FOLDER / "results" / figure).is_file()
