"""A training run: from options to a folder that holds the network and what is known of it.

The folder ends with ``model.safetensors``, ``history.json`` (options, losses, accuracies, machine),
``curves.png``, ``misclassified.png`` and ``confusion.png``; where pictures were set aside for
validation, also ``best.safetensors``, the network after the epoch that did best on these. Then the
test pictures are looked at once, at the end; without them they are after each epoch, and choose
nothing.
``checkpoint.safetensors`` holds all that it takes to go on: while the run lasts, and after it where
the schedule of its learning rate lets it be given more epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xpdl import files, plots
from xpdl.arguments import path_of
from xpdl.backends import Array, get_backend
from xpdl.datasets import Batches, PictureData
from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError, DivergenceError, ModelFileError, RanksError
from xpdl.network import Network
from xpdl.runs.best import keep_best, notes_about
from xpdl.runs.data import LOADERS, as_taken, load_pictures, run_name, title_of
from xpdl.runs.folder import (
    BEST,
    BESTS,
    CHECKPOINT,
    CURVES,
    HISTORY,
    MODEL,
    FolderLock,
    draw_mistakes,
    going_on,
    new_folder,
    read_record,
    remove_run,
    resuming,
    save_figures,
    write_record,
)
from xpdl.runs.options import (
    RunOptions,
    changed_options,
    remove_leftovers,
    unfinished_options,
)
from xpdl.runs.preparation import make_network, make_run_trainer
from xpdl.runs.result import Result
from xpdl.runs.signals import stopping_in_order
from xpdl.storage import load_with_notes
from xpdl.training.checkpoint import check_checkpoint
from xpdl.training.data import training_batches
from xpdl.training.history import Epoch
from xpdl.training.trainer import Trainer
from xpdl.tuning.answers import classes_seen
from xpdl.tuning.ensemble import Ensemble
from xpdl.tuning.shifts import Looks, answering

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class UnfinishedRun:
    """A run that was left before its end; no other process can take it up meanwhile.

    Attributes
    ----------
    folder : Path
    record : dict
        What its ``history.json`` holds.
    options : RunOptions
        Which it began with, or was last changed to.
    lock : FolderLock

    Raises
    ------
    ModelFileError
        If `folder` holds no run.
    FileAccessError
        If it cannot be read.
    ArgumentError
        If the run is finished, and `changes` give it no more epochs, or at work in another process.
    """

    def __init__(self, folder: str | Path, changes: Mapping[str, Any] | None = None) -> None:
        self.folder = path_of("folder", folder)
        self.lock = FolderLock(self.folder)
        with self.lock:
            self.record = read_record(self.folder)
            self.options = unfinished_options(
                self.folder, self.record, (changes or {}).get("epochs")
            )


class Run:
    """A run of one network in its folder.

    Parameters
    ----------
    options : RunOptions
    folder : str or path, optional
        A new or empty folder; ``runs/<model>-<time>`` by default.
    overwrite : bool
        Whether `folder` may hold a run, whose files are then removed.
    pictures : PictureData, optional
        What the options say, where it was loaded before.
    ranks : Ranks, optional
        The processes that train together, of which this is rank 0; the others `follow`.

    Raises
    ------
    XpdlError
        If an option, the data or the folder does not serve; nothing is trained then.

    Attributes
    ----------
    changes : mapping of str to (before, now)
        The options that became others when it was resumed.
    """

    of_members = False
    changes: Mapping[str, tuple[Any, Any]]

    def __init__(
        self,
        options: RunOptions,
        folder: str | Path | None = None,
        *,
        overwrite: bool = False,
        pictures: PictureData | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks
        self._prepare(options, pictures)
        self.folder = new_folder(run_name(options.model, options.data), folder, overwrite)
        self.changes = {}
        self._lock = FolderLock(self.folder)
        with self._lock:
            if overwrite:
                remove_run(self.folder)
            self._write(finished=False)

    @classmethod
    def resume(cls, folder: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """Return the run in `folder`, to go on from where it was, or for longer if it is finished.

        Parameters
        ----------
        folder : str or path
        changes : mapping of str to value, optional
            Options that are now to be other than they were: those in `changeable`.

        Raises
        ------
        ModelFileError
            If `folder` holds no run.
        FileAccessError
            If it cannot be read, or not be written.
        ArgumentError
            If there is no more to do, the run is of another backend than the active one, is at work
            in another process, or would not go on as it began with `changes`. Nothing is changed
            then.
        """
        left = UnfinishedRun(folder, changes)
        with left.lock:
            return cls.take_up(left, changes)

    @classmethod
    def take_up(
        cls,
        left: UnfinishedRun,
        changes: Mapping[str, Any] | None = None,
        ranks: Ranks | None = None,
    ) -> Self:
        """Return the run that was left, to go on; see `resume`."""
        before = left.options
        if before.backend != get_backend().name:
            raise ArgumentError(
                f"the run in {str(left.folder)!r} was on the backend {before.backend!r}, the "
                f"active one is {get_backend().name!r}; give --backend {before.backend}."
            )
        options = changed_options(before, changes or {})
        run = cls.__new__(cls)
        run.ranks = ranks
        run._prepare(options)
        run.folder, run._lock = left.folder, left.lock
        run._take_up(left.record)
        # Now it shows if the folder cannot be written to, not when something is to be kept.
        begun = {"options": asdict(options), "finished": False}
        files.write_json(run.folder / HISTORY, left.record | begun)
        files.remove_unfinished(run.folder)
        run.changes = {
            name: (getattr(before, name), value)
            for name, value in vars(options).items()
            if value != getattr(before, name)
        }
        run._renew_notes()
        return run

    def _prepare(self, options: RunOptions, pictures: PictureData | None = None) -> None:
        if (options.members > 1) is not self.of_members:
            raise ArgumentError(
                f"a {type(self).__name__} is not for members={options.members}; "
                "use start_run or resume_run of xpdl.runs.ensemble_run."
            )
        self.options = options
        self.pictures = load_pictures(**options.of_pictures()) if pictures is None else pictures
        self.network = make_network(options, self.pictures)
        answering(self.network, options.looks)  # now it shows if it cannot, not when it is trained
        ranks = None if self.of_members else self.ranks  # which train members, each by itself
        self.trainer = make_run_trainer(options, self.network, self.pictures, ranks=ranks)

    def _take_up(self, record: Mapping[str, Any]) -> None:
        """Take from the record of the interrupted run what its other files do not say.

        Raises
        ------
        ModelFileError
            If it is of another kind of run, or the checkpoint is damaged.
        ArgumentError
            If the options are not those of the checkpoint, or it is further than they go.
        """
        if "members" in record:
            raise ModelFileError(
                f"{str(self.folder / HISTORY)!r} is damaged: it tells of members, and its options "
                "are those of one network."
            )
        if (self.folder / CHECKPOINT).exists():
            check_checkpoint(self.folder / CHECKPOINT, self.trainer)

    def _renew_notes(self) -> None:
        """Write into the best networks so far how they answer now."""
        if self.changes.keys() & {*Looks._fields, "data"}:
            for best in self.folder.glob(BESTS):
                network, notes = load_with_notes(best)
                for name in Looks._fields:
                    notes.pop(name, None)
                network.save(best, notes | self._notes())

    def _notes(self) -> dict[str, Any]:
        """Return what the file of a network of this run keeps about it."""
        return notes_about(self.options, self.pictures)

    def fit(self) -> Result:
        """Train to the end and fill the folder; say what it came to.

        Ctrl-C, SIGTERM or a closed terminal ends the step and leaves all in the folder; it goes on
        as a KeyboardInterrupt, `Stopped`.
        """
        try:
            return self._fit()
        finally:
            self._lock.release()

    def _fit(self) -> Result:
        try:
            with stopping_in_order(lambda: self._trainer_at_work().interrupt()):
                self._train()
        except KeyboardInterrupt:
            self._leave()
            self._write(finished=False)
            raise
        except DivergenceError as error:
            self._write(finished=False, error=str(error))
            raise DivergenceError(
                f"{error} The run is as it was before: {resuming(self.folder)} goes on "
                "with the next batch; add --on-divergence reduce-lr to do so at half the rate."
            ) from error
        except RanksError as error:
            raise going_on(error, self.folder) from error
        result = self._measure()
        told = {"test_accuracy": result.accuracy}
        if result.single_look_accuracy is not None:
            told["single_look_accuracy"] = result.single_look_accuracy
        self._write(finished=True, **told)
        remove_leftovers(self.folder, self.options)
        return result

    def _train(self) -> None:
        self.trainer.checkpoint = self.folder / CHECKPOINT
        self.trainer.callbacks.append(self._keep_best)
        self.trainer.fit()
        self._leave()

    def _trainer_at_work(self) -> Trainer:
        """Return the trainer that a signal is for."""
        return self.trainer

    def _keep_best(self, trainer: Trainer, epoch: Epoch) -> None:
        """Write the network if validation found none of the epochs before so good."""
        keep_best(self.folder / self._best(), self._notes(), trainer, epoch)

    def _best(self) -> str:
        """Return the name of the file of the best network in training."""
        return BEST

    def _leave(self) -> None:
        """Write the network as it is: averaged if the run averages, the best if that stopped it."""
        patience = self.trainer.patience
        epochs = len(self.trainer.history.epochs)
        if self.trainer.stop and patience.ended and patience.best is not None:
            epochs = patience.best + 1
        self.network.save(self.folder / MODEL, self._notes() | {"epochs": epochs})

    def stopped_early(self) -> str | None:
        """Say which epoch's network it is, if `patience` stopped the training."""
        patience, epochs = self.trainer.patience, len(self.trainer.history.epochs)
        if not patience.ended or patience.best is None:
            return None
        return (
            f"stopped after {epochs} of {self.options.epochs} epochs, as validation found none "
            f"better since epoch {patience.best + 1}; the network is that epoch's"
        )

    def epochs(self) -> list[Epoch]:
        """Return what happened in each epoch so far."""
        return self.trainer.history.epochs

    def standing(self) -> str:
        """Say how far it came, and where what it came to is."""
        return (
            f"after {len(self.epochs())} of {self.options.epochs} epochs"
            f"{show_steps(self.trainer)}; the network as it is now is in {self.folder}"
        )

    def _seconds(self) -> float:
        """Return how long the training took, in all its sittings."""
        return sum(epoch.seconds for epoch in self.epochs())

    def _write(self, **told: Any) -> None:
        """Write ``history.json``."""
        told = {"seconds": self._seconds(), **told, **self._happened()}
        write_record(self.folder, asdict(self.options), self.network.backend, told)

    def _happened(self) -> dict[str, Any]:
        """Return what the record says of the training itself."""
        return self.trainer.history.as_dict()

    def _trained(self) -> Network | Ensemble:
        """Return what the training came to."""
        return self.network

    def _test(self) -> Batches:
        """Return the test pictures, as the network takes them."""
        trainer = self.trainer
        if trainer.test is not None:
            return trainer.test
        assert self.pictures.test is not None
        part = as_taken(self.network, self.pictures.test)
        size = trainer.batches.size(0)
        return training_batches("test", self.network, part, size, self.options.seed)

    def _single_look(self, test: Batches) -> Array:
        """Return the class (N,) that is seen in each test picture as it is, on the device."""
        answers = self.trainer.answers
        return classes_seen(self.network, test) if answers is None else answers

    def _measure(self) -> Result:
        """Return how it does on the test pictures, and draw it."""
        options, to_numpy = self.options, self.network.backend.to_numpy
        assert self.pictures.test is not None
        (x, labels), test = self.pictures.test, self._test()
        answers = to_numpy(self._single_look(test))
        single_look_accuracy = None
        if options.looks.several:
            single_look_accuracy = float((answers == labels).mean())
            answers = to_numpy(classes_seen(answering(self._trained(), options.looks), test))
        wrong = (answers != labels).nonzero()[0]
        accuracy = 1 - len(wrong) / len(labels)
        result = Result(
            self.folder, accuracy, len(wrong), len(labels), self._seconds(), single_look_accuracy
        )
        names = None if options.data == "mnist" else self.pictures.class_names
        figures = draw_mistakes(x, labels, answers, names, inked=options.data in LOADERS)
        save_figures(self.folder, {CURVES: self._draw_curves(result), **figures})
        return result

    def _draw_curves(self, result: Result) -> Figure:
        o = self.options
        title = f"{o.model} on {title_of(o.data)}: {result.accuracy:.2%} on the test set"
        title += f" over {o.looks}" if o.looks.several else ""
        return plots.learning_curves(self.trainer.history, (), (), title)


def show_steps(trainer: Trainer) -> str:
    """Say how far a trainer is in an epoch, if it is in one."""
    if trainer.steps_of_epoch is None:
        return ""
    done, steps = trainer.steps_of_epoch
    return f" and {done} of {steps} steps"
