"""A network with a new head: what is new, what stays, and what learns."""

from __future__ import annotations

import numpy as np
import pytest

import xpdl
from xpdl.errors import ArgumentError, ShapeError
from xpdl.layers import Affine, BatchNormalization, Convolution, Input, ReLU, Sequential
from xpdl.models import MobileNetV2, SqueezeNet, head_of, new_head
from xpdl.network import Network
from xpdl.optimizers import SGD

NAMES = ["daisy", "rose", "tulip"]


def chain(**options):
    layers = [Convolution(4, 3, pad=1), BatchNormalization(), ReLU(), Affine(5)]
    return Network(layers, (3, 6, 6), seed=2, class_names=list("abcde"), **options)


def nested():
    x = Input((3, 6, 6))
    front = Sequential([Convolution(4, 3), BatchNormalization(), ReLU()])
    return Network(x, Sequential({"scores": Affine(5)})(front(x)), seed=2)


NETWORKS = {
    "a chain": (chain, "affine1"),
    "a block at the end": (nested, "block2.scores"),
    "MobileNetV2": (lambda: MobileNetV2((3, 32, 32), 7, seed=1), "affine1"),
    "SqueezeNet": (lambda: SqueezeNet((3, 32, 32), 7, seed=1), "conv26"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_alone_is_new(name):
    make, head = NETWORKS[name]
    network = make()
    other = new_head(network, NAMES, seed=3)
    assert head_of(network) == head_of(other) == head
    assert other.output_shape == (3,)
    assert other.class_names == tuple(NAMES)
    theirs, ours = network.host_arrays(), other.host_arrays()
    assert theirs.keys() == ours.keys()
    for key, array in ours.items():
        assert array.dtype == theirs[key].dtype
        if not key.startswith(f"{head}."):
            np.testing.assert_array_equal(array, theirs[key])
    W = ours[f"{head}.W"]
    assert 3 in W.shape
    assert W.std() > 0
    assert (new_head(network, 3, seed=3).host_arrays()[f"{head}.W"] == W).all()
    assert (new_head(network, 3, seed=4).host_arrays()[f"{head}.W"] != W).any()
    learning = {key for key in other.params if key not in other.params.frozen}
    assert learning == {f"{head}.W", f"{head}.b"}


def train(network, rate_factors=None):
    """Make a step, and return by how much each array changed."""
    rng = np.random.default_rng(1)
    x, t = rng.random((6, *network.input_shape), np.float32), np.array([0, 1, 2, 2, 1, 0])
    before = network.host_arrays()
    optimizer = SGD(0.1, rate_factors=rate_factors)
    xpdl.Step(network, optimizer)(network.backend.asarray(x), network.backend.asarray(t))
    return {key: np.abs(a - before[key]).max() for key, a in network.host_arrays().items()}


def test_first_the_head_learns_and_then_all_at_its_rate(backend):
    network = new_head(chain(), NAMES)
    changes = train(network)
    assert changes.pop("affine1.W") > 0
    assert changes.pop("affine1.b") > 0
    assert set(changes.values()) == {0}  # running statistics, too

    twin = new_head(chain(), NAMES)
    network = new_head(chain(), NAMES)
    for each in (twin, network):
        each.unfreeze()
    alike, slowed = train(twin), train(network, {"conv1": 0.1, "norm1": 0.1})
    assert slowed["norm1.running_mean"] == pytest.approx(alike["norm1.running_mean"])
    assert alike["norm1.running_mean"] > 0
    for key in ("conv1.W", "norm1.gamma"):
        assert slowed[key] == pytest.approx(0.1 * alike[key], rel=1e-2)
    assert slowed["affine1.W"] == pytest.approx(alike["affine1.W"], rel=1e-4)


def test_another_size_of_pictures():
    network = MobileNetV2((3, 64, 64), 7, seed=1)
    other = new_head(network, 4, input_shape=(3, 32, 32))
    assert other.input_shape == (3, 32, 32)
    x = other.backend.asarray(np.zeros((1, 3, 32, 32), np.float32))
    assert other.predict(x).shape == (1, 4)
    with pytest.raises(ShapeError, match=r"affine1\.W"):
        new_head(Network([Affine(4), ReLU(), Affine(2)], (3, 6, 6)), 4, input_shape=(3, 5, 5))


def test_what_has_no_head_is_said():
    x = Input((3, 6, 6))
    several = Network(x, {"class": Affine(5)(x), "box": Affine(4)(x)})
    with pytest.raises(ArgumentError, match="several outputs, class, box"):
        new_head(several, 3)
    normalised = Network([Affine(4), BatchNormalization()], 6)
    with pytest.raises(ArgumentError, match="must end in an Affine or a Convolution"):
        new_head(normalised, 3)
    with pytest.raises(ArgumentError, match="classes"):
        new_head(chain(), 1)
    with pytest.raises(ArgumentError, match="class_names"):
        new_head(chain(), [1, 2])
