"""That the measurements run and say what they measured; never how long anything takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import xpdl

ROOT = Path(xpdl.__file__).parents[1]
sys.path.append(str(ROOT))  # the bench is not part of what is installed

from bench.measure import command_line, processor_name  # noqa: E402

SMALL = ["--rounds", "1", "--batch-size", "4"]


def bench(*arguments, out=None):
    where = [] if out is None else ["--out", str(out)]
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments, *where],
        cwd=ROOT,
        env=os.environ | {"XPDL_BACKEND": "numpy", "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def result_of(done, folder, name):
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["command"].startswith("python -m bench ")
    assert "--out" not in record["command"]
    assert record["machine"]["processor"]
    assert record["machine"]["packages"]["numpy"]
    return record


def test_step(tmp_path):
    done = bench("step", "--network", "simple", *SMALL, "--against", "generic", out=tmp_path)
    record = result_of(done, tmp_path, "step-simple-numpy-batch4")
    assert set(record["results"]) == {"xpdl numpy", "xpdl generic"}
    for row in record["results"].values():
        assert 0 < row["least_ms"] <= row["median_ms"] <= row["to_ms"]
        assert row["runs"] == 3
    ours, theirs = record["results"].values()
    assert ours["ours_takes"] == 1
    ratio = ours["median_ms"] / theirs["median_ms"]
    assert theirs["ours_takes"] == pytest.approx(ratio, abs=0.006)  # kept to two digits
    assert record["providers"]["convolution"] == "numpy"
    assert "convolution by numpy" in done.stdout
    assert (tmp_path / "step-simple-numpy-batch4.png").stat().st_size < 100_000


@pytest.mark.parametrize("network", ["simple", "deep"])
def test_a_script_of_the_book(network, tmp_path):
    done = bench("book", "--network", network, *SMALL, out=tmp_path)
    record = result_of(done, tmp_path, f"book-{network}-numpy-batch4")
    assert list(record["results"]) == ["xpdl book on numpy", "plain NumPy, float64"]
    assert "times as fast as plain NumPy" in done.stdout


def test_layers(tmp_path):
    done = bench("layers", *SMALL, out=tmp_path)
    record = result_of(done, tmp_path, "layers-deep-numpy-batch4")
    names = [part["name"] for part in record["profile"]["parts"]]
    assert names[:3] == ["conv1", "relu1", "conv2"]
    assert names[-3:] == ["loss", "update", "all else"]
    assert "conv6" in done.stdout


def test_memory(tmp_path):
    done = bench("memory", "--batch-size", "4", out=tmp_path)
    record = result_of(done, tmp_path, "memory-numpy-batch4")
    figures = record["results"]["xpdl numpy"]
    assert 0 < figures["over_start_mib"] < figures["over_data_mib"] < figures["peak_mib"]


def test_imagenet(tmp_path):
    arguments = ["resnet18-32-step", "--batch-size", "2", "--rounds", "1"]
    done = bench("imagenet", *arguments, out=tmp_path)
    record = result_of(done, tmp_path, "imagenet-numpy-batch2")
    figures = record["results"]["resnet18-32-step"]["xpdl numpy"]
    assert figures["median_ms"] > 0
    assert figures["over_start_mib"] > 4 * 4 * 11  # four float32 a parameter, and more
    assert (figures["ours_takes"], figures["ours_takes_memory"]) == (1, 1)
    done = bench("imagenet", "resnet19", out=tmp_path)
    assert done.returncode == 2
    assert "Did you mean" in done.stderr


def test_loop(tmp_path):
    done = bench("loop", *SMALL, out=tmp_path)
    record = result_of(done, tmp_path, "loop-numpy-batch4")
    assert record["share"] > 0


@pytest.mark.slow
def test_inference_and_scaling(tmp_path):
    done = bench("inference", "--network", "layers", "--rounds", "1", out=tmp_path)
    result_of(done, tmp_path, "inference-layers-numpy")
    done = bench("scaling", "--rounds", "1", out=tmp_path)
    record = result_of(done, tmp_path, "scaling-numpy")
    assert set(record["results"]) == {"batch size", "image size", "channels", "depth", "threads"}


BOOK = {
    "ch08/deep_convnet.py": """
