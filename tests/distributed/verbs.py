"""What ranks of every kind must do: run on each of them, with arrays of a backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpdl.distributed import HalfSum, Ranks, Share
from xpdl.errors import ArgumentError, DataError


def check_verbs(ranks: Ranks, xp: Any = np, to_numpy: Any = np.array) -> None:
    rank, size = ranks.rank, ranks.size
    assert 0 <= rank < size
    assert ranks.broadcast({"a": [1, "ü"]} if rank == 0 else None) == {"a": [1, "ü"]}
    assert ranks.gather(("x" * 1000 * rank, rank)) == [("x" * 1000 * r, r) for r in range(size)]
    assert ranks.any(rank == size - 1) is True
    assert ranks.any(False) is False
    ranks.barrier()
    # Rank 0's answer, or its error, is everybody's.
    assert ranks.first(lambda: rank) == 0
    with pytest.raises(DataError, match="not there"):
        ranks.first(_fail)
    with ranks.working_alone():  # one at a time, each as long as it likes
        told = rank
    assert ranks.gather(told, patient=True) == list(range(size))
    ranks.expect_same({"a": 1})
    if size > 1:
        with pytest.raises(ArgumentError, match=f"rank {size - 1} has another seed than rank 0"):
            ranks.expect_same({"a": 1, "seed": 7 if rank == size - 1 else 1})
    for dtype in ("float32", "float64"):
        for shape in ((), (1,), (3, 5), (100_003,)):
            numbers = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
            a = xp.asarray(numbers * (rank + 1))
            ranks.sum(a)
            np.testing.assert_array_equal(to_numpy(a), numbers * (size * (size + 1) // 2))
        a = xp.asarray(np.full((2, 3), rank, dtype))
        stacked = ranks.stack(a)
        assert stacked.shape == (size, 2, 3)
        assert stacked.dtype == dtype
        np.testing.assert_array_equal(to_numpy(stacked)[:, 0, 0], np.arange(size))
    # What each sends to each, and in half precision; two are under way at the same time.
    rows = xp.asarray(np.float16(100 * rank) + np.arange(size, dtype="float16")[:, None])
    came = ranks.begin_exchange(rows)
    stacked = ranks.begin_stack(rows)
    np.testing.assert_array_equal(to_numpy(came.wait())[:, 0], 100 * np.arange(size) + rank)
    np.testing.assert_array_equal(to_numpy(stacked.wait())[:, 0, 0], 100 * np.arange(size))
    # Pieces of one buffer, begun one after the other.
    a = xp.asarray(np.full(1000, rank + 1, "float32"))
    pieces = [ranks.begin_sum(a[i : i + 250]) for i in (750, 500, 250, 0)]
    for piece in pieces:
        piece.test()
        piece.wait()
    assert (to_numpy(a) == size * (size + 1) // 2).all()
    check_half_sums(ranks, xp, to_numpy)
    check_moments(ranks, xp, to_numpy)


def check_half_sums(ranks: Ranks, xp: Any, to_numpy: Any) -> None:
    """Sums in float16 of numbers far beyond it, several under way; the same bits on all ranks."""
    numbers = [
        np.random.default_rng(r).standard_normal(1000).astype("float32") for r in range(ranks.size)
    ]
    for factor in (1e-37, 1e-9, 1.0, 1e9, 1e34):
        given = [np.float32(factor) * a for a in numbers]
        a, before, sums = xp.asarray(given[ranks.rank].copy()), None, []
        for i in (600, 1, 0):  # of lengths that do not divide
            before = HalfSum(ranks, a[i : {600: 1000, 1: 600, 0: 1}[i]], before)
            sums.append(before)
            for one in sums:
                one.test()
        for one in sums:
            one.wait()
        wanted = np.sum([b.astype("float64") for b in given], axis=0)
        # Each number was rounded to 11 bits, and their sum again.
        sizes = np.abs(np.array(given, "float64"))
        most = 2.0**-11 * (sizes.sum(axis=0) + np.abs(wanted)) + 2.0**-37 * sizes.max() + 1e-44
        found = to_numpy(a)
        assert found.dtype == np.float32
        assert (np.abs(found - wanted) <= 1.01 * most).all()
        assert len(set(ranks.gather(found.tobytes()))) == 1
    # What is not finite is seen, and on all ranks.
    a = xp.asarray(np.where(np.arange(9) == 4 * (ranks.rank == 0), np.inf, 1).astype("float32"))
    HalfSum(ranks, a).wait()
    assert not np.isfinite(to_numpy(a)).all()


def check_moments(ranks: Ranks, xp: Any, to_numpy: Any) -> None:
    x = np.random.default_rng(0).standard_normal((7, 3)) + 1e8
    share = Share.of(ranks, len(x))
    mine = x[share.rows]
    mean, variance = share.moments(
        xp.asarray(mine.mean(axis=0)), xp.asarray(mine.var(axis=0)), len(mine)
    )
    np.testing.assert_allclose(to_numpy(mean), x.mean(axis=0), rtol=1e-15)
    np.testing.assert_allclose(to_numpy(variance), x.var(axis=0), rtol=1e-6)


def _fail() -> None:
    raise DataError("it is not there.")
