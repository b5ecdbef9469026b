"""Random numbers for pictures, the same on every backend and in every precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpdl.backends import Array, RandomGenerator, Shape, accumulation_dtype, array_module


@dataclass(frozen=True)
class OfRowsOnly:
    """Random numbers for some rows of a batch, those that the rows would have in the whole of it.

    Numbers for the whole batch are drawn, and the others dropped.

    Parameters
    ----------
    generator : RandomGenerator
        The batch's.
    rows : slice
        Which rows.
    total : int
        How many rows the batch has.
    """

    generator: RandomGenerator
    rows: slice
    total: int

    def random(self, size: Shape, dtype: Any, axis: int = 0) -> Array:
        """Return numbers uniform in [0, 1), for rows that lie along an axis of `size`."""
        whole = (*size[:axis], self.total, *size[axis + 1 :])
        drawn = self.generator.random(whole, dtype)
        return drawn[(slice(None),) * axis + (self.rows,)]


def draw(x: Array, generator: RandomGenerator, shape: Shape, axis: int = 0) -> Array:
    """Return numbers uniform in [0, 1), as wide as what x is computed in.

    Drawn in float32 whatever x is, so that one seed changes pictures of all precisions alike.

    Parameters
    ----------
    axis : int
        Along which axis of `shape` the pictures of x lie.
    """
    if isinstance(generator, OfRowsOnly):
        drawn = generator.random(shape, np.float32, axis)
    else:
        drawn = generator.random(shape, np.float32)
    return drawn.astype(accumulation_dtype(x.dtype), copy=False)


def draw_uniform(x: Array, generator: RandomGenerator, low: float, high: float) -> Array:
    """Return a number from low to high for each picture, (N,)."""
    return low + (high - low) * draw(x, generator, (len(x),))


def draw_whole(x: Array, generator: RandomGenerator, low: float, high: float) -> Array:
    """Return one of the whole numbers from low to high for each picture, (N,), as floats."""
    # u <= 1 - 2^-24, so that u times a number rounds to less than it.
    return low + array_module(x).floor((high - low + 1) * draw(x, generator, (len(x),)))


def happens(x: Array, generator: RandomGenerator, probability: float) -> Array:
    """Return True with a probability, for each picture, (N,)."""
    return draw(x, generator, (len(x),)) < probability


def draw_normal(x: Array, generator: RandomGenerator) -> Array:
    """Return normal numbers of mean 0 and variance 1, in the shape of x, by two of uniform u, v.

    sqrt(-2 log(1-u)) cos(2 pi v), sqrt(-2 log(1-u)) sin(2 pi v)

    Box and Muller 1958; 1 - u since u may be 0, but never 1. In float32 at least.
    """
    xp = array_module(x)
    if isinstance(generator, OfRowsOnly):
        whole = xp.empty((generator.total, *x.shape[1:]), x.dtype)
        return draw_normal(whole, generator.generator)[generator.rows]
    uniform = draw(x, generator, (2, -(-x.size // 2)))
    radius, angle = xp.sqrt(-2 * xp.log(1 - uniform[0])), 2 * math.pi * uniform[1]
    pairs = xp.concatenate([radius * xp.cos(angle), radius * xp.sin(angle)])
    return pairs[: x.size].reshape(x.shape)
