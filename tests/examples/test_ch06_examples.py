"""The examples of chapter 6: paths and scales by formulas, trainings by their direction."""

from __future__ import annotations

import math

import numpy as np
import pytest

# ---- the ways of the rules: their formulas in Python's floats


def sgd(g, memory, step):
    return -0.95 * g


def momentum(g, memory, step):
    memory["v"] = 0.9 * memory.get("v", 0.0) - 0.1 * g
    return memory["v"]


def adagrad(g, memory, step):
    memory["h"] = memory.get("h", 0.0) + g * g
    return -1.5 * g / (math.sqrt(memory["h"]) + 1e-7)


def rmsprop(g, memory, step):
    memory["h"] = 0.99 * memory.get("h", 0.0) + 0.01 * g * g
    return -0.15 * g / (math.sqrt(memory["h"]) + 1e-7)


def adam(g, memory, step):
    memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g * g
    m, v = memory["m"] / (1 - 0.9**step), memory["v"] / (1 - 0.999**step)
    return -0.3 * m / (math.sqrt(v) + 1e-8)


RULES = {"SGD": sgd, "Momentum": momentum, "AdaGrad": adagrad, "RMSProp": rmsprop, "Adam": adam}


@pytest.mark.parametrize("name", RULES)
def test_each_rule_goes_where_its_formula_leads(example, name):
    numbers = example("optimizer_paths").numbers
    end, crossings = [], 0
    for place, slope in ((-7.0, 0.1), (2.0, 2.0)):
        memory: dict[str, float] = {}
        crossings = 0
        for step in range(1, 31):
            before, place = place, place + RULES[name](slope * place, memory, step)
            crossings += before * place < 0
        end.append(place)
    assert numbers[f"{name} after 30 steps"] == pytest.approx(end, abs=1e-4)
    if name != "RMSProp":  # whose y ends so near to 0 that rounding decides on its sign
        assert numbers[f"{name}, how often it crosses the valley"] == crossings
    assert np.hypot(*end) < 1


def test_the_fall_of_sgd_is_that_of_two_powers(example):
    # Each step takes a tenth of 0.95 off x, and turns y about: -7 (1 - 0.095)^30, 2 (-0.9)^30.
    end = example("optimizer_paths").numbers["SGD after 30 steps"]
    assert end == pytest.approx([-7 * 0.905**30, 2 * 0.9**30], abs=1e-4)


# ---- what scales do to activations


@pytest.fixture
def scales(example):
    return example("activation_histograms").numbers


def test_the_first_layer_of_relu_has_the_mean_of_half_a_normal_distribution(scales):
    # z ~ N(0, 0.01^2 * 100), and relu(z) has the mean std / sqrt(2 pi).
    assert scales["ReLU, std 0.01: means by layer"][0] == pytest.approx(
        0.1 / math.sqrt(2 * math.pi), rel=0.04
    )


def test_relu_loses_or_keeps_the_same_factor_at_each_layer(scales):
    # Half of the squares survive: each layer's scale has the factor std sqrt(100 / 2).
    means = scales["ReLU, std 0.01: means by layer"]
    for layer, (ours, book) in enumerate(
        zip(means, [0.0396, 0.00290, 0.000197, 1.32e-5, 9.46e-7], strict=True)
    ):
        theory = 0.1 / math.sqrt(2 * math.pi) * math.sqrt(0.005) ** layer
        # Behind 100 random weights the scale's relative error is sqrt(5 / 100) / 2 a layer, for a
        # single input; three of these.
        allowed = 0.04 + 3 * 0.112 * math.sqrt(layer)
        assert abs(math.log(ours / theory)) < allowed
        assert abs(math.log(book / theory)) < allowed


def test_the_same_weights_scaled_scale_what_relu_gives(scales):
    # All three begin from the same random numbers, and relu(c z) = c relu(z) for c > 0.
    small, xavier, he = (
        np.array(scales[f"ReLU, {name}: means by layer"]) for name in ("std 0.01", "Xavier", "He")
    )
    layers = np.arange(1, 6)
    np.testing.assert_allclose(xavier / small, 10.0**layers, rtol=1e-3)
    np.testing.assert_allclose(he / xavier, 2 ** (layers / 2), rtol=1e-3)


