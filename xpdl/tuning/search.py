"""Random search of hyperparameters. Book, section 6.5.

Values are drawn from wide ranges, each set is tried in a short training, and what it came to is
measured on validation data, which is neither trained on nor the test set. The best trials say
where to look more closely.
"""

from __future__ import annotations

import math
import os
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xpdl import files
from xpdl.arguments import number, whole_number
from xpdl.backends import Array, backend_of
from xpdl.datasets import split_validation
from xpdl.errors import ArgumentError, DivergenceError, ModelFileError
from xpdl.network import Network
from xpdl.plots import curve_grid
from xpdl.training.history import Epoch
from xpdl.training.progress import Progress, Silence
from xpdl.training.settings import differences, digest, training_settings
from xpdl.training.trainer import Data, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE_FORMAT = "xpdl-search-1"
# Keeps what a search draws apart from other random numbers of the same seed.
SEARCH_STREAM = 5

MakeTrial: TypeAlias = Callable[[dict[str, Any], Data, Data, int], Trainer]
"""(values, train, validation, seed) -> the Trainer of a trial."""

FINISHED, STOPPED, DIVERGED = "finished", "stopped early", "diverged"


# ---- ranges


class Range:
    """Base of the ranges that a hyperparameter is drawn from."""

    def at(self, share: float) -> Any:
        """Return the value below which the part `share`, in [0, 1), of the range lies."""
        raise NotImplementedError

    def narrowed(self, best: Sequence[Any]) -> Range:
        """Return the part of this range to which the values `best`, two at least, point."""
        raise NotImplementedError

    def __contains__(self, value: object) -> bool:
        raise NotImplementedError

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Range):
    """Numbers from `low` to `high`, each as likely as the other."""

    low: float
    high: float

    def __post_init__(self) -> None:
        # As floats: NumPy's numbers could not be kept as JSON.
        object.__setattr__(self, "low", number("low", self.low, above=self._limit()))
        object.__setattr__(self, "high", number("high", self.high, above=self._limit()))
        if self.low > self.high:
            raise ArgumentError(f"low must be at most high, got {self.low:g} and {self.high:g}.")

    def _limit(self) -> float:
        return -math.inf

    def _place(self, value: float) -> float:
        """Return where a value is on the scale that is drawn from evenly."""
        return value

    def _value(self, place: float) -> float:
        return place

    def at(self, share: float) -> float:
        place = (1 - share) * self._place(self.low) + share * self._place(self.high)
        return min(max(self._value(place), self.low), self.high)  # whatever was rounded

    def narrowed(self, best: Sequence[float]) -> Range:
        """Return the range that k values span, widened on each side by 1/(k - 1) of it.

        For values drawn evenly from an interval that is the unbiased estimate of its ends: their
        own smallest and largest lie inside it. The result is within this range.
        """
        places = [self._place(value) for value in best]
        margin = (max(places) - min(places)) / (len(best) - 1)
        low = self._value(max(self._place(self.low), min(places) - margin))
        high = self._value(min(self._place(self.high), max(places) + margin))
        # A logarithm and back is not exact.
        low, high = min(low, *best), max(high, *best)
        return type(self)(max(low, self.low), min(high, self.high))

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float) and self.low <= value <= self.high

    def as_dict(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, "low": self.low, "high": self.high}

    def __str__(self) -> str:
        return f"{self.low:.3g} to {self.high:.3g}"


class LogUniform(Uniform):
    """Numbers from `low` above 0 to `high`, each power of ten as likely as the other."""

    def _limit(self) -> float:
        return 0.0

    def _place(self, value: float) -> float:
        return math.log(value)

    def _value(self, place: float) -> float:
        return math.exp(place)


@dataclass(frozen=True)
class Choice(Range):
    """One of a few values: numbers, texts, booleans or None."""

    choices: tuple[Any, ...]

    def __init__(self, choices: Iterable[Any]) -> None:
        listed = isinstance(choices, Iterable) and not isinstance(choices, str)
        given = tuple(choices) if listed else ()
        for i, choice in enumerate(given):
            simple = choice is None or isinstance(choice, str | int | float)
            if not simple or choice in given[:i] or choice != choice or choice in _INFINITIES:
                raise ArgumentError(
                    "choices must be different numbers, texts, booleans or None, "
                    f"got {choice!r} in {given!r}; let `make` turn a name into anything else."
                )
        if not given:
            raise ArgumentError(
                f"choices must be a list of one value at least, such as ['he'], got {choices!r}."
            )
        object.__setattr__(self, "choices", given)

    def at(self, share: float) -> Any:
        return self.choices[int(share * len(self.choices))]

    def narrowed(self, best: Sequence[Any]) -> Choice:
        """Return the choices that are among the values `best`."""
        return Choice(choice for choice in self.choices if choice in best)

    def __contains__(self, value: object) -> bool:
        return value in self.choices

    def as_dict(self) -> dict[str, Any]:
        return {"kind": "Choice", "choices": list(self.choices)}

    def __str__(self) -> str:
        return ", ".join(map(_show, self.choices))


