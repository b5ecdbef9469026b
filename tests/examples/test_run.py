"""Running the examples together, and the table of what they showed."""

from __future__ import annotations

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
    text = path.read_text()
    assert text.count("\n") <= 130, "an example is a screen or two"
    title, about = re.match(r'r?"""(.+?)\n\n(.*?)"""', text, re.DOTALL).groups()
    assert "\n" not in title
    assert re.match(r"Book, (section|chapter|appendix|equation)", about)
    assert "import numpy" not in text or "np.asarray" not in text


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_an_example_uses_the_public_api_only(path):
    imported = re.findall(r"^\s*(?:from|import) (xpdl\S*)", path.read_text(), re.MULTILINE)
    rooms = {"experiment", "datasets", "errors", "functions", "initializers", "layers", "models",
             "optimizers", "plots", "schedules", "storage", "training"}  # fmt: skip
    for name in imported:
        assert name == "xpdl" or name.split(".")[1] in rooms, name
    assert not re.search(r"\bxpdl\.\w*\._|import _", path.read_text())


def test_a_glimpse_is_not_kept_for_the_whole(tmp_path):
    first = command("gates", "--out", str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert json.loads((tmp_path / "gates.json").read_text())["quick"] is True
    full = command("gates", "--full", "--out", str(tmp_path))
    assert "done before" not in full.stdout
    again = command("gates", "--full", "--out", str(tmp_path))
    assert again.stdout.splitlines() == [f"gates: done before, in {tmp_path}"]


def test_an_unknown_name_is_one_line():
    done = command("gats")
    assert done.returncode == 2
    assert "unknown example 'gats'" in done.stderr
    assert "Did you mean 'gates'?" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_table_is_that_of_the_results():
    run = load_run()
    text = (FOLDER / "README.md").read_text()
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
