"""Chapter 3: the book's numbers to the digits that it prints, and digits recognised."""

from __future__ import annotations

import math

import pytest


def printed(numbers, digits=8):
    """Return numbers as the book prints them."""
    return [round(number, digits) for number in numbers]


def test_activation_functions(example):
    numbers = example("activation_functions").numbers
    x = (-1, 1, 2)
    assert numbers["step of (-1, 1, 2)"] == [0, 1, 1]
    assert printed(numbers["sigmoid of (-1, 1, 2)"]) == [0.26894142, 0.73105858, 0.88079708]
    assert numbers["tanh of (-1, 1, 2)"] == pytest.approx([math.tanh(v) for v in x], rel=1e-14)
    assert numbers["ReLU of (-1, 1, 2)"] == [0, 1, 2]
    assert numbers["two layers without activation differ from one by"] < 1e-14


def test_three_layers(example):
    numbers = example("three_layers").numbers
    assert numbers["sums of layer 1"] == pytest.approx([0.3, 0.7, 1.1], rel=1e-14)
    assert printed(numbers["outputs of layer 1"]) == [0.57444252, 0.66818777, 0.75026011]
    assert printed(numbers["outputs of layer 2"]) == [0.62624937, 0.7710107]
    assert printed(numbers["outputs of the network"]) == [0.31682708, 0.69627909]
    assert numbers["a Network's differ by"] < 1e-14


def test_softmax_does_not_overflow_where_its_formula_does(example):
    numbers = example("softmax").numbers
    assert printed(numbers["softmax of (0.3, 2.9, 4.0)"]) == [0.01821127, 0.24519181, 0.73659691]
    assert numbers["their sum"] == pytest.approx(1, rel=1e-14)
    assert numbers["of (1010, 1000, 990) by the formula"] == ["nan"] * 3
    large = [f"{number:.8e}" for number in numbers["with the maximum taken off"]]
    assert large == ["9.99954600e-01", "4.53978686e-05", "2.06106005e-09"]


def test_batches_give_the_same_answers_faster(example):
    numbers = example("mnist_inference").numbers
    accuracy = numbers["test accuracy, in batches of 100"]
    assert accuracy > 0.85
    # A product of one row may be rounded otherwise, which could change a doubtful answer.
    assert numbers["test accuracy, one by one"] == pytest.approx(accuracy, abs=0.002)
    assert numbers["ms a digit, in batches of 100"] < numbers["ms a digit, one by one"]
