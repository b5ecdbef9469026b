"""Pictures mixed with others of their batch, and their targets with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from xpdl.arguments import number, real_array
from xpdl.backends import Array, RandomGenerator, accumulation_dtype, array_module, backend_of
from xpdl.datasets.augmentation.base import Augmentation
from xpdl.datasets.augmentation.draws import draw
from xpdl.errors import ArgumentError, DTypeError, ShapeError

_STEPS = 4096  # of the table of quantiles


@dataclass(frozen=True)
class Mixup(Augmentation):
    """Mix each picture, and its target, with the one before it in the batch.

    x[i] <- l x[i] + (1-l) x[i-1],   t[i] <- l t[i] + (1-l) t[i-1],   l ~ Beta(alpha, alpha)

    Zhang et al. 2017 (arXiv:1710.09412). Batches are in random order, so the one before is any. l
    is the larger of what was drawn and 1 minus it: each mixture is as likely as without that, and
    most of a picture stays its own.

    Call `with_targets`; pictures alone cannot be mixed.

    Parameters
    ----------
    alpha : float
        From 0.01 to 100. Small ones leave most pictures nearly as they are; 1 mixes in all ratios
        alike.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        alpha = number("alpha", self.alpha, least=0.01)
        if alpha > 100:
            raise ArgumentError(f"alpha must be a number from 0.01 to 100, got {alpha:g}.")
        self._set(alpha=alpha)

    @property
    def mixes(self) -> bool:
        return True

    def with_targets(self, x: Array, t: Array, generator: RandomGenerator) -> tuple[Array, Array]:
        if real_array("t", t).dtype.kind != "f" or t.ndim != 2:
            raise DTypeError(
                "t must be shares of the classes, floats (N, classes), to be mixed, got dtype "
                f"{t.dtype} and shape {t.shape}; make one-hot targets of labels."
            )
        self._check_call(x, generator)
        if len(x) != len(t):
            raise ShapeError(f"x and t must be of one length, got {len(x)} and {len(t)}.")
        share = self._shares(x, generator)
        return _mix(x, share), _mix(t, share)

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        raise ArgumentError("Mixup mixes the targets too; call with_targets(x, t, generator).")

    def _shares(self, x: Array, generator: RandomGenerator) -> Array:
        """Return l for each picture, (N,), between the two nearest quantiles of a table."""
        xp = array_module(x)
        place = _STEPS * draw(x, generator, (len(x),))
        below = xp.floor(place)
        table = backend_of(x).asarray(_larger_quantiles(self.alpha), place.dtype)
        low, high = (xp.take(table, below.astype(np.int64) + k) for k in (0, 1))
        return low + (place - below) * (high - low)


def _mix(a: Array, share: Array) -> Array:
    """Return the rows of a (N, ...), each mixed with the one before it."""
    share = share.astype(accumulation_dtype(a.dtype), copy=False)
    share = share.reshape(-1, *(1,) * (a.ndim - 1))
    mixed = share * a + (1 - share) * array_module(a).roll(a, 1, axis=0)
    return mixed.astype(a.dtype, copy=False)


@lru_cache(maxsize=8)
def _larger_quantiles(alpha: float) -> npt.NDArray[np.float64]:
    """Return the quantiles of max(l, 1-l) for l ~ Beta(alpha, alpha), from 1 down to 1/2.

    1-l = w^(1/min(alpha, 1)) / 2 takes the pole at 0 out of the density, which is summed over w by
    the trapezoidal rule.
    """
    w = np.linspace(0, 1, 4 * _STEPS + 1)
    rest = w ** (1 / min(alpha, 1)) / 2
    density = w ** (max(alpha, 1) - 1) * (1 - rest) ** (alpha - 1)
    shares = np.cumsum(density[1:] + density[:-1])
    cumulative = np.concatenate(([0], shares / shares[-1]))
    return 1 - np.interp(np.linspace(0, 1, _STEPS + 1), cumulative, rest)
