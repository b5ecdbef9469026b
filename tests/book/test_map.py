"""``docs/from-the-book.md``: every line of the map runs, in the book's words and in ours."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_digits import as_bytes, digits

import xpdl
import xpdl.plots
import xpdl.storage
from xpdl import losses
from xpdl.book import arrays, functions, gradient, layers, multi_layer_net, optimizer, trainer
from xpdl.book import mnist as book_mnist
from xpdl.book.modules import BOOK, book_modules
from xpdl.book.multi_layer_net_extend import MultiLayerNetExtend
from xpdl.datasets import MnistArrays, mnist

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
TEXT = (ROOT / "docs/from-the-book.md").read_text()
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in TEXT.partition("## Functions")[2].splitlines()
    if line.startswith("| `")
]
OTHER_VALUES = {  # by the third column, or by other random numbers
    "shuffle_dataset(images, t)",
    "small.numerical_gradient(rows, classes)",
    "trainer.train_loss_list",
    "trainer.train_acc_list",
    "trainer.test_acc_list",
}


def class_in(chapter: str, module: str, name: str) -> Any:
    """Return a class of a script in the book's style, with our modules under the book's names."""
    path = SCRIPTS / chapter / f"{module}.py"
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    before = sys.path[:]
    with book_modules(path):
        spec.loader.exec_module(loaded)
    sys.path[:] = before
    return getattr(loaded, name)


def shared(rng: np.random.Generator) -> dict[str, Any]:
    """Return what the lines of both columns are about: host arrays, of float32 where ours are."""

    def floats(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    labels = np.array([1, 0, 3])
    images = floats(3, 2, 6, 6)
    return {
        "np": np, "x": floats(3, 4), "t": np.array([2, 0, 1]),
        "one_hot": np.eye(4)[[2, 0, 1]],
        "y": functions.softmax(floats(3, 4)), "f": lambda p: (p**2).sum(), "p": rng.random(3),
        "P": rng.random((2, 3)), "images": images, "col": arrays.im2col(images, 3, 3, 1, 1),
        "W": floats(4, 5), "b": floats(5), "dout": floats(3, 5), "filters": floats(3, 2, 3, 3),
        "bias": floats(3), "gamma": floats(72), "beta": floats(72), "losses": list(rng.random(20)),
        "batch": floats(3, 784), "labels": labels, "rows": rng.random((3, 4)),
        "classes": np.array([0, 1, 1]),
    }  # fmt: skip


def book_words(rng: np.random.Generator) -> dict[str, Any]:
    words = {
        name: value
        for module in (functions, gradient, arrays, layers, optimizer, trainer, multi_layer_net)
        for name, value in vars(module).items()
        if name in module.__all__
    }
    words |= {"MultiLayerNetExtend": MultiLayerNetExtend, "load_mnist": book_mnist.load_mnist}
    words["init_mnist"] = book_mnist.init_mnist
    words["TwoLayerNet"] = lambda input_size, hidden_size, output_size: (
        multi_layer_net.MultiLayerNet(input_size, [hidden_size], output_size)
    )
    words["SimpleConvNet"] = class_in("ch07", "simple_convnet", "SimpleConvNet")
    words["DeepConvNet"] = class_in("ch08", "deep_convnet", "DeepConvNet")
    param = {"filter_num": 2, "filter_size": 5, "pad": 0, "stride": 1}
    words["simple"] = words["SimpleConvNet"]((1, 28, 28), param, 10, 10)
    words["small"] = multi_layer_net.MultiLayerNet(4, [3], 2)
    return shared(rng) | words


def our_words(rng: np.random.Generator) -> dict[str, Any]:
    words = {"xpdl": xpdl, "F": xpdl.functions, "SoftmaxWithLoss": losses.SoftmaxWithLoss}
    for module in (xpdl.layers, xpdl.optimizers, xpdl.models):
        words |= {name: getattr(module, name) for name in module.__all__}
    words["simple"] = xpdl.models.SimpleConvNet(filters=2, hidden_size=10)
    words["small"] = xpdl.models.MultiLayerNet(4, [3], 2, dtype="float64")
    return shared(rng) | words


def run(code: str, words: dict[str, Any]) -> Any:
    try:
        return eval(code, words)
    except SyntaxError:
        return exec(code, words)


def expect_equal(found: Any, wanted: Any) -> None:
    """See that two results agree, where both are numbers."""
    try:
        found, wanted = (np.asarray(value, dtype=np.float64) for value in (found, wanted))
    except (TypeError, ValueError):
        return  # layers, networks, optimizers
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-6)


@pytest.fixture
def _small_mnist(monkeypatch):
    parts = []
    for x, t in (digits(100, 0), digits(60, 1)):
        parts += [as_bytes(x[:, 0]), t.astype(np.uint8)]
    monkeypatch.setattr(mnist, "read_mnist", lambda name="mnist": MnistArrays(*parts))
    for place in ("xpdl.book.mnist.read_mnist", "xpdl.datasets.read_mnist"):
        monkeypatch.setattr(place, mnist.read_mnist)


@pytest.mark.usefixtures("_small_mnist", "on_numpy")  # the book's column is NumPy's
def test_every_line_runs_in_both_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.random.seed(0)
    book, ours = book_words(np.random.default_rng(1)), our_words(np.random.default_rng(1))
    for words, load in (book, book_mnist.load_mnist), (ours, xpdl.datasets.load_mnist):
        (words["x_train"], words["t_train"]), (words["x_test"], words["t_test"]) = load()
    for left, right, _ in ROWS:
        codes = [re.fullmatch(r"`(.*)`", cell) for cell in (left, right)]
        assert all(codes), left
        their, our = (code[1] for code in codes if code)
        wanted, found = run(their, book), run(our, ours)
        if their.startswith("net = "):
            for name in ("W1", "b1", "W2", "b2"):
                ours["net"].params[f"affine{name[1]}.{name[0]}"][...] = book["net"].params[name]
        if their not in OTHER_VALUES:
            expect_equal(found, wanted)


def test_the_map_has_every_name_of_the_book():
    said = TEXT.partition("## Functions")[2]
    modules = [importlib.import_module(f"xpdl.book.{file}")
               for files in BOOK.values() for file in files.values()]  # fmt: skip
    names = {
        name
        for module in modules
        for name in module.__all__
        if getattr(getattr(module, name), "__module__", "").startswith("xpdl.book")
    }
    assert len(names) > 30
    assert [name for name in sorted(names) if f"{name}(" not in said] == []


def test_the_map_says_what_the_command_does():
    assert "xpdl book SCRIPT [ARGS]" in TEXT
    assert "--dtype float64" in TEXT
    for option in inspect.signature(xpdl.models.SimpleConvNet).parameters:
        if option not in ("weight_init_std", "options"):
            assert f"{option}=" in TEXT
