"""A training run: from options to a folder that holds the network and what is known of it.

The folder ends with ``model.safetensors``, ``history.json`` (options, losses, accuracies, machine),
``curves.png``, ``misclassified.png``, ``confusion.png`` and ``best.safetensors``, the network after
the epoch that did best on the test images (chosen by them, so what it scores there flatters it).
While the run lasts, ``checkpoint.safetensors`` holds all that it takes to go on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from xpdl import files, plots
from xpdl.arguments import number, whole_number
from xpdl.backends import Array, get_backend
from xpdl.datasets import CLASS_NAMES, load_fashion_mnist, load_mnist
from xpdl.datasets.augmentation import Augmentation, OfRows, make_augmentation
from xpdl.errors import ArgumentError, DivergenceError, ModelFileError, UnknownNameError
from xpdl.layers import SoftmaxWithLoss
from xpdl.models import MODELS, make_model
from xpdl.network import Network
from xpdl.optimizers import Optimizer, get_optimizer
from xpdl.precision import get_precision
from xpdl.schedules import get_schedule, keeps_its_pace, with_warm_up
from xpdl.training.answers import classes_seen
from xpdl.training.ensemble import Ensemble
from xpdl.training.history import Epoch
from xpdl.training.recipes import RECIPES, TrainingOptions
from xpdl.training.run_folder import (
    BEST,
    CHECKPOINT,
    CURVES,
    HISTORY,
    MODEL,
    FolderLock,
    draw_mistakes,
    new_folder,
    read_record,
    save_figures,
    write_record,
)
from xpdl.training.shifts import answering
from xpdl.training.signals import stopping_in_order
from xpdl.training.trainer import Data, Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOADERS = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}


@dataclass(frozen=True, kw_only=True)
class RunOptions(TrainingOptions):
    """All that decides how a run goes; a run's ``history.json`` keeps them.

    `checkpoint_every` and `on_divergence` are those of `Trainer`.
    """

    data: str
    seed: int
    backend: str
    dtype: str
    checkpoint_every: float = 180.0
    on_divergence: str = "stop"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_text("data", "backend", "dtype", "on_divergence")
        whole_number("seed", self.seed, least=0)
        number("checkpoint_every", self.checkpoint_every, above=0)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunOptions:
        """Return the options that a ``history.json`` keeps; older ones have fewer of them."""
        batch_size = record["batch_size"]
        if isinstance(batch_size, dict):  # JSON has no keys but texts
            batch_size = {int(first): size for first, size in batch_size.items()}
        return cls(**{**record, "batch_size": batch_size})


@dataclass(frozen=True)
class Result:
    """What a run, or an evaluation, came to.

    With `shifts` in the options, `accuracy` and `wrong` are of the average over shifts, and
    `single_look_accuracy` is without; else that is None.
    """

    folder: Path
    accuracy: float
    wrong: int
    images: int
    seconds: float
    single_look_accuracy: float | None = None


def make_options(recipe: str, *, data: str, seed: int, dtype: Any, **overrides: Any) -> RunOptions:
    """Return the options of a recipe, with those in `overrides` that are not None in its place.

    Model options are added to the recipe's, or take the place of all if it is of another model.

    Raises
    ------
    UnknownNameError
        If there is no such recipe, data set, augmentation or dtype.
    ArgumentError
        If an option does not serve.
    """
    for kind, name, known in (("recipe", recipe, RECIPES), ("data set", data, LOADERS)):
        if name not in known:
            raise UnknownNameError(kind, name, known)
    chosen = asdict(RECIPES[recipe])
    del chosen["about"]
    model = overrides.get("model")
    if model is not None:
        proper = _proper(model)
        if proper != chosen["model"]:
            chosen["model_options"] = {}
        overrides["model"] = proper
    if overrides.get("model_options") is not None:
        overrides["model_options"] = chosen["model_options"] | overrides["model_options"]
    chosen |= {name: value for name, value in overrides.items() if value is not None}
    return RunOptions(
        data=data, seed=seed, dtype=get_precision(dtype).name, backend=get_backend().name, **chosen
    )


def _proper(model: Any) -> Any:
    """Return the name of a model as it is written, whatever its capitals."""
    return {known.lower(): known for known in MODELS}.get(str(model).lower(), model)


class Run:
    """A run of one network in its folder.

    Parameters
    ----------
    options : RunOptions
    folder : str or path, optional
        A new or empty folder; ``runs/<model>-<time>`` by default.

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

    def __init__(self, options: RunOptions, folder: str | Path | None = None) -> None:
        self._prepare(options)
        self.folder = new_folder(options.model, folder)
        self.changes = {}
        self._lock = FolderLock(self.folder)
        self._write(finished=False)

    @classmethod
    def resume(cls, folder: str | Path, changes: Mapping[str, Any] | None = None) -> Self:
        """Return the unfinished run in `folder`, to go on from where it was.

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
            If the run is finished, is of another backend than the active one, is at work in another
            process, or would not go on as it began with `changes`. Nothing is changed then.
        """
        folder = Path(folder)
        run = cls.__new__(cls)
        run._lock = FolderLock(folder)
        record = read_record(folder)
        before = unfinished_options(folder, record)
        options = changed_options(before, changes or {})
        run._prepare(options)
        run.folder = folder
        run._take_up(record)
        # Now it shows if the folder cannot be written to, not when something is to be kept.
        files.write_json(folder / HISTORY, record | {"options": asdict(options)})
        files.remove_unfinished(folder)
        run.changes = {
            name: (getattr(before, name), value)
            for name, value in vars(options).items()
            if value != getattr(before, name)
        }
        return run

    def _prepare(self, options: RunOptions) -> None:
        if (options.members > 1) is not self.of_members:
            raise ArgumentError(
                f"a {type(self).__name__} is not for members={options.members}; "
                "use start_run or resume_run of xpdl.training.ensemble_run."
            )
        self.options = options
        self.network = make_network(options)
        self.train, self.test = load_data(options.data, self.network, normalize=False)
        answering(self.network, options.shifts)  # now it shows if it cannot, not when it is trained
        self.trainer = make_trainer(options, self.network, self.train, self.test)

    def _take_up(self, record: Mapping[str, Any]) -> None:
        """Take from the record of the interrupted run what its other files do not say.

        Raises
        ------
        ModelFileError
            If it is of another kind of run.
        """
        if "members" in record:
            raise ModelFileError(
                f"{str(self.folder / HISTORY)!r} is damaged: it tells of members, and its options "
                "are those of one network."
            )

    def fit(self) -> Result:
        """Train to the end and fill the folder; say what it came to.

        Ctrl-C, or SIGTERM, ends the step and leaves all in the folder; it goes on as a
        KeyboardInterrupt, `Stopped`.
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
                f"{error} The run is as it was before: xpdl train --resume {self.folder} goes on "
                "with the next batch; add --on-divergence reduce-lr to do so at half the rate."
            ) from error
        result = self._measure()
        told = {"test_accuracy": result.accuracy}
        if result.single_look_accuracy is not None:
            told["single_look_accuracy"] = result.single_look_accuracy
        self._write(finished=True, **told)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
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
        """Write the network if none of the epochs before did so well."""
        accuracies = [before.test_accuracy or 0.0 for before in trainer.history.epochs[:-1]]
        if (epoch.test_accuracy or 0.0) > max(accuracies, default=-1.0):
            notes = {"epochs": epoch.number + 1, "test_accuracy": epoch.test_accuracy}
            trainer.network.save(self.folder / BEST, make_notes(self.options) | notes)

    def _leave(self) -> None:
        """Write the network as it is, averaged if the run averages."""
        epochs = len(self.trainer.history.epochs)
        self.network.save(self.folder / MODEL, make_notes(self.options) | {"epochs": epochs})

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

    def _single_look(self) -> Array:
        """Return the class (N,) that is seen in each test image as it is, on the device."""
        answers = self.trainer.answers
        assert self.trainer.test is not None
        return classes_seen(self.network, self.trainer.test) if answers is None else answers

    def _measure(self) -> Result:
        """Return how it does on the test images, and draw it."""
        options, test, to_numpy = self.options, self.trainer.test, self.network.backend.to_numpy
        assert test is not None
        answers = to_numpy(self._single_look())
        x, t = self.test
        labels = to_numpy(t)
        single_look_accuracy = None
        if options.shifts:
            single_look_accuracy = float((answers == labels).mean())
            answers = to_numpy(classes_seen(answering(self._trained(), options.shifts), test))
        wrong = (answers != labels).nonzero()[0]
        accuracy = 1 - len(wrong) / len(labels)
        result = Result(
            self.folder, accuracy, len(wrong), len(labels), self._seconds(), single_look_accuracy
        )
        missed = to_numpy(x[self.network.backend.asarray(wrong)]).reshape(-1, 28, 28) / 255
        names = None if options.data == "mnist" else CLASS_NAMES[options.data]
        figures = draw_mistakes(missed, labels, answers, names)
        save_figures(self.folder, {CURVES: self._draw_curves(result), **figures})
        return result

    def _draw_curves(self, result: Result) -> Figure:
        history, options = self.trainer.history, self.options
        return plots.learning_curves(
            history.losses,
            [epoch.train_accuracy for epoch in history.epochs],
            [epoch.test_accuracy for epoch in history.epochs],
            f"{options.model} on {options.data}: {result.accuracy:.2%} on the test set"
            + (" over shifts" if options.shifts else ""),
        )


def unfinished_options(folder: Path, record: Mapping[str, Any]) -> RunOptions:
    """Return the options of a run that is to go on, of what its ``history.json`` holds.

    Raises
    ------
    ModelFileError
        If the record is damaged.
    ArgumentError
        If the run is finished, or is of another backend than the active one.
    """
    try:
        options, finished = RunOptions.from_record(record["options"]), record["finished"]
    except (TypeError, KeyError, ValueError) as error:
        raise ModelFileError(f"{str(folder / HISTORY)!r} is damaged: {error!r}.") from error
    if finished:
        # A process that was killed at its very end may have left them.
        (folder / CHECKPOINT).unlink(missing_ok=True)
        files.remove_unfinished(folder)
        raise ArgumentError(f"the run in {str(folder)!r} is finished; there is no more to do.")
    if options.backend != get_backend().name:
        raise ArgumentError(
            f"the run in {str(folder)!r} was on the backend {options.backend!r}, the active "
            f"one is {get_backend().name!r}; give --backend {options.backend}."
        )
    return options


def backend_of_run(folder: str | Path) -> str:
    """Return the name of the backend that the run in `folder` is on.

    Raises
    ------
    FileAccessError, ModelFileError
        If there is no run in it.
    """
    options = read_record(Path(folder)).get("options")
    if not isinstance(options, dict) or not isinstance(options.get("backend"), str):
        raise ModelFileError(f"{str(Path(folder) / HISTORY)!r} does not name a backend.")
    return str(options["backend"])


def changed_options(options: RunOptions, changes: Mapping[str, Any]) -> RunOptions:
    """Return the options of a run that goes on with `changes`; the same value is no change.

    Raises
    ------
    ArgumentError
        If the run would not go on as it began; all such changes are named.
    """
    wanted = dict(changes)
    if "model" in wanted:
        wanted["model"] = _proper(wanted["model"])
    if "model_options" in wanted:
        wanted["model_options"] = {**options.model_options, **wanted["model_options"]}
    made = {name: value for name, value in wanted.items() if getattr(options, name) != value}
    free = changeable(options)
    fixed = [f"{name} ({getattr(options, name)!r})" for name in made if name not in free]
    if fixed:
        raise ArgumentError(
            f"the run goes on with its own {', '.join(fixed)}: leave that out, or begin another "
            f"run. What may change is {', '.join(free)}."
        )
    return replace(options, **made)


def changeable(options: RunOptions) -> tuple[str, ...]:
    """Return the options that may change when a run goes on."""
    free = ("checkpoint_every", "on_divergence", "shifts")
    pace = keeps_its_pace(get_schedule(options.schedule)) and not options.warm_up
    return (*free, "epochs") if pace and options.members == 1 else free


def show_steps(trainer: Trainer) -> str:
    """Say how far a trainer is in an epoch, if it is in one."""
    if trainer.steps_of_epoch is None:
        return ""
    done, steps = trainer.steps_of_epoch
    return f" and {done} of {steps} steps"


def make_notes(options: RunOptions) -> dict[str, Any]:
    """Return what the file of a run's network keeps about it."""
    notes = {"data": options.data, "class_names": list(CLASS_NAMES[options.data])}
    return notes | ({"shifts": options.shifts} if options.shifts else {})


