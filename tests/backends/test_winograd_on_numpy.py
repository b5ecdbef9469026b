"""Winograd's minimal filtering on the backend numpy: right, exact enough, the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from winograd_cases import (
    ONE,
    SHAPES,
    arrays,
    error_is_at_most_four_times_the_direct_sums,
    exact,
    passes,
)

from xpdl.backends import get_backend
from xpdl.backends.numpy import winograd
from xpdl.errors import ArgumentError

NUMPY = get_backend("numpy")


@st.composite
def cases(draw):
    few, pads = st.integers(1, 3), st.integers(0, 2)
    many, pad = st.integers(winograd.FEWEST, 40), (draw(pads), draw(pads))
    size = [draw(st.integers(3 - 2 * p if p < 2 else 1, 9)) for p in pad]
    return draw(few), draw(many), size, draw(many), pad


@given(case=cases(), block_bytes=st.sampled_from([1, 50_000, winograd.BLOCK_BYTES]))
def test_it_is_the_convolution(case, block_bytes):
    *singles, pad = *arrays(*case), case[-1]
    assert winograd.chosen(singles[0].shape, singles[1].shape, ONE, pad)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "BLOCK_BYTES", block_bytes)
        found = passes(NUMPY, *singles, pad)
    for one, right in zip(found, exact(*singles, pad), strict=True):
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, right, rtol=1e-4, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_its_error_is_at_most_four_times_that_of_the_direct_sum(shape, monkeypatch):
    error_is_at_most_four_times_the_direct_sums(NUMPY, shape, monkeypatch)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_same_to_the_last_bit_on_any_number_of_threads(shape, monkeypatch):
    monkeypatch.setattr(winograd, "BLOCK_BYTES", 200_000)
    found = {}
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("XPDL_THREADS", threads)
        found[threads] = passes(NUMPY, *arrays(*shape), shape[-1])
    for others in found.values():
        for one, other in zip(found["1"], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_relu_in_the_same_pass_keeps_nan():
    x, W, b, _ = arrays(2, 16, (6, 6), 16, ONE)
    x[0, 0, 0, 0] = np.nan
    y = NUMPY.convolution(x, W, b, ONE, ONE)
    assert np.isnan(y).any()
    np.testing.assert_array_equal(NUMPY.convolution(x, W, b, ONE, ONE, relu=True), np.maximum(y, 0))


def test_other_shapes_and_types_take_the_direct_sum(monkeypatch):
    images, filters = (2, 16, 8, 8), (16, 16, 3, 3)
    assert winograd.chosen(images, filters, ONE, ONE)
    assert not winograd.chosen((2, 3, 8, 8), (16, 3, 3, 3), ONE, ONE)
    assert not winograd.chosen(images, (15, 16, 3, 3), ONE, ONE)
    assert not winograd.chosen((2, 512, 8, 8), (512, 512, 3, 3), ONE, ONE)
    assert not winograd.chosen(images, (16, 16, 5, 5), ONE, ONE)
    assert not winograd.chosen(images, filters, (2, 2), ONE)
    assert not winograd.chosen(images, filters, ONE, (3, 3))
    monkeypatch.setattr(winograd, "convolution", None)  # not to be called
    x, W, b, _ = arrays(*SHAPES[0])
    NUMPY.convolution(x.astype(np.float64), W.astype(np.float64), b, ONE, ONE)


def test_the_setting_is_told_and_checked(monkeypatch):
    assert "Winograd" in NUMPY.describe()["convolution"]
    assert NUMPY.ways() == {"XPDL_CONVOLUTION": "fastest"}
    monkeypatch.setenv("XPDL_CONVOLUTION", "direct")
    assert NUMPY.describe()["convolution"].startswith("direct")
    assert NUMPY.ways() == {"XPDL_CONVOLUTION": "direct"}
    monkeypatch.setenv("XPDL_CONVOLUTION", "fourier")
    with pytest.raises(ArgumentError, match=r"'fastest' or 'direct', got 'fourier'"):
        NUMPY.convolution(*arrays(*SHAPES[0])[:3], ONE, ONE)
