"""Chapter 8: how deep, how wide, how exact and how fast, in the direction that the book says."""

from __future__ import annotations

import statistics
from itertools import product

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl.layers import Normalize
from xpdl.models import MobileNetV2


def test_stacked_filters_see_as_much_with_fewer_weights(example):
    numbers = example("stacked_filters").numbers
    assert numbers["weights of one 5x5 and two 3x3"] == [5 * 5, 2 * 3 * 3]
    assert numbers["weights of one 7x7 and three 3x3"] == [7 * 7, 3 * 3 * 3]
    assert numbers["width of what one 5x5 and two 3x3 see"] == [5, 1 + 2 * (3 - 1)]
    assert numbers["width of what one 7x7 and three 3x3 see"] == [7, 1 + 3 * (3 - 1)]


def test_the_deep_network_learns_within_a_few_steps(example):
    results = example("deep_convnet")
    assert results.numbers["test accuracy, seed 0"] > 0.25  # by chance it is a tenth
    assert results.numbers["test accuracy, mean"] == results.numbers["test accuracy, seed 0"]
    assert results.figures.keys() == {
        "deep_convnet.png",
        "deep_convnet-misclassified.png",
        "deep_convnet-confusion.png",
    }


def test_augmentation_helps_where_digits_are_few(example):
    numbers = example("picture_augmentation").numbers
    without = numbers["test accuracy without augmentation"]
    assert numbers["test accuracy with augmentation"] > without + 0.01
    assert without > 0.5


def test_a_rate_that_falls_ends_lower_than_one_that_stays(example):
    numbers = example("learning_rate_decay").numbers
    constant, cosine, one_cycle = (
        numbers[f"mean loss of the last 100 steps, {name}"]
        for name in ("constant", "cosine", "one-cycle")
    )
    assert cosine < 0.9 * constant
    assert one_cycle < 0.9 * constant


def test_five_networks_together_are_better_than_the_mean_of_them(example):
    numbers = example("ensemble_of_five").numbers
    each = numbers["test accuracy of each"]
    assert len(set(each)) > 1
    assert abs(numbers["test accuracy, mean of five"] - statistics.mean(each)) < 1e-12
    assert numbers["test accuracy, five together"] > statistics.mean(each) + 0.001


def test_half_precision_halves_the_memory_and_changes_no_answer_to_speak_of(example):
    numbers = example("half_precision").numbers
    single, half = numbers["test accuracy, float32 and float16"]
    assert single > 0.6
    assert abs(single - half) < 0.005
    assert numbers["answers that differ"] < 0.01
    assert 1e-6 < numbers["difference of the scores"] < 0.005
    for what in ("weights", "outputs of all layers for 100 images"):
        wide, narrow = numbers[f"bytes of the {what}"]
        assert wide == 2 * narrow
    # SimpleConvNet: 30 filters of 25 weights, 30 x 12 x 12 pooled numbers, 100, 10; and biases.
    weights = 30 * (25 + 1) + 100 * (30 * 12 * 12 + 1) + 10 * (100 + 1)
    assert numbers["bytes of the weights"][0] == 4 * weights


def test_most_of_the_time_goes_into_convolution(example):
    numbers = example("time_per_layer").numbers
    assert 0.6 < numbers["share of convolution, forward"] < 1
    assert 0.5 < numbers["share of convolution, backward"] < 1
    assert numbers["a training step of 100 images, in ms"] > 0


def test_famous_networks_are_drawn_and_have_the_published_parameters(example):
    results = example("famous_networks")
    assert len(results.figures) == 2
    for counted, published in results.numbers.values():
        assert counted == published


def test_the_shares_of_time_in_alexnet(example):
    numbers = example("time_of_alexnet").numbers
    for way in ("forward", "backward"):
        shares = [value for name, value in numbers.items() if name.endswith(f", {way}")]
        assert len(shares) == 4
        assert min(shares) > 0
        assert sum(shares) < 1


@pytest.fixture
def shades(on_numpy, tmp_path, monkeypatch):
    """Ten classes of pictures, in the place of CIFAR-10: brightness tells them apart."""
    rng = np.random.default_rng(0)
    for k, part, i in product(range(10), ("train", "test"), range(3)):
        (tmp_path / "pictures" / part / f"c{k}").mkdir(parents=True, exist_ok=True)
        pixels = np.full((32, 32, 3), 25 * k, np.uint8) + rng.integers(0, 9, (32, 32, 3), np.uint8)
        picture = Image.fromarray(pixels)
        picture.save(tmp_path / "pictures" / part / f"c{k}" / f"{i}.png")
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XPDL_CIFAR10", str(tmp_path / "pictures"))


def test_transfer_learning_on_pictures_of_ones_own(example, shades, monkeypatch):
    trained = MobileNetV2((3, 32, 32), normalize=Normalize(255), seed=1)
    monkeypatch.setattr(xpdl.models, "pretrained", lambda name: trained)
    numbers = example("transfer_learning").numbers
    assert numbers["labelled pictures"] == 20
    accuracies = [value for name, value in numbers.items() if name.startswith("test accuracy")]
    assert len(accuracies) == 3
    # Random features see brightness.
    assert numbers["test accuracy, linear on frozen features"] > 0.5


def test_depth_with_and_without_shortcuts(example, shades):
    results = example("depth_and_shortcuts")
    assert len(results.numbers) == 3 * 4
    assert all(np.isfinite(value).all() for value in results.numbers.values())
    for name in ("plain-8", "ResNet-14"):
        each = results.numbers[f"test accuracy, {name}, each seed"]
        assert results.numbers[f"test accuracy, {name}, mean"] == np.mean(each)


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("response_normalization", ("with normalisation", "without")),
        ("auxiliary_heads", ("with heads", "without")),
    ],
)
def test_what_is_left_out_and_what_comes_of_it(example, shades, name, ways):
    results = example(name)
    for way in ways:
        each = results.numbers[f"test accuracy, {way}, each seed"]
        assert results.numbers[f"test accuracy, {way}, mean"] == np.mean(each)
        assert 0 <= min(each) <= max(each) <= 1