def make_network(options: RunOptions) -> Network:
    """Return the new network of a run, with its loss."""
    return make_model(
        options.model,
        seed=options.seed,
        dtype=options.dtype,
        loss=SoftmaxWithLoss(label_smoothing=options.label_smoothing),
        **options.model_options,
    )


def make_augmentation_for(network: Network, options: RunOptions) -> Augmentation | None:
    """Return what changes the pictures of a run's batches, flat ones too."""
    if not options.augment:
        return None
    augmentation = make_augmentation(options.augment)
    flat = len(network.input_shape) == 1
    return OfRows(augmentation, (1, 28, 28)) if flat else augmentation


def make_optimizer(options: RunOptions) -> Optimizer:
    """Return the new optimizer of a run."""
    given = {"learning_rate": options.learning_rate}
    if options.weight_decay is not None:
        given["weight_decay"] = options.weight_decay
    return get_optimizer(options.optimizer, **given)


def make_trainer(
    options: RunOptions, network: Network, train: Data, test: Data | None = None, **more: Any
) -> Trainer:
    """Return the Trainer of a run.

    Parameters
    ----------
    options : RunOptions
    network : Network
        As `make_network` makes it.
    train, test : (x, t)
        Pixels from 0 to 255, and labels.
    **more
        Of `Trainer`: callbacks, progress ...
    """
    schedule = get_schedule(options.schedule)
    if options.warm_up:
        schedule = with_warm_up(schedule, options.warm_up, options.epochs)
    return Trainer(
        network,
        train,
        test,
        optimizer=make_optimizer(options),
        epochs=options.epochs,
        batch_size=options.batch_size,
        schedule=schedule,
        seed=options.seed,
        divisor=255,  # pixels stay bytes until they are in a batch
        augment=make_augmentation_for(network, options),
        average=options.average or None,
        checkpoint_every=options.checkpoint_every,
        on_divergence=options.on_divergence,
        **more,
    )


def load_data(
    name: str, network: Network, *, normalize: bool = True
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Return training and test data (x, t) of a name, in the shape that `network` takes.

    Pixels are floats from 0 to 1, or, without `normalize`, bytes from 0 to 255.
    """
    if name not in LOADERS:
        raise UnknownNameError("data set", name, LOADERS)
    expect_digits(network)
    return LOADERS[name](normalize=normalize, flatten=len(network.input_shape) == 1)


def expect_digits(network: Network) -> None:
    """See that a network takes pictures of 28 x 28 and gives scores of classes.

    Raises
    ------
    ArgumentError
        If it does not.
    """
    if network.input_shape not in ((784,), (1, 28, 28)):
        raise ArgumentError(
            f"{network.name} takes inputs of shape {network.input_shape}; the pictures are "
            "(1, 28, 28)."
        )
    if not network.loss_layer.classifies:
        raise ArgumentError(f"{network.name} does not tell classes apart: it is a regression.")
