"""Batch normalisation that a convolution computes, at inference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpdl
from xpdl.backends import Backend
from xpdl.layers import (
    Add,
    BatchNormalization,
    Convolution,
    GlobalAveragePooling,
    Layer,
    ReLU,
    Tanh,
)
from xpdl.network import Network


class OneMore(BatchNormalization):
    def forward(self, x: Any, train: bool = False) -> Any:
        return super().forward(x, train) + 1


def folds(network: Network) -> int:
    """Return how many places there are less at inference."""
    return len(network.body.places) - len(network.body._ways[False][0])


def learned(network: Network, rng: Any) -> Network:
    """Return the network with statistics and parameters that a training might have left."""
    for layer in network.leaves().values():
        for arrays in (layer.state, layer.params):
            for name, array in arrays.items():
                size = rng.uniform(0.5, 2, array.shape)
                positive = name in ("running_var", "gamma")
                array[...] = network.backend.asarray(size if positive else size - 1)
    return network


def unfolded(network: Network, x: Any) -> Any:
    *_, last = network.body.activations(x).values()
    return network.backend.to_numpy(last)


CHAINS: list[tuple[list[Layer], int]] = [
    ([Convolution(4, 3, pad=1, bias=False), BatchNormalization(), ReLU()], 2),
    ([Convolution(4, 3, 2, pad=1, remainder="drop"), BatchNormalization()], 1),
    ([Convolution(16, 3, pad=1), BatchNormalization(), ReLU(), Convolution(32, 3, pad=1)], 2),
    ([Convolution(16, 1), BatchNormalization(), Convolution(16, 3), BatchNormalization()], 2),
    ([Convolution(4, 3, groups=2, dilation=2), BatchNormalization(), Tanh()], 1),
    ([Convolution(2, 3, pad=((0, 1), (1, 0)), groups=2), BatchNormalization(), ReLU()], 2),
    ([Convolution(4, 3), ReLU(), BatchNormalization()], 0),
    ([Convolution(4, 3), OneMore(), ReLU()], 0),
]


@pytest.mark.parametrize(("layers", "count"), CHAINS, ids=[str(i) for i in range(len(CHAINS))])
def test_scores_are_those_of_layer_by_layer(
    backend: Backend, rng: Any, layers: list[Layer], count: int
) -> None:
    fresh = [xpdl.layers.layer_from_config(layer.config()) for layer in layers]
    network = learned(Network([*fresh, GlobalAveragePooling()], (2, 6, 7)), rng)
    assert folds(network) == count
    x = backend.asarray(rng.standard_normal((3, 2, 6, 7)).astype(np.float32))
    for _ in range(2):
        found = backend.to_numpy(network.predict(x))
        np.testing.assert_allclose(found, unfolded(network, x), rtol=2e-5, atol=2e-5)
        learned(network, rng)  # they are taken as they are now


def test_training_is_not_folded(backend: Backend, rng: Any) -> None:
    layers = [Convolution(4, 3), BatchNormalization(), ReLU(), GlobalAveragePooling()]
    network = Network(layers, (2, 6, 6), seed=1)
    x = backend.asarray(rng.standard_normal((5, 2, 6, 6)).astype(np.float32))
    outputs = backend.to_numpy(network.body.activations(x)["conv1"])
    before = backend.to_numpy(network.predict(x))
    network.body.forward(x, train=True)
    (running,) = (
        layer.state["running_mean"] for layer in layers if isinstance(layer, BatchNormalization)
    )
    expected = 0.1 * outputs.mean(axis=(0, 2, 3))
    np.testing.assert_allclose(backend.to_numpy(running), expected, rtol=1e-4, atol=1e-6)
    assert not np.allclose(backend.to_numpy(network.predict(x)), before, atol=1e-3)


def test_what_somebody_else_reads_too_stays_as_it_is(backend: Backend, rng: Any) -> None:
    x = xpdl.Input((2, 6, 6))
    products = Convolution(2, 3, pad=1)(x)
    normal = BatchNormalization()(products)
    both = Add()(ReLU()(normal), normal)
    network = learned(Network(x, GlobalAveragePooling()(both)), rng)
    assert folds(network) == 1  # the normalisation; its ReLU does not stand alone behind it
    data = backend.asarray(rng.standard_normal((3, 2, 6, 6)).astype(np.float32))
    found = backend.to_numpy(network.predict(data))
    np.testing.assert_allclose(found, unfolded(network, data), rtol=2e-5, atol=2e-5)
    skip = Add()(products, BatchNormalization()(products))
    with pytest.raises(xpdl.errors.ArgumentError):  # a layer belongs to one network
        Network(x, skip)
    x = xpdl.Input((2, 6, 6))
    products = Convolution(2, 3, pad=1)(x)
    skipping = Network(x, GlobalAveragePooling()(Add()(products, BatchNormalization()(products))))
    assert folds(skipping) == 0
