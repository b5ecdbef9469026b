"""What is Numba's own: that it is an extra, and says how to get it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpdl
from xpdl.backends import Backend, available_backends, get_backend

ROOT = Path(xpdl.__file__).parents[1]

WITHOUT = """
import sys
sys.modules["numba"] = None
import xpdl
print(xpdl.available_backends()["numba"])
xpdl.use_backend("numba")
"""


def run(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_numba_the_message_says_how_to_get_it():
    done = run(WITHOUT)
    assert "pip install 'xpdl[numba]'" in done.stdout
    assert "BackendUnavailableError" in done.stderr.splitlines()[-1]
    assert "pip install 'xpdl[numba]'" in done.stderr.splitlines()[-1]


def test_numba_is_not_loaded_unless_asked_for():
    done = run("import sys, xpdl; xpdl.get_backend(); sys.exit('numba' in sys.modules)")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def numba():
    state = available_backends()["numba"]
    if state != "ready":
        pytest.skip(state)
    return get_backend("numba")


def test_it_says_what_it_runs_on(numba):
    assert {"NumPy", "Numba", "vector width"} <= numba.describe().keys()


def test_read_only_arrays_are_read(numba, rng):
    x, W = rng.random((2, 3, 5, 5), np.float32), rng.random((4, 3, 3, 3), np.float32)
    expected = numba.convolution(x, W, None, (1, 1), (0, 0))
    for array in (x, W):
        array.flags.writeable = False
    np.testing.assert_array_equal(numba.convolution(x, W, None, (1, 1), (0, 0)), expected)
    y, winners = numba.max_pooling(x, (5, 5), (5, 5), (0, 0), train=True)
    y.flags.writeable = False
    numba.max_pooling_backward(y, winners, x.shape, (5, 5), (5, 5), (0, 0))
    numba.relu_backward(x, numba.relu(x))


@pytest.mark.parametrize(
    ("images", "filters", "stride", "pad"),
    [
        ((2, 40, 21, 23), (37, 40, 5, 5), (2, 2), (2, 1)),  # panels of filters, and of pixels
        ((11, 70, 4, 4), (24, 70, 3, 3), (2, 1), (1, 1)),  # small images, several at a time
        ((5, 300, 3, 5), (65, 300, 1, 1), (1, 1), (0, 0)),  # a plain product
        ((5, 600, 2, 2), (530, 600, 1, 1), (1, 1), (0, 0)),  # few parts, ranges of filters
        ((0, 3, 4, 4), (5, 3, 2, 2), (1, 1), (0, 0)),  # nothing
        ((3, 5, 6, 6), (20, 5, 1, 1), (3, 2), (0, 0)),  # pixels that no window sees
    ],
    ids=str,
)
def test_sums_in_several_pieces(numba, rng, images, filters, stride, pad, monkeypatch):
    x, W, b = (rng.standard_normal(size, np.float32) for size in (images, filters, filters[:1]))
    wide = [a.astype(np.float64) for a in (x, W, b)]
    plain = Backend()
    right = plain.convolution(*wide, stride, pad)
    dout = rng.standard_normal(right.shape, np.float32)
    right = right, *plain.convolution_backward(dout.astype(np.float64), *wide[:2], stride, pad)
    found = {}
    for threads in ("1", "3"):
        monkeypatch.setenv("XPDL_THREADS", threads)
        y = numba.convolution(x, W, b, stride, pad)
        found[threads] = y, *numba.convolution_backward(dout, x, W, stride, pad)
        relu = numba.convolution(x, W, b, stride, pad, relu=True)
        np.testing.assert_array_equal(relu, np.maximum(y, 0))
    for one, other, exact in zip(*found.values(), right, strict=True):
        np.testing.assert_array_equal(one, other)
        largest = np.abs(exact).max(initial=0)
        np.testing.assert_allclose(one, exact, rtol=1e-4, atol=1e-5 * largest)
