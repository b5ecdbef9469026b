"""What an input means is in the network: integers are divided, floats are scaled already."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl import Network, Trainer
from xpdl.backends import Backend
from xpdl.errors import ArgumentError, ShapeError
from xpdl.layers import Affine, Convolution, Normalize, ReLU
from xpdl.optimizers import SGD

PIXELS = np.random.default_rng(2).integers(0, 256, (40, 2, 5, 5)).astype("uint8")
LABELS = np.arange(40) % 3


def net(**options: Any) -> Network:
    layer = Normalize(255, mean=(0.4, 0.5), deviation=(0.2, 0.3))
    return Network([Convolution(3, 3), ReLU(), Affine(3)], (2, 5, 5), normalize=layer, **options)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("integer", ["uint8", "int16", "int64"])
def test_bytes_and_floats_get_one_answer(backend: Backend, dtype: str, integer: str) -> None:
    network = net(dtype=dtype)
    floats = PIXELS / np.float32(255)
    one = backend.to_numpy(network.predict(backend.asarray(PIXELS.astype(integer))))
    other = backend.to_numpy(network.predict(backend.asarray(floats)))
    np.testing.assert_array_equal(one, other)
    assert one.dtype == dtype


def test_the_formula(backend: Backend) -> None:
    layer = Normalize(255, mean=(0.4, 0.5), deviation=(0.2, 0.3))
    mean, deviation = np.array([0.4, 0.5])[:, None, None], np.array([0.2, 0.3])[:, None, None]
    y = backend.to_numpy(layer.forward(backend.asarray(PIXELS), train=True))
    np.testing.assert_allclose(y, (PIXELS / 255 - mean) / deviation, rtol=1e-5, atol=1e-6)
    assert y.dtype == np.float32
    dout = np.random.default_rng(0).random(PIXELS.shape)
    dx = backend.to_numpy(layer.backward(backend.asarray(dout)))
    np.testing.assert_allclose(dx, dout / deviation)


def test_a_training_on_bytes_is_one_on_floats(backend: Backend) -> None:
    left = []
    for x in (PIXELS, PIXELS / np.float32(255)):
        network = net(seed=3)
        Trainer(network, (x, LABELS), (x, LABELS), optimizer=SGD(0.05), epochs=2, batch_size=16,
                progress=False).fit()  # fmt: skip
        left.append({name: backend.to_numpy(a) for name, a in network.params.items()})
        answers = [network.accuracy(backend.asarray(x), backend.asarray(LABELS))
                   for x in (PIXELS, PIXELS / np.float32(255))]  # fmt: skip
        assert answers[0] == answers[1]
    for name, a in left[0].items():
        np.testing.assert_array_equal(a, left[1][name])


@pytest.mark.usefixtures("on_numpy")
def test_only_such_a_network_divides() -> None:
    plain = Network([Affine(1)], 2, loss=xpdl.losses.IdentityWithLoss(), dtype="float64")
    plain.params["affine1.W"] = np.ones((2, 1))
    np.testing.assert_array_equal(plain.predict(np.array([[100, 55]])), [[155.0]])
    with pytest.raises(ArgumentError, match=r"normalize=xpdl.layers.Normalize\(255\)"):
        Trainer(plain, (np.ones((2, 2)), np.ones((2, 1))), divisor=255)


@pytest.mark.usefixtures("on_numpy")
def test_it_is_in_the_file_with_the_names(tmp_path: Any) -> None:
    network = net(class_names=["cat", "dog", "eel"])
    network.save(tmp_path / "net")
    again = xpdl.load(tmp_path / "net")
    assert again.normalize is not None
    assert (again.normalize.divisor, again.normalize.mean) == (255.0, (0.4, 0.5))
    assert again.class_names == ("cat", "dog", "eel")
    np.testing.assert_array_equal(again.predict(PIXELS), network.predict(PIXELS))
    with pytest.raises(ShapeError, match="class_names has 2 names"):
        net(class_names=["cat", "dog"])


@pytest.mark.usefixtures("on_numpy")
def test_names_and_masks_stay_as_they_are() -> None:
    with_it, without = net(), Network([Convolution(3, 3), ReLU(), Affine(3)], (2, 5, 5))
    assert list(with_it.params) == list(without.params)
    for name, a in without.params.items():
        np.testing.assert_array_equal(with_it.params[name], a)


@pytest.mark.usefixtures("on_numpy")
def test_floats_that_are_not_scaled_are_said_once() -> None:
    network = net()
    with pytest.warns(UserWarning, match=r"deviations from the mean.*integers are divided by 255"):
        network.predict(PIXELS.astype("float32"))
    network.predict(PIXELS.astype("float32"))  # once is enough


def test_what_it_refuses() -> None:
    with pytest.raises(ShapeError, match="mean is of 3 channels"):
        Network([Normalize(mean=(0.1, 0.2, 0.3)), Affine(2)], (2, 5, 5))
    with pytest.raises(ArgumentError, match="stands first"):
        Network([Affine(3), Normalize(), Affine(2)], 4)
    with pytest.raises(ArgumentError, match="deviation must be above 0"):
        Normalize(deviation=0)


@pytest.mark.parametrize(
    ("shape", "advice"),
    [
        ((4, 5, 5, 2), r"x\.transpose\(0, 3, 1, 2\)"),
        ((5, 5, 2), r"x\.transpose\(2, 0, 1\)\[None\]"),
        ((2, 5, 5), r"x\[None\]"),
        ((4, 50), r"x\.reshape\(-1, 2, 5, 5\)"),
    ],
)
@pytest.mark.usefixtures("on_numpy")
def test_the_advice_on_shapes_is_right(shape: tuple[int, ...], advice: str) -> None:
    with pytest.raises(ShapeError, match=advice):
        net().predict(np.zeros(shape, "float32"))


@pytest.mark.parametrize(
    ("shape", "advice"), [((4, 5, 5), r"x\[:, None\]"), ((5, 5), "None, None")]
)
@pytest.mark.usefixtures("on_numpy")
def test_the_advice_on_grey_pictures(shape: tuple[int, ...], advice: str) -> None:
    with pytest.raises(ShapeError, match=advice):
        Network([Affine(2)], (1, 5, 5)).predict(np.zeros(shape, "float32"))
