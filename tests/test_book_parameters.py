"""The book's own parameter files give here what they give in the book's own code."""

from __future__ import annotations

import doctest
import pickle
import re
from functools import cache

import numpy as np
import pytest

import xpdl
from xpdl import Network, storage
from xpdl.errors import ArgumentError, FileAccessError, ModelFileError
from xpdl.layers import Affine, BatchNormalization, Convolution, Dropout, ReLU
from xpdl.models import DeepConvNet, MultiLayerNet, SimpleConvNet, TwoLayerNet
from xpdl.storage import load_book_parameters

# ---- the book's networks, from their formulas ---------------------------------------------------


def convolve(x, W, b, pad):
    """Return y[n, f, i, j] = sum over c, k, l of x[n, c, i + k, j + l] W[f, c, k, l] + b[f]."""
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    height, width = (size - k + 1 for size, k in zip(x.shape[2:], W.shape[2:], strict=True))
    y = np.zeros((len(x), len(W), height, width))
    for k, l in np.ndindex(W.shape[2:]):  # noqa: E741
        y += np.einsum("nchw,fc->nfhw", x[:, :, k : k + height, l : l + width], W[:, :, k, l],
                       optimize=True)  # fmt: skip
    return y + b[:, None, None]


def pool(x):
    """Return the highest of each 2x2 window."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // 2, 2, w // 2, 2).max(axis=(3, 5))


def affine(x, W, b):
    return x.reshape(len(x), -1) @ W + b


def relu(x):
    return np.where(x > 0, x, 0)


def three_layers(x, p):
    for n in "12":
        x = 1 / (1 + np.exp(-affine(x, p["W" + n], p["b" + n])))
    return affine(x, p["W3"], p["b3"])


def simple_conv_net(x, p):
    x = pool(relu(convolve(x, p["W1"], p["b1"], 0)))
    return affine(relu(affine(x, p["W2"], p["b2"])), p["W3"], p["b3"])


def deep_conv_net(x, p):
    for n, pad in enumerate((1, 1, 1, 2, 1, 1), start=1):
        x = relu(convolve(x, p[f"W{n}"], p[f"b{n}"], pad))
        if n % 2 == 0:
            x = pool(x)
    # In the book dropout scales at inference, and its last one is behind the scores.
    hidden = relu(affine(x, p["W7"], p["b7"])) * (1 - 0.5)
    return affine(hidden, p["W8"], p["b8"]) * (1 - 0.5)


THREE_LAYERS = [(784, 50), (50, 100), (100, 10)]
SIMPLE = [(30, 1, 5, 5), (4320, 100), (100, 10)]
DEEP = [
    *[(16, 1, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3)],
    *[(32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3)],
    *[(1024, 50), (50, 10)],
]


def sigmoid_net(**options):
    return MultiLayerNet(784, [50, 100], activation="sigmoid", **options)


BOOK = {
    "sample_weight.pkl": (sigmoid_net, three_layers, THREE_LAYERS, (784,)),
    "params.pkl": (SimpleConvNet, simple_conv_net, SIMPLE, (1, 28, 28)),
    "deep_convnet_params.pkl": (DeepConvNet, deep_conv_net, DEEP, (1, 28, 28)),
}


def draw(shapes, dtype="f4"):
    """Return parameters by the book's names, all of a size at which activations stay alive."""
    rng = np.random.default_rng(7)
    parameters = {}
    for n, shape in enumerate(shapes, start=1):
        fan_in, units = (shape[0], shape[1]) if len(shape) == 2 else (np.prod(shape[1:]), shape[0])
        parameters[f"W{n}"] = (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(dtype)
        parameters[f"b{n}"] = (0.1 * rng.standard_normal(units)).astype(dtype)
    return parameters


def write(path, parameters):
    """Write parameters as the book does."""
    with open(path, "wb") as file:
        pickle.dump(parameters, file)
    return path


@cache
def example(name):
    """Return pictures, labels, parameters in float32, and the scores by the formulas in float64."""
    _, forward, shapes, input_shape = BOOK[name]
    rng = np.random.default_rng(20160924)
    samples = 100 if len(shapes) > 3 else 200
    # Gray levels of blots on a background of zeros, from 0 to 1 in float32 as in the book's data.
    blots = np.kron(rng.integers(0, 256, (samples, 1, 7, 7)), np.ones((4, 4)))
    x = (blots * (blots > 120)).astype(np.float32) / np.float32(255)
    x = x.reshape(samples, *input_shape)
    parameters = draw(shapes)

    def scores():
        return forward(x.astype("f8"), {k: v.astype("f8") for k, v in parameters.items()})

    # Bring the classes level, so that pictures are of all of them; dropout halves the deep scores.
    parameters[f"b{len(shapes)}"] -= (scores().mean(axis=0) * (2 if len(shapes) > 3 else 1)).astype(
        "f4"
    )
    wanted = scores()
    t = np.where(rng.random(samples) < 0.9, wanted.argmax(axis=1), rng.integers(0, 10, samples))
    return x, t, parameters, wanted


@pytest.mark.parametrize("name", BOOK)
def test_scores_and_accuracy_are_the_books(name, backend, tmp_path):
    x, t, parameters, wanted = example(name)
    assert np.bincount(wanted.argmax(axis=1), minlength=10).min() > 0
    network = BOOK[name][0](dtype="float64", seed=1)
    load_book_parameters(network, write(tmp_path / name, parameters))
    x, t_there = backend.asarray(x, dtype="float64"), backend.asarray(t)
    scores = backend.to_numpy(network.predict(x))
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-12)
    accuracy = network.accuracy(x, t_there)
    assert accuracy == np.count_nonzero(wanted.argmax(axis=1) == t) / len(t)
    assert 0.5 < accuracy < 1


