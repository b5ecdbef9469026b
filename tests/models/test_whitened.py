"""The network whose first filters are measured."""

import numpy as np
import pytest

import xpdl
from xpdl.errors import ArgumentError, ShapeError
from xpdl.layers import Normalize
from xpdl.models import WhitenedConvNet
from xpdl.models.whitened import whitening_filters

SMALL = {"input_shape": (3, 17, 17), "widths": (4, 6), "output_size": 5}


def test_parameters_of_each_layer():
    """conv 2x2: 24 (12 + 1); widths w: 9 w (c + w) + 4 w; affine 256 x 10 + 10."""
    network = WhitenedConvNet(initialize=False)
    counts = {name: int(np.prod(s)) for name, s in network.parameters.layout.shapes.items()}
    pairs = sum(9 * w * (c + w) + 4 * w for c, w in ((24, 64), (64, 256), (256, 256)))
    assert sum(counts.values()) == 24 * 13 + pairs + 2_570 == 1_972_802


def test_what_the_filters_give_is_white(rng):
    """Of pictures whose neighbours are alike: uncorrelated, of variance 1, and the same negated."""
    fine = rng.standard_normal((400, 3, 9, 9))
    x = fine + np.roll(fine, 1, 2) + 0.5 * np.roll(fine, 1, 1) + 0.2
    filters = whitening_filters(x)
    assert filters.shape == (24, 3, 2, 2)
    np.testing.assert_array_equal(filters[12:], -filters[:12])
    windows = np.lib.stride_tricks.sliding_window_view(x, (2, 2), axis=(2, 3))
    seen = np.einsum("nchwij,fcij->fnhw", windows, filters[:12]).reshape(12, -1)
    np.testing.assert_allclose(seen @ seen.T / seen.shape[1], np.eye(12), atol=0.02)
    sizes = np.linalg.norm(filters[:12].reshape(12, -1), axis=1)
    assert (np.diff(sizes) > 0).all()  # the largest variance first


def test_the_networks_own_pixels_are_looked_at(backend, rng):
    """Bytes of any backend: scaled as the network scales them; the filters stay as they are."""
    network = WhitenedConvNet(**SMALL, normalize=Normalize(255, 0.4, 0.3), seed=1)
    x = rng.integers(0, 256, (30, 3, 17, 17), dtype=np.uint8)
    others = {name: xpdl.to_numpy(a).copy() for name, a in network.params.items()}
    network.whiten(backend.asarray(x))
    filters = xpdl.to_numpy(network.params["conv1.W"])
    wanted = whitening_filters((x / 255.0 - 0.4) / 0.3)
    order = np.sign((filters * wanted).sum(axis=(1, 2, 3)))  # a direction has two signs
    np.testing.assert_allclose(filters, order[:, None, None, None] * wanted, rtol=2e-3, atol=2e-4)
    assert network.frozen == ("conv1",)
    network.forward_backward(backend.asarray(x), backend.asarray(np.arange(30) % 5))
    assert not xpdl.to_numpy(network.grads["conv1.W"]).any()
    assert xpdl.to_numpy(network.grads["conv2.W"]).any()
    del others["conv1.W"]
    for name, a in others.items():
        np.testing.assert_array_equal(xpdl.to_numpy(network.params[name]), a)


@pytest.mark.usefixtures("on_numpy")
def test_at_most_a_thousand_evenly_spread(rng):
    network = WhitenedConvNet(**SMALL)
    x = rng.random((2001, 3, 17, 17), np.float32)
    network.whiten(x)
    filters = network.params["conv1.W"].copy()
    np.testing.assert_allclose(np.abs(filters), np.abs(whitening_filters(x[::3])), rtol=1e-3)


@pytest.mark.usefixtures("on_numpy")
def test_one_shade_gives_numbers():
    network = WhitenedConvNet(**SMALL)
    network.whiten(np.zeros((3, 3, 17, 17), np.float32))
    assert np.isfinite(network.params["conv1.W"]).all()


@pytest.mark.usefixtures("on_numpy")
def test_what_does_not_fit_is_said(rng):
    network = WhitenedConvNet(**SMALL)
    for x in (rng.random((4, 3, 16, 17)), rng.random((0, 3, 17, 17)), rng.random((3, 17, 17))):
        with pytest.raises(ShapeError, match=r"x must be pictures \(N, 3, 17, 17\), got"):
            network.whiten(x)
    assert network.frozen == ()
    for widths in ((), 64, "64"):
        with pytest.raises(ArgumentError, match="widths must be numbers of filters"):
            WhitenedConvNet(widths=widths)
    with pytest.raises(ShapeError):
        WhitenedConvNet((3, 8, 8))
