"""The networks of chapter 8 have as many parameters as those who published them say."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpdl
from xpdl.errors import ArgumentError
from xpdl.models import VGG, AlexNet, CifarResNet, GoogLeNet, ResNet, make_model
from xpdl.models.lenet import CONNECTIONS

PUBLISHED = {
    "LeNet": ({}, 61_706),
    "LeNet of 1998": ({"form": "1998"}, 60_000 + 850),
    "AlexNet": ({}, 60_965_224),
    "AlexNet 2014": ({"form": "2014"}, 61_100_840),
    **{
        f"VGG {depth}": ({"depth": depth}, count)
        for depth, count in (
            (11, 132_863_336), (13, 133_047_848), (16, 138_357_544), (19, 143_667_240),
        )
    },
    **{
        f"VGG {depth} normalized": ({"depth": depth, "normalized": True}, count)
        for depth, count in (
            (11, 132_868_840), (13, 133_053_736), (16, 138_365_992), (19, 143_678_248),
        )
    },
    **{
        f"ResNet {depth}": ({"depth": depth}, count)
        for depth, count in (
            (18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160),
            (152, 60_192_808),
        )
    },
    **{
        f"CifarResNet {depth}": ({"depth": depth}, count)
        for depth, count in (
            (20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962),
        )
    },
    "SqueezeNet": ({}, 1_235_496),
    "MobileNetV2": ({}, 3_504_872),
    "GoogLeNet": ({}, 13_378_280),
    "GoogLeNet without heads": ({"heads": False}, 6_998_552),
    "GoogLeNet of torchvision": ({"form": "torchvision"}, 13_004_888),
    "GoogLeNet of torchvision, without": ({"form": "torchvision", "heads": False}, 6_624_904),
}  # fmt: skip


def test_lenet_of_1998_has_the_papers_parameters_in_each_layer():
    network = make_model("LeNet", form="1998")
    counts = [
        sum(map(math.prod, (spec.shape for spec in leaf.specs.values())))
        for leaf in network.leaves().values()
        if leaf.specs
    ]
    assert counts == [156, 12, 1_516, 32, 48_120, 10_164, 850]
    shapes = [shape for name, shape in network.body.shapes.items() if "tanh" in name]
    assert shapes == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,)]
    # Table I: six maps see three neighbours, nine see four, one sees all; each is seen by ten.
    seen = np.zeros((16, 6), int)
    for f, channels in enumerate(CONNECTIONS):
        seen[f, list(channels)] = 1
    assert seen.sum(axis=1).tolist() == [3] * 6 + [4] * 9 + [6]
    assert seen.sum(axis=0).tolist() == [10] * 6
    assert len({tuple(row) for row in seen}) == 16


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name):
    options, count = PUBLISHED[name]
    network = make_model(name.split()[0], **options, initialize=False)
    shapes = network.parameters.layout.shapes
    assert sum(map(math.prod, shapes.values())) == count
    assert f"{count:,} parameters" in network.summary()


SMALL = {
    "LeNet": {},
    "LeNet 1998": {"form": "1998"},
    "CifarResNet": {"depth": 8},
    "ResNet": {"input_shape": (3, 32, 32)},
    "SqueezeNet": {"input_shape": (3, 32, 32)},
    "MobileNetV2": {"input_shape": (3, 32, 32)},
    "WhitenedConvNet": {"widths": (4, 6, 8)},
    "GoogLeNet": {"form": "torchvision", "input_shape": (3, 32, 32), "heads": False},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_step_and_a_file(backend, rng, tmp_path, name):
    """On every backend the network learns, and its file makes it again."""
    network = make_model(name.split()[0], **SMALL[name], output_size=5, seed=1)
    x = backend.asarray(rng.random((2, *network.input_shape), np.float32))
    network.forward_backward(x, backend.asarray(np.array([1, 3])))
    gradients = {key: backend.to_numpy(g) for key, g in network.grads.items()}
    assert all(np.isfinite(g).all() for g in gradients.values())
    assert all(g.any() for key, g in gradients.items() if key.endswith(".W"))
    if backend.name == "numpy":
        network.save(tmp_path / "network.safetensors")
        again = xpdl.load(tmp_path / "network.safetensors")
        np.testing.assert_array_equal(again.predict(x), network.predict(x))


@pytest.mark.usefixtures("on_numpy")
def test_the_heads_of_googlenet_count_a_part(rng):
    network = GoogLeNet((3, 64, 64), 5, form="torchvision", seed=1)
    scores = network.predict(rng.random((2, 3, 64, 64), np.float32))
    assert {name: y.shape for name, y in scores.items()} == dict.fromkeys(
        ("y", "aux1", "aux2"), (2, 5)
    )
    assert network.loss_weights == {"y": 1.0, "aux1": 0.3, "aux2": 0.3}


@pytest.mark.parametrize(
    "make",
    [
        lambda: VGG(12),
        lambda: VGG("16"),
        lambda: ResNet(20),
        lambda: CifarResNet(18),
        lambda: AlexNet(form="2013"),
        lambda: GoogLeNet(form="caffe"),
        lambda: ResNet(output_size=0),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(ArgumentError, match="must be"):
        make()
