"""Winograd's minimal filtering on the backend numba: right, exact enough, the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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

from xpdl.backends import Backend, available_backends, get_backend
from xpdl.errors import ArgumentError

STATE = available_backends()["numba"]
if STATE != "ready":
    pytest.skip(STATE, allow_module_level=True)

from xpdl.backends.numba import sharing, winograd  # noqa: E402
from xpdl.backends.numba.vectors import LANES  # noqa: E402

NUMBA = get_backend("numba")


def halved(*case, nan=False):
    """Return what a convolution with its pooling gives, and dx of the pooling, two ways."""
    x, W, b, _ = arrays(*case)
    if nan:
        x[0, 0, 0, 0] = np.nan
    pad, two = case[-1], (2, 2)
    outputs = NUMBA.convolution(x, W, b, ONE, pad, relu=True)
    together = NUMBA.convolution_pooling(x, W, b, (ONE, pad), (two, two), train=True)
    apart = NUMBA.max_pooling(outputs, two, two, (0, 0), train=True)
    dout = np.random.default_rng(1).standard_normal(apart[0].shape, np.float32)
    return [
        (y, NUMBA.max_pooling_backward(dout, winners, outputs.shape, two, two, (0, 0), y))
        for y, winners in (together, apart)
    ]


@st.composite
def cases(draw):
    few, pads = st.integers(1, 3), st.integers(0, 2)
    pad = draw(pads), draw(pads)
    size = [draw(st.integers(3 - 2 * p if p < 2 else 1, 9)) for p in pad]
    return draw(few), LANES * draw(few), size, LANES * draw(st.integers(1, 5)), pad


@given(case=cases())
def test_it_is_the_convolution(case):
    *singles, pad = *arrays(*case), case[-1]
    assert winograd.chosen(singles[0].shape, singles[1].shape, ONE, pad)
    for found, right in zip(passes(NUMBA, *singles, pad), exact(*singles, pad), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5 * np.abs(right).max())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_its_error_is_at_most_four_times_that_of_the_direct_sum(shape, monkeypatch):
    error_is_at_most_four_times_the_direct_sums(NUMBA, shape, monkeypatch)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_the_same_to_the_last_bit_on_any_number_of_threads(shape, monkeypatch):
    monkeypatch.setattr(sharing, "ENOUGH", 1000)
    found = {}
    for threads in ("1", "2", "3", "7"):
        monkeypatch.setenv("XPDL_THREADS", threads)
        found[threads] = *passes(NUMBA, *arrays(*shape), shape[-1]), *halved(*shape)[0]
    for others in found.values():
        for one, other in zip(found["1"], others, strict=True):
            np.testing.assert_array_equal(one, other)


def test_relu_in_the_same_pass_keeps_nan():
    x, W, b, _ = arrays(2, LANES, (6, 6), LANES, (1, 1))
    x[0, 0, 0, 0] = np.nan
    y = NUMBA.convolution(x, W, b, ONE, ONE)
    assert np.isnan(y).any()
    np.testing.assert_array_equal(NUMBA.convolution(x, W, b, ONE, ONE, relu=True), np.maximum(y, 0))


@given(case=cases(), with_bias=st.booleans())
def test_a_normalisation_is_folded_into_the_filters(case, with_bias):
    (x, W, b, _), pad = arrays(*case), case[-1]
    b = b if with_bias else None
    mean, factor, shift = np.random.default_rng(2).standard_normal((3, len(W)), np.float32)
    given = (ONE, pad, ONE, 1), (mean, factor, shift), True
    found = NUMBA.convolution_normalized(x, W, b, *given)
    right = Backend().convolution_normalized(*(a.astype(np.float64) for a in (x, W)), b, *given)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5 * np.abs(right).max(initial=1))


@given(case=cases())
def test_pooling_in_the_same_pass_is_the_same_to_the_last_bit(case):
    n, c, size, fn, pad = case
    size = [extent + extent % 2 for extent in size]
    assert winograd.pools((n, c, *size), pad, (2, 2), (2, 2))
    together, apart = halved(n, c, size, fn, pad)
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one, other)


def test_pooling_in_the_same_pass_keeps_nan():
    together, apart = halved(2, LANES, (6, 6), LANES, ONE, nan=True)
    assert np.isnan(together[0]).any()
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_poolings_are_passes_of_their_own():
    shape = 2, LANES, 8, 8
    assert winograd.pools(shape, ONE, (2, 2), (2, 2))
    assert not winograd.pools(shape, ONE, (3, 3), (2, 2))
    assert not winograd.pools(shape, ONE, (2, 2), (1, 1))
    assert not winograd.pools((2, LANES, 8, 7), ONE, (2, 2), (2, 2))


def test_other_shapes_take_the_direct_sum():
    images, filters = (2, LANES, 8, 8), (LANES, LANES, 3, 3)
    assert winograd.chosen(images, filters, ONE, ONE)
    assert not winograd.chosen((2, 3, 8, 8), (LANES, 3, 3, 3), ONE, ONE)
    assert not winograd.chosen(images, (LANES + 1, LANES, 3, 3), ONE, ONE)
    assert not winograd.chosen(images, (LANES, LANES, 5, 5), ONE, ONE)
    assert not winograd.chosen(images, filters, (2, 2), ONE)
    assert not winograd.chosen(images, filters, ONE, (3, 3))


def test_the_setting_is_told_and_checked(monkeypatch):
    assert "Winograd" in NUMBA.describe()["convolution"]
    monkeypatch.setenv("XPDL_CONVOLUTION", "direct")
    assert NUMBA.describe()["convolution"].startswith("direct")
    monkeypatch.setenv("XPDL_CONVOLUTION", "fourier")
    x, W, b, _ = arrays(1, LANES, (4, 4), LANES, ONE)
    with pytest.raises(ArgumentError, match=r"'fastest' or 'direct', got 'fourier'"):
        NUMBA.convolution(x, W, b, ONE, ONE)


NARROW = """
from llvmlite import binding
find = binding.get_host_cpu_features
def narrow():
    features = find()
    for name in features:
        if "avx512" in name:
            features[name] = False
    return features
binding.get_host_cpu_features = narrow

import test_winograd as t
from xpdl.backends import Backend
from xpdl.backends.numba.vectors import LANES
assert LANES == 8, LANES
for stride in (t.ONE, (2, 2)):
    x, W, b, dout = t.arrays(3, 24, (7, 7), 40, t.ONE)
    dout = dout[:, :, ::stride[0], ::stride[1]]
    for backend, dtype in ((Backend(), t.np.float64), (t.NUMBA, t.np.float32)):
        x, W, b, dout = (a.astype(dtype) for a in (x, W, b, dout))
        y = backend.convolution(x, W, b, stride, t.ONE)
        found = y, *backend.convolution_backward(dout, x, W, stride, t.ONE)
        if dtype == t.np.float64:
            right = found
    for one, other in zip(found, right, strict=True):
        t.np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * abs(other).max())
"""


@pytest.mark.skipif(LANES == 8, reason="registers are narrow here anyway")
def test_registers_of_half_the_width(tmp_path):
    root = Path(__file__).parents[2]
    paths = os.pathsep.join([str(root), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", NARROW],
        env=os.environ | {"PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
