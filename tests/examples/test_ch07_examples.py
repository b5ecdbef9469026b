"""Chapter 7: the book's sums to the digit, and what learning does to filters."""

from __future__ import annotations

import pytest

FILTERED = [[15, 16], [6, 15]]


@pytest.fixture
def im2col(example):
    return example("im2col").numbers


def test_a_filter_gives_the_sums_of_the_book(im2col):
    assert im2col["filter over the input"] == FILTERED
    assert im2col["with bias 3"] == [[sum_ + 3 for sum_ in row] for row in FILTERED]
    assert im2col["largest of each 2x2"] == [[2, 3], [4, 2]]


def test_padding_keeps_the_size_and_adds_a_frame_to_what_was_there(im2col):
    padded = im2col["by the layer, with padding 1"]
    assert [row[1:3] for row in padded[1:3]] == FILTERED
    # A corner sees four pixels: 1, 2, 0, 1 by the filter's lower right 1, 2, 0, 2.
    assert padded[0][0] == 1 * 1 + 2 * 2 + 0 * 0 + 1 * 2
    assert [len(row) for row in padded] == [4] * 4


def test_sizes_are_those_of_equation_7_1(im2col):
    assert im2col["output sizes by equation 7.1"] == [[4, 4], [3, 3], [10, 11]]
    assert im2col["im2col of 1 and of 10 pictures"] == [[9, 75], [90, 75]]


def test_a_size_that_does_not_divide_is_refused_with_a_way_out(im2col):
    message = im2col["a size that does not divide"]
    assert "not whole" in message
    assert "remainder='drop'" in message
    assert im2col["and with remainder='drop'"] == [(7 - 3) // 3 + 1] * 2


def test_a_small_convnet_learns(example):
    numbers = example("simple_convnet").numbers
    # By chance it is a tenth.
    assert numbers["test accuracy"] > 0.6
    assert numbers["training accuracy"] > 0.6


def test_filters_are_noise_at_first_and_smooth_at_last(example):
    numbers = example("filters").numbers
    # Of 30 x 40 products of independent numbers the mean deviates by 1 / sqrt(1200) = 0.03.
    assert abs(numbers["likeness of neighbouring weights at first"]) < 0.12
    assert numbers["likeness of neighbouring weights at last"] > 0.5


def test_each_filter_answers_to_its_own_edges(example):
    numbers = example("filters").numbers
    for place, kind in enumerate(["vertical edges", "horizontal edges"]):
        answers = numbers[f"how far the two filters answer to {kind}"]
        assert answers[place] > 1.3 * answers[1 - place]