# ---- names, types and orders --------------------------------------------------------------------


@pytest.mark.parametrize("source", ["<f4", ">f4", "<f8", ">f8", "<f2"])
@pytest.mark.parametrize("target", ["float16", "float32", "float64"])
def test_any_float_type_into_any_other(source, target, backend, tmp_path):
    parameters = draw([(2, 1, 2, 3), (12, 3)], source)
    parameters["W1"] = np.asfortranarray(parameters["W1"])
    network = Network([Convolution(2, (2, 3)), ReLU(), Affine(3)], (1, 3, 5), dtype=target)
    load_book_parameters(network, write(tmp_path / "p.pkl", parameters))
    wanted = "float64" if target == "float64" else "float32"  # halves have masters in float32
    for name, ours in {
        "W1": "conv1.W",
        "b1": "conv1.b",
        "W2": "affine1.W",
        "b2": "affine1.b",
    }.items():
        array = network.params[ours]
        assert array.dtype == wanted
        np.testing.assert_array_equal(
            backend.to_numpy(array), parameters[name].astype(np.dtype(wanted))
        )
    x = backend.asarray(np.ones((1, 1, 3, 5)), dtype=network.precision.compute)
    before = backend.to_numpy(network.predict(x))
    parameters["b2"] = parameters["b2"] + np.ones(3, source)
    load_book_parameters(network, write(tmp_path / "p.pkl", parameters))
    np.testing.assert_allclose(backend.to_numpy(network.predict(x)), before + 1, atol=0.01)


