"""What ranks of every kind must do: run on each of them, with arrays of a backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpdl.distributed import Ranks, Share
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
    # Pieces of one buffer, begun one after the other.
    a = xp.asarray(np.full(1000, rank + 1, "float32"))
    pieces = [ranks.begin_sum(a[i : i + 250]) for i in (750, 500, 250, 0)]
    for piece in pieces:
        piece.test()
        piece.wait()
    assert (to_numpy(a) == size * (size + 1) // 2).all()
    check_moments(ranks, xp, to_numpy)


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