import numpy as np
class DeepConvNet:
    def __init__(self):
        self.params = {"W1": np.zeros(3)}
    def gradient(self, x, t):
        assert x.shape == (4, 1, 28, 28)
        return {"W1": np.ones(3)}
""",
    "common/optimizer.py": """
class Adam:
    def update(self, params, grads):
        params["W1"] -= grads["W1"]
""",
    "common/__init__.py": "",
}


def test_the_books_code_is_timed_where_there_is_a_copy(tmp_path):
    for name, text in BOOK.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    arguments = ["step", *SMALL, "--against", "book", "--book-path", str(tmp_path)]
    done = bench(*arguments, out=tmp_path)
    record = result_of(done, tmp_path, "step-deep-numpy-batch4")
    assert set(record["results"]) == {"xpdl numpy", "the book's code"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["step", "--against", "book"], "--book-path DIR"),
        (["step", "--against", "book", "--book-path", "/nowhere"], "'common'"),
        (["inference", "--against", "book"], "--against"),
        (["memory", "--dtype", "float16"], "--dtype"),
        (["scaling", "--network", "simple"], "--network"),
        (["layers", "--against", "numba"], "--against"),
        (["step", "--backend", "nonsense"], "unknown backend 'nonsense'"),
        (["step", "--dtype", "float31"], "float31"),
        (["step", "--network", "large"], "large"),
        (["book", "--network", "layers"], "simple and deep alone"),
        (["stop"], "stop"),
        (["step", "--rounds", "0"], "--rounds"),
        (["step", "--batch-size", "x"], "--batch-size"),
    ],
)
def test_bad_input_is_answered_in_one_line(tmp_path, arguments, said):
    done = bench(*arguments, out=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not list(tmp_path.iterdir())


def test_processors_of_one_name_are_told_apart():
    one, other = (
        f"processor\t: 0\ncpu family\t: {family}\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n\n"
        for family in (25, 26)
    )
    assert processor_name(one + other) == "AMD EPYC, family 25, model 2"
    assert processor_name(other + one) == "AMD EPYC, family 26, model 2"
    assert processor_name("processor\t: 0\nmodel name\t: some chip\n\n") == "some chip"


@pytest.mark.parametrize("out", [["--out", "a folder"], ["--out=a folder"]])
def test_where_results_go_is_no_part_of_the_command(monkeypatch, out):
    monkeypatch.setattr(sys, "argv", ["bench", "step", *out, "--rounds", "1", "a b"])
    assert command_line() == "python -m bench step --rounds 1 'a b'"


def test_convolutions(tmp_path, monkeypatch, capsys):
    from bench import __main__ as command
    from bench import convolutions

    shapes = (convolutions.Shape(2, 3, 8, 4, 3, 1, 1), convolutions.Shape(1, 4, 6, 4, 3, 2, 1))
    monkeypatch.setattr(convolutions.measure, "__defaults__", (False, shapes))
    arguments = ["convolutions", "--backend", "numpy", "--rounds", "1", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    assert "2, 3, 8, 4, 3, 1, 1" in capsys.readouterr().out
    first, second = json.loads((tmp_path / "convolutions-numpy.json").read_text())["results"]
    assert first["by"] == "direct sum"
    assert convolutions.way(convolutions.Shape(2, 16, 8, 16, 3, 1, 1), "numpy") == "Winograd"
    assert first["ours_ms"] > 0
    # Forward and dW of 64 places; forward, dx and dW of 9.
    assert convolutions.Shape(**first["shape"]).operations == 2 * 2 * 2 * 64 * 4 * 27
    assert convolutions.Shape(**second["shape"]).operations == 3 * 2 * 9 * 4 * 36