def moments(function, variance):
    """Return mean and mean square of function(z) for z ~ N(0, variance), by the trapezium rule."""
    z = np.linspace(-8, 8, 4001)
    weight = np.exp(-z * z / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    y = function(math.sqrt(variance) * z)
    return (y * weight).sum(), (y * y * weight).sum()


@pytest.mark.parametrize(
    ("setting", "function", "std"),
    [
        ("Sigmoid, std 1", lambda z: 1 / (1 + np.exp(-z)), 1.0),
        ("Sigmoid, std 0.01", lambda z: 1 / (1 + np.exp(-z)), 0.01),
        ("Sigmoid, Xavier", lambda z: 1 / (1 + np.exp(-z)), 0.1),
        ("Tanh, std 1", np.tanh, 1.0),
        ("Tanh, Xavier", np.tanh, 0.1),
        ("ReLU, std 0.01", lambda z: np.maximum(z, 0), 0.01),
        ("ReLU, He", lambda z: np.maximum(z, 0), math.sqrt(0.02)),
    ],
)
def test_the_spread_of_each_layer_is_what_many_neurons_would_have(scales, setting, function, std):
    square = 1.0  # the mean of x^2
    measured = zip(
        scales[f"{setting}: means by layer"],
        scales[f"{setting}: standard deviations"],
        strict=True,
    )
    for layer, (mean, deviation) in enumerate(measured):
        # z is the sum of 100 inputs times weights.
        expected, square = moments(function, 100 * std**2 * square)
        spread = math.sqrt(square - expected**2)
        # Among 100 neurons a mean is off by a tenth of the spread, a spread by 1 / sqrt(200) of
        # itself, and by what the layers before brought; three of these. 100,000 numbers of the
        # first layer come from inputs that differ.
        allowed = 0.03 if layer == 0 else 0.3 + 0.1 * (layer - 1)
        assert mean == pytest.approx(expected, abs=allowed * spread)
        assert deviation == pytest.approx(spread, rel=allowed)


def test_large_weights_pile_sigmoid_up_at_its_ends_and_small_ones_in_the_middle(scales):
    # Numbers that are 0 or 1 have a deviation of 1/2, the largest there is.
    assert min(scales["Sigmoid, std 1: standard deviations"]) > 0.4
    assert max(scales["Sigmoid, std 0.01: standard deviations"]) < 0.03
    assert scales["Sigmoid, std 0.01: means by layer"] == pytest.approx([0.5] * 5, abs=0.01)
    for deviation in scales["Sigmoid, Xavier: standard deviations"]:
        assert 0.05 < deviation < 0.3


# ---- trainings: directions


def last_losses(results):
    label = "mean loss of the last 100 steps, "
    return {key.removeprefix(label): loss for key, loss in results.numbers.items()}


def test_all_rules_are_ahead_of_sgd(example):
    losses = last_losses(example("optimizers_on_mnist"))
    assert losses.keys() == RULES.keys()
    sgd_loss = losses.pop("SGD")
    assert sgd_loss < 0.7 * math.log(10)
    assert max(losses.values()) < 0.5 * sgd_loss


def test_small_weights_do_not_learn_and_he_is_ahead_of_xavier(example):
    losses = last_losses(example("weight_init_on_mnist"))
    assert losses["std 0.01"] == pytest.approx(math.log(10), abs=0.01)
    assert losses["Xavier"] < math.log(10) - 0.15
    assert losses["He"] < losses["Xavier"] - 0.5


def test_batch_normalization_learns_at_scales_where_nothing_else_does(example):
    numbers = example("batch_normalization").numbers
    normalized = numbers["accuracy at the end by scale, with normalisation"]
    plain = numbers["accuracy at the end by scale, without"]
    assert len(normalized) == len(plain) == 4
    assert plain[0] == "nan"  # the loss overflowed
    assert normalized[0] > 0.15
    for ours, without in zip(normalized[1:3], plain[1:3], strict=True):
        assert ours > 0.6 > 0.3 > without
    assert numbers["scales that reach 40 %, with normalisation"] >= 2
    assert numbers["scales that reach 40 %, without"] == 0


@pytest.mark.parametrize(
    ("name", "without", "against"),
    [
        ("overfitting_weight_decay", "weight decay 0", "weight decay 0.1"),
        ("overfitting_dropout", "dropout 0 %", "dropout 15 %"),
    ],
)
def test_what_holds_against_learning_by_heart(example, name, without, against):
    numbers = example(name).numbers
    assert numbers[f"training accuracy, {without}"] > 0.85
    assert numbers[f"training less test accuracy, {without}"] > 0.2
    for label in ("training accuracy", "training less test accuracy"):
        assert numbers[f"{label}, {against}"] < numbers[f"{label}, {without}"] - 0.02
    assert numbers[f"test accuracy, {against}"] > 0.2  # it learns all the same


def test_the_search_finds_the_rates_of_the_book(example):
    numbers = example("hyperparameter_search").numbers
    rates, accuracies = (
        numbers[label]
        for label in ("learning rates of the best five", "their validation accuracies")
    )
    assert all(0.001 <= rate <= 0.01 for rate in rates)
    assert accuracies == sorted(accuracies, reverse=True)
    assert accuracies[0] > 0.4
    assert numbers["second round, validation accuracies of the best five"][0] > 0.4


@pytest.mark.parametrize(
    ("name", "best", "low", "high"),
    [
        ("learning rate", "learning rates of the best five", -6, -2),
        ("weight decay", "their weight decays", -8, -4),
    ],
)
def test_the_second_round_draws_from_what_the_best_span(example, name, best, low, high):
    numbers = example("hyperparameter_search").numbers
    places = np.log10(numbers[best])
    margin = (places.max() - places.min()) / 4
    expected = [max(low, places.min() - margin), min(high, places.max() + margin)]
    drawn_from = np.log10(numbers[f"second round, {name} from and to"])
    np.testing.assert_allclose(drawn_from, expected, atol=1e-6)