_INFINITIES = (math.inf, -math.inf)


# ---- trials


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
        parts += [f"{name} {_show(value)}" for name, value in self.values.items()]
        return "  ".join([*parts, self._told(), f"{self.seconds:.1f} s"])

    def _told(self) -> str:
        count = len(self.accuracies)
        epochs = f"{count} epoch{'s' if count != 1 else ''}"
        return epochs if self.outcome == FINISHED else f"{self.outcome} after {epochs}"


def _merit(trial: Trial) -> tuple[bool, float, int]:
    """Return a key that puts the best trial first; what diverged is last, however far it came."""
    return trial.outcome == DIVERGED, -trial.accuracy, trial.number


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
            values = "\n".join(f"{name} {_show(value)}" for name, value in trial.values.items())
            curves = {"validation": trial.accuracies, "training": trial.train_accuracies}
            panels[f"best {place}: {trial.accuracy:.0%}\n{values}"] = curves
        return curve_grid(panels, columns=5, xlabel="epoch", ylabel="accuracy", ylim=(0, 1))

    def table(self, count: int = 20) -> str:
        """Return the `count` best trials as a table, with trials and rounds counted from 1."""
        names = list(self.ranges)
        rows = [["", "accuracy", *names, "epochs", "round", "trial", ""]]
        for place, trial in enumerate(self.best(count), 1):
            values = [_show(trial.values[name]) for name in names]
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
            "searched": [_ranges_as_dict(ranges) for ranges in self.searched],
            "ranges": _ranges_as_dict(self.ranges),
            "trials": [asdict(trial) for trial in self.trials],
        }


# ---- the search


class _BarAlone(Progress):
    """The bar of an epoch, with no line after it."""

    def end(self, epoch: Epoch | None) -> None:
        super().end(None)


