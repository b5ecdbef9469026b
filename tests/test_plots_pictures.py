"""Grids of pictures: of any size each, with room for what is written above them."""

from __future__ import annotations

import numpy as np
import pytest

from xpdl import plots
from xpdl.errors import ArgumentError, ShapeError


def drawn(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_pictures_of_a_list_may_differ_in_size(backend):
    arrays = [np.arange(6.0).reshape(2, 3), np.arange(20.0).reshape(4, 5)]
    figure = plots.picture_grid([backend.asarray(a) for a in arrays], ["a", "b"], size=2)
    for shown, given in zip(drawn(figure), arrays, strict=True):
        np.testing.assert_array_equal(shown, given)
    assert figure.get_figwidth() > 2 * 2


def test_a_stack_is_drawn_one_by_one():
    stack = np.random.default_rng(0).random((3, 1, 4, 4))
    np.testing.assert_array_equal(drawn(plots.picture_grid(stack, columns=2)), stack[:, 0])


def test_a_title_has_room_over_a_single_picture():
    picture = np.eye(3)
    title = "9,999 of 10,000 right: label → inference"
    narrow = plots.picture_grid([picture])
    wide = plots.picture_grid([picture], title=title)
    wide.draw_without_rendering()
    (text,) = [text for text in wide.texts if text.get_text() == title]
    box = text.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= wide.bbox.width
    assert narrow.get_figwidth() < wide.get_figwidth()


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((2, 2, 4, 4)), ShapeError, r"got \(2, 2, 4, 4\)"),
        ([np.zeros((4, 4)), np.zeros(4)], ShapeError, r"got \[\(4, 4\), \(4,\)\]"),
    ],
)
def test_what_is_no_picture_is_refused(images, error, message):
    with pytest.raises(error, match=message):
        plots.picture_grid(images)
    with pytest.raises(ArgumentError, match="size must be a number above 0"):
        plots.picture_grid([np.zeros((2, 2))], size=0)
