"""A generator's place, by which a training that was interrupted goes on with the same numbers."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpdl.backends import Backend, get_backend
from xpdl.errors import ArgumentError

DRAWS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from(["float32", "float64"])), min_size=1, max_size=6
)


def drawn(backend: Backend, generator: Any, draws: Any) -> list[Any]:
    return [
        backend.to_numpy(generator.random((size,), np.dtype(dtype))).tolist()
        for size, dtype in draws
    ]


@given(before=DRAWS, after=DRAWS)
def test_a_generator_goes_on_where_it_was(backend: Backend, before: Any, after: Any) -> None:
    first = backend.generator([3, 1])
    drawn(backend, first, before)
    state = json.loads(json.dumps(backend.generator_state(first)))
    second = backend.generator([3, 1])
    backend.set_generator_state(second, state)
    assert backend.generator_state(second) == state
    assert drawn(backend, second, after) == drawn(backend, first, after)


def test_a_place_holds_on_every_device(backend: Backend) -> None:
    """As long as the numbers are of one type, as those of masks and augmentations are."""
    plain = get_backend("generic")
    for size in (0, 1, 7, 8, 9, 1001):
        ours, theirs = backend.generator(5), plain.generator(5)
        drawn(backend, ours, [(size, "float32")])
        state = backend.generator_state(ours)
        assert state["halves"] == size
        plain.set_generator_state(theirs, state)
        wanted = drawn(backend, ours, [(9, "float32")])
        assert drawn(plain, theirs, [(9, "float32")]) == wanted


def test_a_place_far_away(backend: Backend) -> None:
    far = backend.generator(1)
    backend.set_generator_state(far, {"halves": 2**61 + 3})
    assert backend.generator_state(far)["halves"] == 2**61 + 3
    plain = np.random.Philox(np.random.SeedSequence(1)).advance(2**58)  # in blocks of 8 halves
    numbers = np.random.Generator(plain).random(11, dtype=np.float32)
    assert drawn(backend, far, [(8, "float32")]) == [numbers[3:].tolist()]


@pytest.mark.parametrize(
    "state",
    [None, 3, {}, {"halves": -1}, {"halves": 1.5}, {"halves": 2**70}, {"halves": True},
     {"halves": 1, "left_over": -1}, {"halves": 1, "left_over": 2**32},
     {"halves": 1, "left_over": "a"}],
)  # fmt: skip
def test_what_is_no_place_is_refused(backend: Backend, state: Any) -> None:
    generator = backend.generator(2)
    with pytest.raises(ArgumentError, match=r"halves|left_over|generator"):
        backend.set_generator_state(generator, state)
    assert backend.generator_state(generator) == {"halves": 0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("bad", [None, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["loss", 0, 511, 1299])
def test_a_step_is_finite_or_not(backend: Backend, dtype: str, bad: Any, where: Any) -> None:
    g, loss = np.linspace(-3e38, 3e38, 1300).astype(dtype), np.array(0.3, dtype)
    if bad is not None:
        (loss if where == "loss" else g)[() if where == "loss" else where] = bad
    go, marked = backend.all_finite(backend.asarray(loss), backend.asarray(g))
    assert go.shape == marked.shape == ()
    assert go.dtype == bool
    assert marked.dtype == dtype
    assert backend.item(go) is (bad is None)
    np.testing.assert_equal(backend.item(marked), np.nan if bad is not None else loss.item())
