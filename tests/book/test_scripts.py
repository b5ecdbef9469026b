"""Scripts in the book's style, one a chapter, come to what plain NumPy in float64 comes to.

The plain modules are those of ``bench/book/plain``: formulas in float64, by loops where that is
plainest. A script is run twice, and leaves what it has found in ``found.npz``.
"""

from __future__ import annotations

import contextlib
import pickle
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image
from small_digits import as_bytes, digits

from xpdl.backends import available_backends
from xpdl.cli.main import main
from xpdl.datasets import MnistArrays, mnist

SCRIPTS = Path(__file__).parent / "scripts"
PLAIN = Path(__file__).parents[2] / "bench" / "book" / "plain"
PARAMETERS = np.random.default_rng(1)
WEIGHTS = {
    "W1": 0.1 * PARAMETERS.standard_normal((784, 8), dtype=np.float32),
    "b1": PARAMETERS.standard_normal(8, dtype=np.float32),
    "W2": PARAMETERS.standard_normal((8, 10), dtype=np.float32),
    "b2": np.zeros(10, np.float32),
}


@pytest.fixture(autouse=True)
def _small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = []
    for x, t in (digits(300, 0), digits(60, 1)):
        arrays += [as_bytes(x[:, 0]), t.astype(np.uint8)]
    monkeypatch.setattr(mnist, "read_mnist", lambda name="mnist": MnistArrays(*arrays))
    monkeypatch.setattr("xpdl.book.mnist.read_mnist", mnist.read_mnist)


@pytest.fixture
def chapters(tmp_path: Path) -> Path:
    """A reader's own copy of the scripts, with a file of weights."""
    shutil.copytree(SCRIPTS, tmp_path / "copy", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "copy/ch03/sample_weight.pkl").write_bytes(pickle.dumps(WEIGHTS))
    return tmp_path / "copy"


def found_by_us(script: Path, *options: str) -> dict[str, np.ndarray]:
    (script.parent / "found.npz").unlink(missing_ok=True)
    assert main(["book", *options, "--save", str(script.parent / "figures"), str(script)]) == 0
    return dict(np.load(script.parent / "found.npz"))


@contextlib.contextmanager
def plain_modules() -> Iterator[None]:
    before = set(sys.modules)
    sys.path.insert(0, str(PLAIN))
    try:
        yield
    finally:
        sys.path.remove(str(PLAIN))
        for name in set(sys.modules) - before:
            file = str(getattr(sys.modules[name], "__file__", None))
            if file.startswith(str(PLAIN)) or "copy" in file:
                del sys.modules[name]


def found_plainly(script: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    (script.parent / "found.npz").unlink(missing_ok=True)
    with monkeypatch.context() as patch, plain_modules():
        patch.chdir(script.parent)
        patch.setattr(sys, "path", [str(script.parent), *sys.path])
        patch.setattr(Image.Image, "show", lambda picture: None)
        patch.setattr("matplotlib.pyplot.show", lambda: None)
        runpy.run_path(str(script), run_name="__main__")
    return dict(np.load(script.parent / "found.npz"))


def expect_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], rtol: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == value.shape, name
        size = np.abs(value).max(initial=1e-3)
        np.testing.assert_allclose(found[name], value, rtol=rtol, atol=rtol * size, err_msg=name)


ALL = sorted(path.relative_to(SCRIPTS) for path in SCRIPTS.glob("ch*/*.py"))
RUN = [path for path in ALL if not path.name.endswith("net.py")]


@pytest.mark.parametrize("script", RUN, ids=lambda path: path.parent.name)
def test_a_script_comes_to_what_plain_numpy_does(script, chapters, monkeypatch, capsys):
    mpl.use("agg")
    wanted = found_plainly(chapters / script, monkeypatch)
    printed = capsys.readouterr().out
    expect_close(found_by_us(chapters / script, "--dtype", "float64"), wanted, 1e-6)
    assert [line[:12] for line in capsys.readouterr().out.splitlines()] == [
        line[:12] for line in printed.splitlines()
    ]
    for backend in ("numba", "strict", "generic"):
        if available_backends()[backend] == "ready":
            expect_close(found_by_us(chapters / script, "--backend", backend), wanted, 2e-3)
