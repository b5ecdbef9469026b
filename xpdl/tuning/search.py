"""Random search of hyperparameters. Book, section 6.5.

Values are drawn from wide ranges, each set is tried in a short training, and what it came to is
measured on validation data, which is neither trained on nor the test set. The best trials say
where to look more closely.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from xpdl import files
from xpdl.arguments import whole_number
from xpdl.backends import Array, backend_of
from xpdl.datasets import split_validation
from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError, DivergenceError, ModelFileError
from xpdl.network import Network
from xpdl.training.history import Epoch
from xpdl.training.progress import Progress, Silence
from xpdl.training.settings import differences, digest, training_settings
from xpdl.training.trainer import Data, Trainer
from xpdl.tuning.ranges import Range, checked_ranges, ranges_as_dict
from xpdl.tuning.results import SearchResult
from xpdl.tuning.trials import DIVERGED, FINISHED, STOPPED, MedianRule, Trial, merit

FILE_FORMAT = "xpdl-search-1"
# Keeps what a search draws apart from other random numbers of the same seed.
SEARCH_STREAM = 5

MakeTrial: TypeAlias = Callable[[dict[str, Any], Data, Data, int], Trainer]
"""(values, train, validation, seed) -> the Trainer of a trial."""


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
    ranks : Ranks, optional
        Processes that make a trial each at a time, all with the same arguments. What they find is
        what one process finds; a trial that `stopping` ends is known to be ended only when those
        before it are through, and goes to its end first. Rank 0 alone writes and shows.

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
        stopping: MedianRule | None = MedianRule(),  # noqa: B008, as it never changes
        seed: int = 0,
        path: str | os.PathLike[str] | None = None,
        progress: bool = True,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks
        self.ranges = checked_ranges(ranges)
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
        self.progress = progress and (ranks is None or ranks.rank == 0)
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
        trials = list(self._first(lambda: self._read(settings, total)))
        if trials and self.progress:
            print(f"going on after {len(trials)} of {total} trials", flush=True)
        while len(trials) < total:
            for trial in self._next(trials):
                trials.append(trial)
                self._write(settings, trials)
                if self.progress:
                    print(f"trial {len(trials):>{len(str(total))}}/{total}  {trial}", flush=True)
        return SearchResult(
            trials=tuple(sorted(trials, key=merit)),
            searched=tuple(self._ranges(trials, round) for round in range(self.rounds)),
            ranges=self._ranges(trials, self.rounds),
        )

    def _first(self, function: Callable[[], list[Trial]]) -> list[Trial]:
        return function() if self.ranks is None else self.ranks.first(function)

    def _next(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trial that comes after `trials`; of several ranks, those of one each."""
        place = len(trials)
        if self.ranks is None:
            return [self._try(place, trials, self.stopping)]
        # None of the next round, whose ranges depend on all of this one.
        several = min(self.ranks.size, self.trials - place % self.trials)
        mine = None
        if self.ranks.rank < several:
            with self.ranks.working_alone():
                mine = self._try(place + self.ranks.rank, trials, None)
        found: list[Trial] = self.ranks.gather(mine, patient=True)[:several]
        for i, trial in enumerate(found):
            found[i] = self._stopped(trial, [*trials, *found[:i]])
        return found

    def _stopped(self, trial: Trial, before: Sequence[Trial]) -> Trial:
        """Return a trial that went to its end as it would have been stopped after those before."""
        earlier = [one.accuracies for one in before]
        for done in range(1, len(trial.accuracies) + (trial.outcome == DIVERGED)):
            so_far = trial.accuracies[:done]
            if self.stopping and self.stopping.stops(so_far, earlier):
                return replace(
                    trial,
                    accuracies=so_far,
                    train_accuracies=trial.train_accuracies[:done],
                    outcome=STOPPED,
                    note="",
                )
        return trial

    def _ranges(self, trials: Sequence[Trial], round: int) -> dict[str, Range]:
        """Return what round `round` draws from, after the trials of the rounds before."""
        best = sorted(trials[: round * self.trials], key=merit)[: self.keep]
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

    def _try(self, number: int, trials: Sequence[Trial], stopping: MedianRule | None) -> Trial:
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
            if stopping and left and stopping.stops(_accuracies(trainer), earlier):
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
            "ranges": ranges_as_dict(self.ranges),
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
        if self.path is not None and (self.ranks is None or self.ranks.rank == 0):
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


def _pair(argument: str, data: Data) -> tuple[Array, Array]:
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ArgumentError(f"{argument} must be a pair (x, t), got {type(data).__name__}.")
    x, t = (a if hasattr(a, "shape") else np.asarray(a) for a in data)
    backend_of(x, t)
    return x, t
