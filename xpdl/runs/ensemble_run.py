"""A training run of several networks that answer together.

The folder ends with ``member-0.safetensors`` ..., ``ensemble.json``, by which `load_ensemble` reads
them, ``history.json`` (of each member its seed, losses and accuracies) and the pictures of a `Run`;
with validation pictures also ``best-0.safetensors`` ..., the best epoch of each.
While member i is trained, ``checkpoint-<i>.safetensors`` holds all that it takes to go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpdl import plots
from xpdl.arguments import number, whole_number
from xpdl.backends import Array, use_backend
from xpdl.datasets import Batches, PictureData
from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError, ModelFileError
from xpdl.runs.data import title_of
from xpdl.runs.folder import HISTORY
from xpdl.runs.options import RunOptions
from xpdl.runs.preparation import make_network, make_run_trainer
from xpdl.runs.result import Result
from xpdl.runs.run import Run, UnfinishedRun, show_steps
from xpdl.training.history import Epoch, History
from xpdl.training.trainer import Trainer
from xpdl.tuning.answers import classes_seen
from xpdl.tuning.ensemble import Ensemble, member_path, train_ensemble

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def start_run(
    options: RunOptions,
    folder: str | Path | None = None,
    *,
    overwrite: bool = False,
    pictures: PictureData | None = None,
    ranks: Ranks | None = None,
) -> Run:
    """Return a new run, of one network or of as many as the options say; see `Run`."""
    kind = EnsembleRun if options.members > 1 else Run
    return kind(options, folder, overwrite=overwrite, pictures=pictures, ranks=ranks)


def resume_run(
    folder: str | Path,
    changes: Mapping[str, Any] | None = None,
    *,
    on_its_backend: bool = False,
    ranks: Ranks | None = None,
) -> Run:
    """Return the run in `folder`, whichever it is; see `Run.resume`.

    Parameters
    ----------
    folder : str or path
    changes : mapping of str to value, optional
    on_its_backend : bool
        Whether to make the run's backend the active one, rather than to want it to be.
    ranks : Ranks, optional
    """
    left = UnfinishedRun(folder, changes)
    with ExitStack() as refused:
        refused.enter_context(left.lock)
        if on_its_backend:
            refused.enter_context(use_backend(left.options.backend))
        run = (EnsembleRun if left.options.members > 1 else Run).take_up(left, changes, ranks)
        refused.pop_all()
    return run


@dataclass(frozen=True)
class Member:
    """How one network of an ensemble was trained, as far as it came."""

    seed: int
    history: History

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        told: dict[str, Any] = {"seed": self.seed}
        if (accuracy := self.history.epochs[-1].test_accuracy) is not None:
            told["test_accuracy"] = accuracy
        return told | self.history.as_dict()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Member:
        """Return the member that `as_dict` made `value` of."""
        history = History.from_dict(dict(value))
        for epoch in history.epochs:
            number("accuracy", accuracy_of(epoch))
        if not history.epochs:
            raise ArgumentError("a member has no epochs.")
        return cls(whole_number("seed", value["seed"], least=0), history)


class EnsembleRun(Run):
    """A run of several networks in one folder; see `Run`.

    Each is trained as a run of its own would be, but for its seed, which is drawn from the run's.
    """

    of_members = True

    def _prepare(self, options: RunOptions, pictures: PictureData | None = None) -> None:
        super()._prepare(options, pictures)
        self._members: list[Member] = []
        # The member that is trained now; a run's own trainer, which never trains, until there is.
        self._current: tuple[int, Trainer] = (-1, self.trainer)

    def _take_up(self, record: Mapping[str, Any]) -> None:
        place = str(self.folder / HISTORY)
        try:
            self._members = [Member.from_dict(value) for value in record["members"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelFileError(f"{place!r} is damaged: {error!r}.") from error
        told = [len(member.history.epochs) for member in self._members]
        for i in range(self.options.members):
            path = member_path(self.folder, i)
            stopped = self.options.patience is not None and told[i : i + 1]
            if path.exists() and told[i : i + 1] != [self.options.epochs] and not stopped:
                raise ModelFileError(
                    f"{place!r} does not tell how {str(path)!r} was trained; move that file away "
                    "to train it anew."
                )

    def _train(self) -> None:
        o = self.options
        if self.ranks is not None:
            self.ranks.broadcast(self.folder)
        self._ensemble = train_ensemble(
            self._make,
            o.members,
            seed=o.seed,
            folder=self.folder,
            about=self._notes() | {"epochs": o.epochs},
            callback=lambda i, trainer: self._write(finished=False),
            ranks=self.ranks,
        )

    def _make(self, seed: int) -> Trainer:
        """Return the trainer of the next member."""
        if self._current[1].interrupted:  # between two
            raise KeyboardInterrupt
        options = replace(self.options, seed=seed, members=1)
        trainer = make_run_trainer(options, make_network(options, self.pictures), self.pictures)
        trainer.callbacks.append(self._keep_best)
        self._current = (self._current[0] + 1, trainer)
        return trainer

    def _trainer_at_work(self) -> Trainer:
        return self._current[1]

    def _best(self) -> str:
        return f"best-{self._current[0]}.safetensors"

    def _note(self) -> None:
        """Note how far the member came that is trained now, if it began."""
        i, trainer = self._current
        if trainer.history.epochs:
            self._members[i : i + 1] = [Member(trainer.seed, trainer.history)]

    def _leave(self) -> None:
        """Leave it at the members that are trained, and the checkpoint of the next."""

    def epochs(self) -> list[Epoch]:
        """Return what happened in each epoch so far, one member after another."""
        self._note()
        return [epoch for member in self._members for epoch in member.history.epochs]

    def standing(self) -> str:
        """Say how far it came, and where what it came to is."""
        self._note()
        i = max(0, self._current[0])
        done = sum(len(member.history.epochs) for member in self._members[i : i + 1])
        o = self.options
        return (
            f"in member {i + 1} of {o.members}, after {done} of {o.epochs} epochs"
            f"{show_steps(self._trainer_at_work())}; the members that are trained are in "
            f"{self.folder}"
        )

    def _happened(self) -> dict[str, Any]:
        self._note()
        return {"members": [member.as_dict() for member in self._members]}

    def _trained(self) -> Ensemble:
        return self._ensemble

    def _single_look(self, test: Batches) -> Array:
        return classes_seen(self._ensemble, test)

    def _draw_curves(self, result: Result) -> Figure:
        o = self.options
        percent = {
            f"member {i + 1}": (
                range(1, len(member.history.epochs) + 1),
                [100 * accuracy_of(epoch) for epoch in member.history.epochs],
            )
            for i, member in enumerate(self._members)
        }
        last = [accuracies[-1] for _, accuracies in percent.values()]
        together = 100 * result.accuracy
        shifted = f" over {o.looks}" if o.looks.several else ""
        alone = "test" if self.pictures.validation is None else "validation"
        figure = plots.curves(
            percent | {f"together{shifted}": ((0, o.epochs + 1), (together, together))},
            f"{o.members} x {o.model} on {title_of(o.data)}: {result.accuracy:.2%} together"
            f"{shifted} on the test set,\n"
            f"{min(last):.2f} to {max(last):.2f}% alone on the {alone} set",
            xlabel="epoch",
            ylabel=f"{alone} accuracy (%)",
            xlim=(0.5, o.epochs + 0.5),
        )
        for line in figure.axes[0].lines[:-1]:
            line.set_marker(".")  # an ensemble of one epoch is points, not lines
        return figure


def accuracy_of(epoch: Epoch) -> float:
    """Return what an epoch came to on what it was shown: validation pictures, or those to test."""
    validation = epoch.validation
    accuracy = epoch.test_accuracy if validation is None else validation.get("accuracy")
    if accuracy is None:
        raise ArgumentError("an epoch of a member has no test_accuracy.")
    return accuracy
