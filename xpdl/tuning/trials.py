"""The trials of a search: what each came to, and which are stopped early."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpdl.arguments import whole_number
from xpdl.tuning.ranges import written

FINISHED, STOPPED, DIVERGED = "finished", "stopped early", "diverged"


@dataclass(frozen=True)
class MedianRule:
    """Stop a trial that is behind: less accurate than the median of earlier ones at that epoch.

    The earlier trials are all, of every round, that came to this epoch. After the rule of Golovin
    et al. 2017 (Google Vizier), which compares running means.

    Parameters
    ----------
    epochs : int
        How many epochs every trial is given.
    trials : int
        How many earlier trials it takes to compare with.
    """

    epochs: int = 1
    trials: int = 5

    def __post_init__(self) -> None:
        for name in ("epochs", "trials"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))

    def stops(self, accuracies: Sequence[float], earlier: Iterable[Sequence[float]]) -> bool:
        """Tell whether to stop a trial after the epochs that it has these accuracies of.

        Parameters
        ----------
        accuracies : sequence of float
            The trial's own, by epoch.
        earlier : iterable of sequences of float
            The same of each earlier trial.
        """
        epochs = len(accuracies)
        others = [their[epochs - 1] for their in earlier if len(their) >= epochs]
        if epochs < self.epochs or len(others) < self.trials:
            return False
        return accuracies[-1] < float(np.median(others))


@dataclass(frozen=True)
class Trial:
    """One set of values, and what a short training with them came to.

    `number` and `round` count from 0. `accuracies`, on the validation data, and
    `train_accuracies`, the means over an epoch's batches as they were trained on, are by epoch:
    the curves of the book's figure 6-24. `outcome` is "finished", "stopped early" (by the
    search's rule) or "diverged", and `note` says what diverged.
    """

    number: int
    round: int
    seed: int
    values: dict[str, Any]
    accuracies: tuple[float, ...]
    train_accuracies: tuple[float, ...]
    outcome: str
    note: str
    seconds: float

    @property
    def accuracy(self) -> float:
        """That of the last whole epoch, on the validation data; 0 without one."""
        return self.accuracies[-1] if self.accuracies else 0.0

    def __str__(self) -> str:
        parts = [f"validation accuracy {self.accuracy:.2%}"]
        parts += [f"{name} {written(value)}" for name, value in self.values.items()]
        return "  ".join([*parts, self._told(), f"{self.seconds:.1f} s"])

    def _told(self) -> str:
        count = len(self.accuracies)
        epochs = f"{count} epoch{'s' if count != 1 else ''}"
        return epochs if self.outcome == FINISHED else f"{self.outcome} after {epochs}"


def merit(trial: Trial) -> tuple[bool, float, int]:
    """Return a key that puts the best trial first; what diverged is last, however far it came."""
    return trial.outcome == DIVERGED, -trial.accuracy, trial.number
