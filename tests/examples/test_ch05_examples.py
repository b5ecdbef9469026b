"""The examples of chapter 5: the book's graphs, and backpropagation against other ways."""

from __future__ import annotations

import numpy as np
import pytest


def test_two_apples(example):
    numbers = example("apples_and_oranges").numbers
    assert numbers["two apples cost"] == pytest.approx(220)
    slopes = numbers["its derivatives by the apple's price, their number, the tax"]
    assert slopes == pytest.approx([2.2, 110, 200])


def test_apples_and_oranges(example):
    numbers = example("apples_and_oranges").numbers
    assert numbers["two apples and three oranges cost"] == pytest.approx(715)
    (slopes,) = (value for label, value in numbers.items() if "price of apples" in label)
    assert slopes == pytest.approx([110, 2.2, 3.3, 165, 650])


def test_the_graph_of_softmax_with_loss_comes_to_y_less_t(example):
    numbers = example("softmax_with_loss_graph").numbers
    assert numbers["y"] == pytest.approx([0.3, 0.2, 0.5])
    assert numbers["gradient by the scores, y - t"] == pytest.approx([0.3, -0.8, 0.5])
    assert numbers["loss"] == pytest.approx(-np.log(0.2))
    assert numbers["the layer's loss"] == pytest.approx(-np.log(0.2))
    assert numbers["largest difference from the layer's gradient"] < 1e-12
    # One input a node of exp, / and -, two a product, three a sum: 3 + 3 + 1 + 6 + 3 + 6 + 3 + 1.
    assert numbers["edges"] == 26
    assert numbers["largest difference of one's gradient from a numerical"] < 1e-5


def test_backpropagation_agrees_with_numerical_gradients_but_for_a_mistake(example):
    numbers = example("gradient_check").numbers
    for name in ("W1", "b1", "W2", "b2"):
        # The book's differences are 2e-13 to 1.2e-10.
        assert 1e-14 < numbers[f"mean difference, {name}"] < 1e-9
    assert numbers["mean difference, W1, with a mistake in sigmoid's backward"] > 1e-4


def test_the_numerical_gradient_is_best_at_neither_end(example):
    steps = [1e-1, 1e-3, 1e-5, 1e-7, 1e-9]
    gaps = example("gradient_check").numbers["W1 for h = 0.1 to 1e-9"]
    assert len(gaps) == len(steps)
    # Its error is of order h^2 at the large end, and of a rounding error over h at the small one.
    assert gaps[0] / gaps[1] == pytest.approx(1e4, rel=0.2)
    assert 10 < gaps[4] / gaps[3] < 1000
    assert min(gaps) in gaps[1:4]


def test_layers_called_in_their_order_and_back_learn(example):
    numbers = example("two_layer_net_backprop").numbers
    first = numbers["accuracy at first, training and test"]
    last = numbers["accuracy after 1,200 steps"]
    assert max(first) < 0.25
    assert min(last) > 0.88
    assert abs(last[0] - last[1]) < 0.02
    assert numbers["mean loss of the last 100 steps"] < 0.45 < np.log(10)
