"""A training of several ranks: what is decided once for all of them, and by whom."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError, RanksError
from xpdl.training.settings import digest, flat, training_settings
from xpdl.training.tally import Tally
from xpdl.version import __version__

Result = TypeVar("Result")

# Ranks of GPUs look for divergence after so many steps, all at the same ones.
LOOK_EVERY = 20


class Together:
    """What a `Trainer` does with its ranks; without them, it decides for itself."""

    ranks: Ranks | None = None
    checkpoint: Path | None
    checkpoint_every: float
    watch: Any
    network: Any
    batches: Any
    step: Any
    _digest: str | None = None
    source: str | None = None
    """What tells the training data from any other, if it need not be read for that."""

    @property
    def writes(self) -> bool:
        """Whether this rank writes files."""
        return self.ranks is None or self.ranks.rank == 0

    def any(self, flag: bool) -> bool:
        """Tell whether one of the ranks says so."""
        return flag if self.ranks is None else self.ranks.any(flag)

    def first(self, function: Callable[[], Result]) -> Result:
        """Return what rank 0, and no other, finds."""
        return function() if self.ranks is None else self.ranks.first(function)

    def check_ranks(self) -> None:
        """See that there is a row of a batch for each rank.

        Raises
        ------
        ArgumentError
            If batches are too small.
        """
        sizes = self.batches.batch_size
        smallest = min(sizes.values()) if isinstance(sizes, dict) else sizes
        if self.ranks is not None and self.ranks.size > smallest:
            raise ArgumentError(
                f"{self.ranks.size} processes cannot share batches of {smallest}: start at most "
                f"{smallest}, or take a larger batch_size."
            )

    def meet(self) -> None:
        """See that all ranks do the same training, and give them the network of rank 0.

        Raises
        ------
        ArgumentError
            If they do not; the message says who differs, and in what.
        """
        if self.ranks is None:
            return
        self.checkpoint = self.ranks.broadcast(self.checkpoint)
        settings = flat(training_settings(self))
        self.ranks.expect_same({"version": __version__, **settings, "data": self.data_digest()})
        arrays = self.network.host_arrays() if self.writes else None
        self.network.load_arrays(self.ranks.broadcast(arrays))

    def expect_one_network(self) -> None:
        """See that all ranks still have the same parameters.

        Raises
        ------
        RanksError
            If they do not, as when one computes another way than the others.
        """
        if self.ranks is None:
            return
        values = self.network.backend.to_numpy(self.network.params.buffer)
        first, *rest = self.ranks.gather(zlib.crc32(values.tobytes()))
        others = [rank for rank, told in enumerate(rest, 1) if told != first]
        if others:
            raise RanksError(
                f"the parameters of rank {others[0]} are not those of rank 0 any more: its sums "
                "come out otherwise. See that all machines have the same libraries."
            )

    def data_digest(self) -> str:
        """Return what the data is known by: its `source`, or its SHA-256 as it lies there."""
        if self.source is not None:
            return self.source
        if self._digest is None:
            self._digest = digest(*self.batches.arrays())
        return self._digest

    def _looks(self, tally: Tally, due: bool) -> bool:
        """Whether to look for divergence after this step."""
        if self.ranks is not None:
            self.ranks.settle()
            due = tally.done % LOOK_EVERY == 0
        return due or not self.network.backend.compiles
