"""A rank's share of a batch: which rows are its own, and what they count in the whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from xpdl.backends import Array, Backend, Number, backend_of
from xpdl.distributed.ranks import Ranks

Arrays: TypeAlias = tuple[Array, ...]
Batch: TypeAlias = tuple[Arrays, Arrays, Array | None]


@dataclass(frozen=True)
class Share:
    """The rows of a batch that this rank computes.

    Where there are fewer rows than ranks, a rank without any computes the first row, which counts
    nothing, so that it takes part in every message.

    Attributes
    ----------
    ranks : Ranks
    start, stop : int
        From which row on, and up to which, these are.
    total : int
        How many rows the batch has.
    counts : bool
        Whether these rows count.
    whole_statistics : bool
        Whether batch normalisation is over the whole batch, not over this share.
    """

    ranks: Ranks
    start: int
    stop: int
    total: int
    counts: bool = True
    whole_statistics: bool = True

    @classmethod
    def of(cls, ranks: Ranks, total: int, whole_statistics: bool = True) -> Share:
        """Return this rank's share of a batch of `total` rows."""
        rows = ranks.rows(total)
        if rows.start == rows.stop:
            return cls(ranks, 0, 1, total, False, whole_statistics)
        return cls(ranks, rows.start, rows.stop, total, True, whole_statistics)

    @property
    def rows(self) -> slice:
        """Which rows of the batch these are."""
        return slice(self.start, self.stop)

    def of_batch(self, xs: Arrays, ts: Arrays, weights: Array | None) -> Batch:
        """Return the rows of a batch's inputs, targets and weights that are the share's."""
        xs, ts = (tuple(a[self.rows] for a in arrays) for arrays in (xs, ts))
        return xs, ts, None if weights is None else weights[self.rows]

    def factors(
        self, losses: Iterable[Any], output_weights: Iterable[Number], backend: Backend
    ) -> list[Number]:
        """Return by what each output's mean loss here is multiplied in the loss of the whole batch.

        c w_rank / w, where c is the output's weight, and w the sum of the weights behind the mean,
        over all ranks, which becomes the loss's own `weight`. There is a message only where
        something is weighted or ignored.
        """
        losses = list(losses)
        told = ["weight" in vars(one) for one in losses]
        rows = self.stop - self.start
        # A loss that does not tell its weight is a mean over the rows.
        here = [one.weight if t else rows for one, t in zip(losses, told, strict=True)]
        whole = self._over_all(here, rows, backend)
        factors: list[Number] = []
        for place, c in enumerate(output_weights):
            if told[place]:
                losses[place].weight = whole[place]
            part = here[place] / _divisor(whole[place], backend) if self.counts else 0.0
            factors.append(c * part)
        return factors

    def _over_all(self, here: Sequence[Number], rows: int, backend: Backend) -> list[Number]:
        """Return weights, of which `here` are this rank's, over all ranks."""
        counted = [w for w in here if not isinstance(w, int)]
        if not counted:  # as many for each row
            return [w // rows * self.total for w in here]
        together = backend.xp.zeros(len(here), "float64")
        if self.counts:
            for place, w in enumerate(here):
                together[place] = w
        self.ranks.sum(together)
        kind: Any = counted[0]
        return [together[place].astype(kind.dtype) for place in range(len(here))]

    def sums(self, *parts: Array) -> list[Array]:
        """Return arrays, () or (k,), each summed over all ranks, in one message, in float64."""
        xp = backend_of(*parts).xp
        together = xp.concatenate([part.reshape(-1).astype("float64") for part in parts])
        self.ranks.sum(together)
        summed, at = [], 0
        for part in parts:
            summed.append(together[at : at + part.size].reshape(part.shape).astype(part.dtype))
            at += part.size
        return summed

    def agree_on(self, states: Iterable[Array]) -> None:
        """Let running statistics, if they are of single ranks' rows, be the mean of those."""
        states = list(states)
        if self.whole_statistics or not states:
            return
        summed = self.sums(*(a if self.counts else 0 * a for a in states))
        for a, total in zip(states, summed, strict=True):
            a[...] = total / min(self.ranks.size, self.total)

    def moments(self, mean: Array, variance: Array, numbers: int) -> tuple[Array, Array]:
        """Return mean and variance (C,) of all ranks' numbers, of those of this rank's.

        M = sum m_r      mean = sum m_r mean_r / M
        variance = sum m_r (variance_r + (mean_r - mean)^2) / M
        over ranks r of m_r numbers each (Chan, Golub and LeVeque 1979): sums of squares would
        cancel. One message carries all three, and every rank merges them in the same order.

        Parameters
        ----------
        mean, variance : array (C,)
            Of the numbers of this rank.
        numbers : int
            How many numbers a feature has in this rank's rows.
        """
        xp = backend_of(mean, variance).xp
        count = xp.full(1, numbers if self.counts else 0, "float64")
        told = self.ranks.stack(
            xp.concatenate([count, mean.astype("float64"), variance.astype("float64")])
        )
        counts, features = told[:, :1], len(mean)
        means, variances = told[:, 1 : 1 + features], told[:, 1 + features :]
        shares = counts / counts.sum()
        merged = (shares * means).sum(axis=0)
        spread = (shares * (variances + (means - merged) ** 2)).sum(axis=0)
        return merged.astype(mean.dtype), spread.astype(variance.dtype)


@contextmanager
def sharing(layers: Iterable[Any], share: Share | None) -> Iterator[None]:
    """Within a block, let layers know that what they see is a share of a batch."""
    if share is None:
        yield
        return
    layers = list(layers)
    for layer in layers:
        layer.share = share
    try:
        yield
    finally:
        for layer in layers:
            layer.share = None


def _divisor(weight: Number, backend: Backend) -> Number:
    """Return a sum of weights to divide by: 1 for 0, so that nothing counted gives 0."""
    if isinstance(weight, int):
        return weight
    found: Array = backend.xp.where(weight > 0, weight, 1)
    return found
