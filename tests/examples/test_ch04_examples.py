"""Chapter 4: losses, derivatives and descents have the book's numbers; a network learns."""

from __future__ import annotations

import math

import pytest

KINDS = ("forward", "central")


def test_losses(example):
    numbers = example("losses").numbers
    squared = [numbers[f"squared error, {p} for the class"] for p in ("0.6", "0.1")]
    assert squared == pytest.approx([0.0975, 0.5975], abs=5e-7)
    crossed = [numbers["cross entropy, 0.6"], numbers["cross entropy, 0.1"]]
    assert [round(loss, 2) for loss in crossed] == [0.51, 2.30]
    assert crossed == pytest.approx([-math.log(0.6), -math.log(0.1)], abs=2e-6)
    assert numbers["cross entropy, 0.6, class number"] == pytest.approx(crossed[0], abs=1e-7)
    mean = pytest.approx(sum(crossed) / 2, abs=1e-6)
    assert numbers["cross entropy of the batch, one-hot"] == mean
    assert numbers["cross entropy of the batch, class numbers"] == mean
    assert numbers["squared error of the batch, the mean"] == pytest.approx(0.3475, abs=5e-7)


def test_derivatives_are_the_books_to_the_last_digit(example):
    numbers = example("numerical_differentiation").numbers
    assert numbers["derivative of 0.01 x² + 0.1 x at 5"] == 0.1999999999990898
    assert numbers["derivative of 0.01 x² + 0.1 x at 10"] == 0.2999999999986347
    assert numbers["the same at 10 with h = 1e-50"] == 0


def test_the_central_difference_is_better_and_its_best_step_larger(example):
    numbers = example("numerical_differentiation").numbers
    least = {kind: numbers[f"{kind} difference of sin at 1, least error"] for kind in KINDS}
    best = {kind: numbers[f"{kind} difference of sin at 1, best h"] for kind in KINDS}
    assert least["central"] < 0.1 * least["forward"]
    assert best["central"] > 10 * best["forward"]
    # Where rounding, about 1e-16 / h, meets what h leaves out: of order h, or of order h².
    assert 1e-10 < best["forward"] < 1e-6
    assert 1e-7 < best["central"] < 1e-3


@pytest.mark.parametrize("place", [(3, 4), (0, 2), (3, 0)])
def test_gradients_of_the_sum_of_squares(example, place):
    gradient = example("gradient").numbers[f"gradient at {place}"]
    assert gradient == pytest.approx([2 * x for x in place], abs=1e-9)


def test_gradient_descent_ends_where_the_book_says(example):
    numbers = example("gradient_descent").numbers
    ends = {
        rate: [f"{x:.{digits}e}" for x in numbers[f"after 100 steps at {rate}"]]
        for rate, digits in (("0.1", 1), ("10", 8), ("1e-10", 8))
    }
    assert ends["0.1"] == ["-6.1e-10", "8.1e-10"]
    assert ends["10"] == ["-2.58983747e+13", "-1.29524862e+12"]
    assert ends["1e-10"] == ["-2.99999994e+00", "3.99999992e+00"]
    # Each step multiplies by 1 - 2 lr.
    shrunk = [start * (1 - 2 * 0.1) ** 100 for start in (-3, 4)]
    assert numbers["after 100 steps at 0.1"] == pytest.approx(shrunk, rel=1e-5)


def test_the_gradient_of_one_matrix(example):
    numbers = example("simple_net_gradient").numbers
    scores = [round(score, 8) for score in numbers["scores"]]
    assert scores == [1.05414809, 0.63071653, 1.1328074]
    log_sum = math.log(sum(math.exp(score) for score in numbers["scores"]))
    assert numbers["loss"] == pytest.approx(log_sum - numbers["scores"][2], abs=1e-12)
    assert round(numbers["loss"], 8) == 0.92806854
    rows = numbers["numerical gradient"]
    assert rows[0] == pytest.approx([0.21924763, 0.14356247, -0.36281009], abs=5e-8)
    assert rows[1] == pytest.approx([0.32887144, 0.2153437, -0.54421514], abs=5e-8)
    assert numbers["by backpropagation, it differs by"] < 1e-8


def test_a_network_learns_and_knows_digits_it_has_not_seen(example):
    numbers = example("two_layer_net").numbers
    # At first it guesses: -log 1/10.
    assert numbers["loss of the first 100 steps"] == pytest.approx(math.log(10), abs=0.05)
    assert numbers["loss of the last 100 steps"] < 0.8
    assert numbers["test accuracy"] > 0.75
    assert abs(numbers["training less test accuracy"]) < 0.03
    assert numbers["mean difference of the two"] < 1e-7


def test_backpropagation_is_worth_it(example):
    numbers = example("two_layer_net").numbers
    every = 784 * 50 + 50 + 50 * 10 + 10
    numerically = every * numbers["ms for a single one numerically"]
    assert numbers["ms for all gradients by backpropagation"] < 0.1 * numerically