class RandomSearch:
    """Looks for hyperparameters by trying some drawn at random.

    There is no place for test data: what chooses hyperparameters must not be what they are judged
    by (book, section 6.5.1).

    Parameters
    ----------
    ranges : mapping of str to Range
        What to search, by any names: `LogUniform`, `Uniform` or `Choice`.
    make : callable
        ``make(values, train, validation, seed)`` returns a new `Trainer` of a new network and a
        new optimizer, for the values of a trial: with `train` and, as its test data,
        `validation`. Its epochs are the trial's; its progress is replaced by the search's.
    data : (x, t)
        Training data. Arrays of the networks' backend are put there only once.
    validation : float, int or (x, t)
        The share or number of examples of `data` to set aside, by `split_validation`; or
        validation data.
    trials : int
        How many in a round.
    rounds : int
        After a round, the next draws from the ranges that the `keep` best trials so far span,
        somewhat widened but within the first ranges, see `Uniform.narrowed`. Those that diverged
        do not count; with fewer than two others the ranges stay.
    keep : int
        2 at least.
    stopping : MedianRule, optional
        Which trials to stop early; None lets all go to their end.
    seed : int
        For the split, the values and the trials' own seeds. A trial's are drawn from
        [stream, seed, round, number in the round], whatever the trials before it were.
    path : str or path, optional
        A JSON file, written after each trial. If it exists, `run` goes on from there, and ends as
        it would have without the interruption (but for `Trial.seconds`). `rounds` may have been
        raised.
    progress : bool
        Whether to show the bar of a trial's epoch and a line a trial.

    Raises
    ------
    ArgumentError, ShapeError
        If an argument does not fit.
    """

    def __init__(
        self,
        ranges: Mapping[str, Range],
        make: MakeTrial,
        data: Data,
        validation: float | Data = 0.2,
        *,
        trials: int = 100,
        rounds: int = 1,
        keep: int = 5,
        stopping: MedianRule | None = MedianRule(),
        seed: int = 0,
        path: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> None:
        self.ranges = _checked_ranges(ranges)
        if not callable(make):
            raise ArgumentError(f"make must be a function that returns a Trainer, got {make!r}.")
        self.make = make
        self.trials = whole_number("trials", trials)
        self.rounds = whole_number("rounds", rounds)
        self.keep = whole_number("keep", keep, least=2)
        if not isinstance(stopping, MedianRule | None):
            raise ArgumentError(f"stopping must be a MedianRule or None, got {stopping!r}.")
        self.stopping = stopping
        self.seed = whole_number("seed", seed, least=0)
        self.path = None if path is None else Path(path)
        self.progress = progress
        x, t = _pair("data", data)
        if isinstance(validation, tuple | list):
            self.train, self.validation = (x, t), _pair("validation", validation)
        else:
            try:
                self.train, self.validation = split_validation(x, t, validation, self.seed)
            except ArgumentError as error:
                told = str(error).replace("fraction_or_count", "validation")
                raise type(error)(told) from error
        self._network: Callable[[], Network | None] = lambda: None

    def run(self) -> SearchResult:
        """Make the trials that are left, and return what all came to.

        Raises
        ------
        ArgumentError
            If the file at `path` is of another search, or `make` returns what does not serve.
        ModelFileError
            If that file is damaged, or none of a search.
        FileAccessError
            If it cannot be read or written.
        """
        total = self.rounds * self.trials
        settings = {} if self.path is None else self._settings()
        trials = self._read(settings, total)
        if trials and self.progress:
            print(f"going on after {len(trials)} of {total} trials", flush=True)
        for place in range(len(trials), total):
            trials.append(self._try(place, trials))
            self._write(settings, trials)
            if self.progress:
                print(f"trial {place + 1:>{len(str(total))}}/{total}  {trials[-1]}", flush=True)
        return SearchResult(
            trials=tuple(sorted(trials, key=_merit)),
            searched=tuple(self._ranges(trials, round) for round in range(self.rounds)),
            ranges=self._ranges(trials, self.rounds),
        )

    def _ranges(self, trials: Sequence[Trial], round: int) -> dict[str, Range]:
        """Return what round `round` draws from, after the trials of the rounds before."""
        best = sorted(trials[: round * self.trials], key=_merit)[: self.keep]
        best = [trial for trial in best if trial.outcome != DIVERGED]
        if len(best) < 2:
            return dict(self.ranges)
        return {
            name: choices.narrowed([trial.values[name] for trial in best])
            for name, choices in self.ranges.items()
        }

    def _draw(self, number: int) -> tuple[int, dict[str, float]]:
        """Return the seed of a trial, and where in each range its value is, in [0, 1)."""
        rng = np.random.default_rng([SEARCH_STREAM, self.seed, *divmod(number, self.trials)])
        seed = int(rng.integers(2**31))
        # By name, so that the order of a dictionary makes no difference.
        return seed, {name: float(rng.random()) for name in sorted(self.ranges)}

    def _try(self, number: int, trials: Sequence[Trial]) -> Trial:
        start = time.perf_counter()
        seed, shares = self._draw(number)
        ranges = self._ranges(trials, number // self.trials)
        values = {name: choices.at(shares[name]) for name, choices in ranges.items()}
        trainer = self._make(values, seed)
        trainer.progress = _BarAlone() if self.progress else Silence()
        outcome, note = FINISHED, ""
        earlier = [trial.accuracies for trial in trials]

        def stop_if_behind(trainer: Trainer, epoch: Epoch) -> None:
            nonlocal outcome
            left = epoch.number + 1 < trainer.epochs and not trainer.stop
            if self.stopping and left and self.stopping.stops(_accuracies(trainer), earlier):
                trainer.stop, outcome = True, STOPPED

        trainer.callbacks.append(stop_if_behind)
        try:
            trainer.fit()
        except DivergenceError as error:
            outcome, note = DIVERGED, str(error)
        return Trial(
            number=number,
            round=number // self.trials,
            seed=seed,
            values=values,
            accuracies=_accuracies(trainer),
            train_accuracies=tuple(_known(e.train_accuracy) for e in trainer.history.epochs),
            outcome=outcome,
            note=note,
            seconds=time.perf_counter() - start,
        )

    def _make(self, values: dict[str, Any], seed: int) -> Trainer:
        """Let the caller make a trial's Trainer, and see that it serves."""
        trainer = self.make(dict(values), self.train, self.validation, seed)
        if not isinstance(trainer, Trainer):
            raise ArgumentError(f"make must return a Trainer, got {trainer!r}.")
        network = trainer.network
        if not network.loss_layer.classifies:
            raise ArgumentError(f"{network.name} does not tell classes apart: it is a regression.")
        if trainer.test is None or len(trainer.test.x) != len(self.validation[0]):
            raise ArgumentError("make must give its Trainer the validation data, as test=.")
        used = trainer.optimizer.iteration or trainer.history.epochs or trainer.stop
        if network is self._network() or used:
            raise ArgumentError(
                "make must make a new network, a new optimizer and a new Trainer each time; "
                "a trial would go on from where another ended, or not begin."
            )
        if trainer.checkpoint is not None:
            raise ArgumentError("a trial is short and has no checkpoint; leave checkpoint= out.")
        self._network = weakref.ref(network)
        return trainer

    # ---- the file

    def _settings(self) -> dict[str, Any]:
        """Return what must be the same for a search to go on, as JSON gives it back."""
        seed, shares = self._draw(0)
        values = {name: choices.at(shares[name]) for name, choices in self.ranges.items()}
        return {
            "ranges": _ranges_as_dict(self.ranges),
            "trials": self.trials,
            "keep": self.keep,
            "stopping": None if self.stopping is None else asdict(self.stopping),
            "seed": self.seed,
            "data": {
                "train": len(self.train[0]),
                "validation": len(self.validation[0]),
                "sha256": digest(*self.train, *self.validation),
            },
            # `make` is known by what it makes.
            "first_training": training_settings(self._make(values, seed)),
        }

    def _write(self, settings: dict[str, Any], trials: Sequence[Trial]) -> None:
        if self.path is not None:
            records = [asdict(trial) for trial in trials]
            content = {"format": FILE_FORMAT, "settings": settings, "trials": records}
            files.write_json(self.path, content)

    def _read(self, settings: dict[str, Any], total: int) -> list[Trial]:
        if self.path is None:
            return []
        if not self.path.exists():
            self._write(settings, [])  # now, rather than after a trial, it shows if it cannot
            return []
        content = files.read_json(self.path)
        described = isinstance(content, dict) and isinstance(content.get("settings"), dict)
        if not described or content.get("format") != FILE_FORMAT:
            raise ModelFileError(f"{str(self.path)!r} is not the file of a search.")
        differ = differences(content["settings"], settings)
        if differ:
            raise ArgumentError(
                f"{str(self.path)!r} is of another search: {', '.join(differ)}. "
                "Go on with the same, or start anew elsewhere."
            )
        try:
            trials: list[Trial] = []
            for record in content["trials"]:
                trials.append(self._read_trial(record, len(trials)))
        except (KeyError, TypeError, AttributeError, ModelFileError) as error:
            raise ModelFileError(f"{str(self.path)!r} is damaged: {error}.") from error
        if len(trials) > total:
            raise ArgumentError(
                f"{str(self.path)!r} holds {len(trials)} trials, more than the {total} asked for; "
                f"give rounds={-(-len(trials) // self.trials)}, or start anew elsewhere."
            )
        return trials

    def _read_trial(self, record: Any, place: int) -> Trial:
        series = ("accuracies", "train_accuracies")
        trial = Trial(**record | {name: tuple(record[name]) for name in series})
        sound = (
            (trial.number, trial.round) == (place, place // self.trials)
            and trial.seed == self._draw(place)[0]
            and trial.values.keys() == self.ranges.keys()
            and all(trial.values[name] in choices for name, choices in self.ranges.items())
            and all(0 <= a <= 1 for a in (*trial.accuracies, *trial.train_accuracies))
            and len(trial.accuracies) == len(trial.train_accuracies)
            and (trial.accuracies or trial.outcome == DIVERGED)
            and trial.outcome in (FINISHED, STOPPED, DIVERGED)
            and isinstance(trial.note, str)
            and isinstance(trial.seconds, float)
        )
        if not sound:
            raise ModelFileError(f"trial {place} is none of this search")
        return trial


def _accuracies(trainer: Trainer) -> tuple[float, ...]:
    return tuple(_known(epoch.test_accuracy) for epoch in trainer.history.epochs)


def _known(accuracy: float | None) -> float:
    assert accuracy is not None  # the network classifies, and there is validation data
    return accuracy


def _checked_ranges(ranges: Mapping[str, Range]) -> dict[str, Range]:
    if not isinstance(ranges, Mapping) or not ranges:
        raise ArgumentError(f"ranges must map names to ranges, one at least, got {ranges!r}.")
    for name, choices in ranges.items():
        if not isinstance(name, str) or not isinstance(choices, Range):
            raise ArgumentError(
                f"ranges: {name!r} must be the name of a LogUniform, Uniform or Choice, "
                f"got {choices!r}."
            )
    return dict(ranges)


def _ranges_as_dict(ranges: Mapping[str, Range]) -> dict[str, Any]:
    return {name: choices.as_dict() for name, choices in ranges.items()}


def _pair(argument: str, data: Data) -> tuple[Array, Array]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ArgumentError(f"{argument} must be a pair (x, t), got {type(data).__name__}.")
    x, t = (a if hasattr(a, "shape") else np.asarray(a) for a in data)
    backend_of(x, t)
    return x, t


def _show(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
