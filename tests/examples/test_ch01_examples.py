"""Chapter 1: what array arithmetic gives."""

from __future__ import annotations

import numpy as np


def test_arrays_give_what_the_book_prints(example):
    numbers = example("sine_and_cosine").numbers
    assert numbers["(1, 2, 3) * (2, 4, 6)"] == [2, 8, 18]
    assert numbers["((1, 2), (3, 4)) * (10, 20)"] == [[10, 40], [30, 80]]
    assert numbers["those of 51, 55, 14, 19, 0, 4 above 15"] == [51, 55, 19]
    assert numbers["sin² + cos² - 1, at most"] < 2 * np.finfo(np.float32).eps
