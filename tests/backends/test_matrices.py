"""Products of small matrices on the backend numba."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpdl.backends import available_backends, get_backend

STATE = available_backends()["numba"]
if STATE != "ready":
    pytest.skip(STATE, allow_module_level=True)

from xpdl.backends.numba import matrices, sharing  # noqa: E402
from xpdl.backends.numba.vectors import LANES  # noqa: E402

NUMBA = get_backend("numba")


def factors(m, k, n, turned, seed=0):
    """Return a (M, K) and b (K, N), each as it is or turned round in memory."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((m, k), np.float32), rng.standard_normal((k, n), np.float32)
    return [
        np.asfortranarray(array) if turn else array
        for array, turn in zip((a, b), turned, strict=True)
    ]


def assert_right(y, a, b):
    exact = a.astype(np.float64) @ b
    assert y.dtype == np.float32
    bound = np.abs(a).astype(np.float64) @ np.abs(b)
    assert (np.abs(y - exact) <= np.finfo(np.float32).eps * (a.shape[1] + 1) * bound).all()


@given(
    m=st.integers(8, 70),
    k=st.integers(1, 50),
    n=st.integers(LANES, 5 * LANES),
    turned=st.tuples(st.booleans(), st.booleans()),
    given_place=st.booleans(),
)
def test_it_is_the_product(m, k, n, turned, given_place):
    a, b = factors(m, k, n, turned, seed=m)
    out = np.full((m + 2, n), np.nan, np.float32)
    place = out[1:-1] if given_place else None
    y = NUMBA.matmul(a, b, out=place)
    assert (y is place) == given_place
    assert_right(y, a, b)
    assert np.isnan(out[[0, -1]]).all()  # beside its place nothing is written


@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True)])
def test_it_is_the_same_to_the_last_bit_on_any_number_of_threads(turned, monkeypatch):
    monkeypatch.setattr(sharing, "ENOUGH", 1000)
    a, b = factors(100, 150, 100, turned)
    assert matrices.fit(a, b, None)
    found = []
    for threads in ("1", "2", "3", "7"):
        monkeypatch.setenv("XPDL_THREADS", threads)
        found.append(NUMBA.matmul(a, b))
    for other in found:
        np.testing.assert_array_equal(other, found[0])
    first = a[:40].copy(order="F" if turned[0] else "C")
    assert matrices.fit(first, b, None)
    np.testing.assert_array_equal(NUMBA.matmul(first, b), found[0][:40])  # a row is a row


def test_what_does_not_fit_is_multiplied_by_blas():
    a, b = factors(40, 30, 40, (False, False))
    assert matrices.fit(a, b, None)
    assert not matrices.fit(a.astype(np.float64), b, None)
    assert not matrices.fit(a[:, ::2], b[::2], None)
    assert not matrices.fit(a[:2], b, None)
    assert not matrices.fit(a, b[:, :5].copy(), None)
    assert not matrices.fit(a, b, np.empty((40, 40)))
    assert not matrices.fit(a, b, np.empty((40, 80), np.float32)[:, ::2])
    assert not matrices.fit(*factors(16, 30, 40, (False, True)), None)  # too few rows to pack for
    assert not matrices.fit(*factors(8, 5000, 40, (False, False)), None)
    for array in (a, b):
        array.flags.writeable = False
    assert_right(NUMBA.matmul(a, b), a, b)
    with pytest.raises(ValueError, match="mismatch"):
        NUMBA.matmul(a, b[1:])


def test_nan_and_infinity_stay():
    a, b = factors(20, 9, 40, (False, False))
    a[3, 4], b[5, 6] = np.nan, np.inf
    np.testing.assert_array_equal(np.isfinite(NUMBA.matmul(a, b)), np.isfinite(a @ b))