def test_names_of_ones_own_and_more_than_nine_layers(tmp_path):
    network = Network({f"layer {n}": Affine(2) for n in range(12, 0, -1)}, (2,))
    parameters = draw(12 * [(2, 2)])
    shuffled = dict(sorted(parameters.items(), reverse=True))
    assert load_book_parameters(network, str(write(tmp_path / "p.pkl", shuffled))) is None
    for n, (name, array) in enumerate(network.params.items()):
        np.testing.assert_array_equal(
            xpdl.to_numpy(array), parameters["Wb"[n % 2] + str(n // 2 + 1)]
        )
        assert name.startswith(f"layer {12 - n // 2}.")


def test_a_network_of_two_layers_and_dropout(tmp_path):
    network = MultiLayerNet(6, [4], 3, dropout_ratio=0.5)
    parameters = draw([(6, 4), (4, 3)])
    load_book_parameters(network, write(tmp_path / "p.pkl", parameters))
    np.testing.assert_array_equal(xpdl.to_numpy(network.params["affine2.W"]), parameters["W2"])


# ---- what does not fit --------------------------------------------------------------------------

GOOD = draw([(4, 3), (3, 2)])
MISFITS = {
    "nothing in it": ({}, ["W1 is missing, wanted (4, 3) for affine1.W", "b2 is missing"]),
    "a missing one": ({**GOOD, "b1": None}, ["b1 is missing, wanted (3,) for affine1.b"]),
    "one too many": ({**GOOD, "W3": GOOD["W2"]}, ["'W3' is not wanted"]),
    "names of another kind": ({**GOOD, "gamma1": GOOD["b1"]}, ["'gamma1' is not wanted"]),
    "other counting": (
        {"W0": GOOD["W1"], "b0": GOOD["b1"], "W1": GOOD["W2"], "b1": GOOD["b2"]},
        ["W1 is (3, 2), wanted (4, 3)", "W2 is missing", "'W0' is not wanted"],
    ),
    "turned": ({**GOOD, "W1": GOOD["W1"].T}, ["W1 is (3, 4), wanted (4, 3) for affine1.W"]),
    "biases in rows": ({**GOOD, "b1": GOOD["b1"][None]}, ["b1 is (1, 3), wanted (3,)"]),
    "a number": ({**GOOD, "b1": np.float32(1)}, ["b1 is (), wanted (3,)"]),
    "whole numbers": ({**GOOD, "b2": np.arange(2)}, ["b2 is of int64, wanted floats"]),
    "bools": ({**GOOD, "b2": np.array([True, False])}, ["b2 is of bool, wanted floats"]),
    "NaN": ({**GOOD, "W2": np.full((3, 2), np.nan)}, ["W2 holds NaN, infinity or numbers beyond"]),
    "NaN that signals": (
        {**GOOD, "W2": np.full((3, 2), 0x7FF0000000000001, "u8").view("f8")}, ["W2 holds NaN"],
    ),
    "infinity": ({**GOOD, "W2": np.full((3, 2), -np.inf)}, ["W2 holds NaN, infinity or"]),
    "beyond float32": ({**GOOD, "b2": np.array([1e39, 0])}, ["b2 holds", "beyond float32"]),
    "two at once": (
        {**GOOD, "W1": GOOD["W1"].T, "b2": np.full(2, np.nan)},
        ["W1 is (3, 4), wanted (4, 3) for affine1.W; b2 holds NaN"],
    ),
    "a hundred": (
        {f"W{n}": GOOD["b1"] for n in range(100)}, ["W1 is (3,)", "b2 is missing", "and 94 more"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_misfits_are_listed_and_change_nothing(case, backend, tmp_path):
    parameters, words = MISFITS[case]
    path = write(tmp_path / "p.pkl", {k: v for k, v in parameters.items() if v is not None})
    network = Network([Affine(3), ReLU(), Affine(2)], (4,), seed=3)
    before = {name: backend.to_numpy(a).copy() for name, a in network.params.items()}
    with pytest.raises(ModelFileError, match=r"p\.pkl' does not fit Network: ") as caught:
        load_book_parameters(network, path)
    for part in words:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 800
    for name, array in network.params.items():
        np.testing.assert_array_equal(backend.to_numpy(array), before[name])


@pytest.mark.parametrize("name", BOOK)
def test_another_of_the_books_files_is_recognised(name, tmp_path):
    path = write(tmp_path / name, draw(BOOK[name][2]))
    with pytest.raises(ModelFileError, match="does not fit TwoLayerNet: W1 is") as caught:
        load_book_parameters(TwoLayerNet(9), path)
    code = re.search(r"Its weights are shaped as those of (.+)\.$", str(caught.value)).group(1)
    made = eval(code, {kind.__name__: kind for kind in (MultiLayerNet, SimpleConvNet, DeepConvNet)})
    load_book_parameters(made, path)  # what the message names is right


def test_networks_that_the_books_files_cannot_fill(tmp_path):
    path = write(tmp_path / "p.pkl", GOOD)
    normalized = MultiLayerNet(4, [3], 2, use_batchnorm=True)
    with pytest.raises(
        ArgumentError, match=r"no running statistics; norm1 of MultiLayerNet.*gamma"
    ):
        load_book_parameters(normalized, path)
    without = Network([Affine(3, bias=False), Affine(2)], (4,))
    with pytest.raises(
        ArgumentError, match=r"affine1 of Network, Affine\(3, bias=False\), has W\."
    ):
        load_book_parameters(without, path)
    with pytest.raises(ArgumentError, match="network must be a Network"):
        load_book_parameters([Affine(3), BatchNormalization(), Dropout()], path)


def test_the_file_is_read_safely(tmp_path):
    network = Network([Affine(3), Affine(2)], (4,))
    with pytest.raises(FileAccessError, match="nothing-here"):
        load_book_parameters(network, tmp_path / "nothing-here")
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(Vtrue\ntR.")
    with pytest.raises(ModelFileError, match=r"evil\.pkl' is refused: it asks for 'os\.system'"):
        load_book_parameters(network, tmp_path / "evil.pkl")


def test_the_example_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parameters = draw(THREE_LAYERS)
    write("sample_weight.pkl", parameters)
    (example,) = doctest.DocTestFinder().find(load_book_parameters, "example", storage)
    assert example.examples
    result = doctest.DocTestRunner().run(example, clear_globs=False)
    assert not result.failed
    weights = xpdl.to_numpy(example.globs["network"].params["affine3.W"])
    np.testing.assert_array_equal(weights, parameters["W3"])
