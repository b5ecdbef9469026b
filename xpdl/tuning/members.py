"""An ensemble's members on several ranks: each trains one at a time, by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xpdl.distributed.ranks import Ranks
from xpdl.training.history import History
from xpdl.training.trainer import Trainer


class SharedMembers:
    """Deals the members that are to be trained out to ranks, in rounds, as many as there are ranks.

    A member comes out as it would alone, so that any number of ranks gives the same ensemble.
    Rank 0 has a `train_ensemble` that calls `fit`; the others `follow`. Each keeps its member's
    checkpoint in the folder, which all must see; rank 0 writes the rest.

    Parameters
    ----------
    ranks : Ranks
    numbers : sequence of int
        Which members are to be trained; of rank 0, which tells the others.
    """

    def __init__(self, ranks: Ranks, numbers: Sequence[int] = ()) -> None:
        self._ranks = ranks
        numbers = ranks.broadcast(list(numbers))
        self.rounds = [numbers[i : i + ranks.size] for i in range(0, len(numbers), ranks.size)]
        self._results: dict[int, Any] = {}

    def fit(self, number: int, trainer: Trainer) -> History:
        """Return the history of a member, and let the trainer's network be what it came to."""
        if number not in self._results:
            self._train_round(trainer)
        history, arrays = self._results.pop(number)
        if trainer.history.epochs:
            return trainer.history  # trained here
        trainer.history = History.from_dict(history)
        trainer.network.load_arrays(arrays)
        return trainer.history

    def follow(self, make: Callable[[int], Trainer], folder: Path) -> None:
        """Train this rank's member of each round; ``make(number)`` returns its Trainer."""
        while self.rounds:
            mine = self.rounds[0][self._ranks.rank :][:1]
            trainer = make(mine[0]) if mine else None
            if trainer is not None:
                trainer.checkpoint = folder / f"checkpoint-{mine[0]}.safetensors"
            self._train_round(trainer)

    def _train_round(self, trainer: Trainer | None) -> None:
        told = None
        if trainer is not None:
            with self._ranks.working_alone(trainer.interrupt):
                trainer.fit()
            told = trainer.history.as_dict(), trainer.network.host_arrays()
        found = self._ranks.gather(told, patient=True)
        numbers = self.rounds.pop(0)
        self._results |= dict(zip(numbers, found[: len(numbers)], strict=True))
