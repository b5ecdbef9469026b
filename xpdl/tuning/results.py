"""What a search found: the best trials, as a table and as a chart, and where to look next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from xpdl.arguments import whole_number
from xpdl.plots import curve_grid
from xpdl.tuning.ranges import Range, ranges_as_dict, written
from xpdl.tuning.trials import FINISHED, Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes
    ----------
    trials : tuple of Trial
        The most accurate first, those that diverged last; of equals the earlier first.
    searched : tuple of dict of str to Range
        The ranges that each round drew from.
    ranges : dict of str to Range
        Where one would look next: narrowed by all trials.
    """

    trials: tuple[Trial, ...]
    searched: tuple[dict[str, Range], ...]
    ranges: dict[str, Range]

    def best(self, count: int = 5, round: int | None = None) -> tuple[Trial, ...]:
        """Return the `count` best trials, of all rounds or of one from 0 on, the best first."""
        chosen = (trial for trial in self.trials if round is None or trial.round == round)
        return tuple(islice(chosen, whole_number("count", count)))

    def chart(self, count: int = 20, round: int | None = None) -> Figure:
        """Return the learning curves of the `count` best trials. Book, figure 6-24."""
        panels = {}
        for place, trial in enumerate(self.best(count, round), 1):
            values = "\n".join(f"{name} {written(value)}" for name, value in trial.values.items())
            curves = {"validation": trial.accuracies, "training": trial.train_accuracies}
            panels[f"best {place}: {trial.accuracy:.0%}\n{values}"] = curves
        return curve_grid(panels, columns=5, xlabel="epoch", ylabel="accuracy", ylim=(0, 1))

    def table(self, count: int = 20) -> str:
        """Return the `count` best trials as a table, with trials and rounds counted from 1."""
        names = list(self.ranges)
        rows = [["", "accuracy", *names, "epochs", "round", "trial", ""]]
        for place, trial in enumerate(self.best(count), 1):
            values = [written(trial.values[name]) for name in names]
            counts = (len(trial.accuracies), trial.round + 1, trial.number + 1)
            told = "" if trial.outcome == FINISHED else trial.outcome
            rows.append([str(place), f"{trial.accuracy:.2%}", *values, *map(str, counts), told])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        widths[-1] = 0  # the only column of words
        return "\n".join(
            "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "searched": [ranges_as_dict(ranges) for ranges in self.searched],
            "ranges": ranges_as_dict(self.ranges),
            "trials": [asdict(trial) for trial in self.trials],
        }
