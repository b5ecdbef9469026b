"""Sums over all ranks in messages of half as many bytes: float16, scaled so that none overflows."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpdl.backends import Array, backend_of
from xpdl.distributed.ranks import Ranks

# The largest number of a message is below 2^15: float16 ends at 2^16, and is exact to 11 bits down
# to 2^-14, so that what is 2^29 times smaller than the largest is as exact as that.
_TOP = 15
_EXPONENTS = 126  # of float32's factors, with room for their inverse


class HalfSum:
    """The sum of an array over all ranks, under way in float16: a message as any, see `Pending`.

    Each rank adds up one part of the array: it gets that part of all others, adds in the array's
    own type, always from rank 0 on, and tells all what it came to. So each number is rounded twice,
    however many ranks there are, and all end with the same bits. A part travels with the power of 2
    that brings its largest number just below 2^15: nothing finite overflows, and what vanishes is
    2^39 times smaller than the largest. Where a number is not finite, the sum's part is not.

    Parameters
    ----------
    ranks : Ranks
    a : array (n,)
        Floats of 32 bits, replaced by their sum.
    before : HalfSum, optional
        The one that was begun before this; all ranks tell their sums in this order.
    """

    def __init__(self, ranks: Ranks, a: Array, before: HalfSum | None = None) -> None:
        self._ranks, self._a, self._before = ranks, a, before
        xp, length = backend_of(a).xp, -(-a.size // ranks.size)
        parts = xp.zeros((ranks.size, length), dtype=a.dtype)
        parts.reshape(-1)[: a.size] = a
        self._adding = True
        self._begin(pack(parts))

    def _begin(self, told: Array) -> None:
        """Exchange what is to be added, or tell what it came to."""
        begin = self._ranks.begin_exchange if self._adding else self._ranks.begin_stack
        self._kept, self._message = told, begin(told)  # which must live as long as it travels

    def _tell(self) -> None:
        """Add up, and begin to tell the sum; the one before this has done so."""
        sums = unpack(self._message.wait(), self._a.dtype).sum(axis=0, keepdims=True)
        self._adding, self._before = False, None
        self._begin(pack(sums)[0])

    def test(self) -> bool:
        """Help the message along; tell whether it is done, but for what `wait` does."""
        if not self._adding:
            return self._message.test()
        turn = self._before is None or not self._before._adding
        if turn and self._ranks.stacks_apart and self._message.test():
            self._tell()
        return False

    def wait(self) -> None:
        """Return when the sum is in the array."""
        if self._adding:
            if self._before is not None and self._before._adding:
                self._before._tell()
            self._tell()
        self._a[...] = unpack(self._message.wait(), self._a.dtype).reshape(-1)[: self._a.size]


def pack(parts: Array) -> Array:
    """Return parts (k, m) as float16, (k, 1 + m): of each, the exponent of its factor, then it."""
    xp = backend_of(parts).xp
    exponents = xp.frexp(xp.abs(parts).max(axis=1, keepdims=True))[1]
    exponents = xp.clip(_TOP - exponents, -_EXPONENTS, _EXPONENTS)
    told: Array = xp.empty((len(parts), 1 + parts.shape[1]), dtype="float16")
    told[:, :1] = exponents
    # What is not finite stays so, and no step is made of it.
    with np.errstate(over="ignore", invalid="ignore"):
        told[:, 1:] = parts * _factors(exponents, parts)
    return told


def unpack(told: Array, dtype: np.dtype[Any]) -> Array:
    """Return the parts (k, m) that `pack` made `told` of, each number rounded to float16."""
    parts = told[:, 1:].astype(dtype)
    parts *= _factors(-told[:, :1].astype("int32"), parts)
    return parts


def _factors(exponents: Array, like: Array) -> Array:
    xp = backend_of(like).xp
    factors: Array = xp.ldexp(xp.ones(exponents.shape, dtype=like.dtype), exponents)
    return factors
