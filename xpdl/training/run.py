"""A training run: from options to a folder that holds the network and what is known of it.

The folder ends with ``model.safetensors``, ``history.json`` (options, losses, accuracies, machine),
``curves.png``, ``misclassified.png`` and ``confusion.png``. While the run lasts,
``checkpoint.safetensors`` holds the last whole epoch.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xpdl import files, plots
from xpdl.arguments import whole_number
from xpdl.backends import Array, get_backend
from xpdl.datasets import CLASS_NAMES, load_fashion_mnist, load_mnist
from xpdl.datasets.augmentation import Augmentation, OfRows, make_augmentation
from xpdl.errors import (
    ArgumentError,
    DivergenceError,
    FileAccessError,
    ModelFileError,
    UnknownNameError,
)
from xpdl.layers import SoftmaxWithLoss
from xpdl.models import MODELS, make_model
from xpdl.network import Network, count_hits
from xpdl.optimizers import get_optimizer
from xpdl.precision import get_precision
from xpdl.schedules import get_schedule, with_warm_up
from xpdl.training.recipes import RECIPES, TrainingOptions
from xpdl.training.trainer import Data, Trainer

MODEL, HISTORY, CHECKPOINT = "model.safetensors", "history.json", "checkpoint.safetensors"
CURVES, MISCLASSIFIED, CONFUSION = "curves.png", "misclassified.png", "confusion.png"

LOADERS = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}


@dataclass(frozen=True, kw_only=True)
class RunOptions(TrainingOptions):
    """All that decides how a run goes; a run's ``history.json`` keeps them."""

    data: str
    seed: int
    backend: str
    dtype: str

    def __post_init__(self) -> None:
        super().__post_init__()
        self._expect_text("data", "backend", "dtype")
        whole_number("seed", self.seed, least=0)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> RunOptions:
        """Return the options that a ``history.json`` keeps; older ones have fewer of them."""
        batch_size = record["batch_size"]
        if isinstance(batch_size, dict):  # JSON has no keys but texts
            batch_size = {int(first): size for first, size in batch_size.items()}
        return cls(**{**record, "batch_size": batch_size})


@dataclass(frozen=True)
class Result:
    """What a run, or an evaluation, came to."""

    folder: Path
    accuracy: float
    wrong: int
    images: int
    seconds: float


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
        proper = {known.lower(): known for known in MODELS}.get(str(model).lower(), model)
        if proper != chosen["model"]:
            chosen["model_options"] = {}
        overrides["model"] = proper
    if overrides.get("model_options") is not None:
        overrides["model_options"] = chosen["model_options"] | overrides["model_options"]
    chosen |= {name: value for name, value in overrides.items() if value is not None}
    return RunOptions(
        data=data, seed=seed, dtype=get_precision(dtype).name, backend=get_backend().name, **chosen
    )


class Run:
    """A run in its folder.

    Parameters
    ----------
    options : RunOptions
    folder : str or path, optional
        A new or empty folder; ``runs/<model>-<time>`` by default.

    Raises
    ------
    XpdlError
        If an option, the data or the folder does not serve; nothing is trained then.
    """

    def __init__(self, options: RunOptions, folder: str | Path | None = None) -> None:
        self._prepare(options)
        self.folder = _new_folder(options.model, folder)
        self._write_history(finished=False)

    @classmethod
    def resume(cls, folder: str | Path) -> Run:
        """Return the unfinished run in `folder`, to go on from its last whole epoch.

        Raises
        ------
        ModelFileError
            If `folder` holds no run.
        ArgumentError
            If the run is finished, or is of another backend than the active one.
        """
        folder = Path(folder)
        record = _read_history(folder)
        try:
            options, finished = RunOptions.from_record(record["options"]), record["finished"]
        except (TypeError, KeyError, ValueError) as error:
            raise ModelFileError(f"{str(folder / HISTORY)!r} is damaged: {error!r}.") from error
        if finished:
            raise ArgumentError(f"the run in {str(folder)!r} is finished; there is no more to do.")
        if options.backend != get_backend().name:
            raise ArgumentError(
                f"the run in {str(folder)!r} was on the backend {options.backend!r}, the active "
                f"one is {get_backend().name!r}; give --backend {options.backend}."
            )
        run = cls.__new__(cls)
        run._prepare(options)
        run.folder = folder
        return run

    def _prepare(self, options: RunOptions) -> None:
        self.options = options
        self.network = make_network(options)
        train, self.test = load_data(options.data, self.network, normalize=False)
        self.trainer = make_trainer(options, self.network, train, self.test)

    def fit(self) -> Result:
        """Train to the end and fill the folder; say what it came to.

        Ctrl-C leaves the network as it is, averaged if the run averages, in ``model.safetensors``
        and goes on as KeyboardInterrupt.
        """
        self.trainer.checkpoint = self.folder / CHECKPOINT
        try:
            self.trainer.fit()
        except KeyboardInterrupt:
            self._save_model()
            self._write_history(finished=False)
            raise
        except DivergenceError as error:
            self._write_history(finished=False, error=str(error))
            raise
        self._save_model()
        result = self._draw()
        self._write_history(finished=True, test_accuracy=result.accuracy)
        (self.folder / CHECKPOINT).unlink(missing_ok=True)
        return result

    def _save_model(self) -> None:
        about = {
            "data": self.options.data,
            "class_names": list(CLASS_NAMES[self.options.data]),
            "epochs": len(self.trainer.history.epochs),
        }
        self.network.save(self.folder / MODEL, about)

    def _seconds(self) -> float:
        """Return how long the training took, in all its sittings."""
        return sum(epoch.seconds for epoch in self.trainer.history.epochs)

    def _write_history(self, **more: Any) -> None:
        backend = self.network.backend
        record = {
            "options": asdict(self.options),
            "machine": {
                "python": platform.python_version(),
                "system": platform.platform(),
                **backend.describe(),
            },
            "seconds": self._seconds(),
            **more,
            **self.trainer.history.as_dict(),
        }
        files.write_json(self.folder / HISTORY, record)

    def _answers(self) -> Array:
        """Return the class that the network sees in each test image, on the host."""
        network, test = self.network, self.trainer.test
        assert test is not None
        parts = [network.predict(x).argmax(axis=1) for x, _ in test.in_order()]
        return network.backend.to_numpy(network.backend.xp.concatenate(parts))

    def _draw(self) -> Result:
        history, options = self.trainer.history, self.options
        x, t = self.test
        answers = self._answers()
        labels = self.network.backend.to_numpy(t)
        wrong = (answers != labels).nonzero()[0]
        accuracy = 1 - len(wrong) / len(labels)
        curves = plots.learning_curves(
            history.losses,
            [epoch.train_accuracy for epoch in history.epochs],
            [epoch.test_accuracy for epoch in history.epochs],
            f"{options.model} on {options.data}: {accuracy:.2%} on the test set",
        )
        names = None if options.data == "mnist" else CLASS_NAMES[options.data]
        pictures = plots.misclassified(
            self.network.backend.to_numpy(x[self.network.backend.asarray(wrong)]).reshape(
                -1, 28, 28
            )
            / 255,
            labels[wrong].tolist(),
            answers[wrong].tolist(),
            names,
            f"{len(wrong)} of {len(labels):,} misclassified: ",
        )
        confusion = plots.confusion_matrix(
            labels, answers, names, f"{len(wrong)} of {len(labels):,} misclassified"
        )
        drawn = {CURVES: curves, MISCLASSIFIED: pictures, CONFUSION: confusion}
        for name, figure in drawn.items():
            with files.replacing(self.folder / name) as stream:
                figure.savefig(stream, format="png", dpi=110)
        return Result(self.folder, accuracy, len(wrong), len(labels), self._seconds())


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
    optimizer_options = {"learning_rate": options.learning_rate}
    if options.weight_decay is not None:
        optimizer_options["weight_decay"] = options.weight_decay
    optimizer = get_optimizer(options.optimizer, **optimizer_options)
    schedule = get_schedule(options.schedule)
    if options.warm_up:
        schedule = with_warm_up(schedule, options.warm_up, options.epochs)
    return Trainer(
        network,
        train,
        test,
        optimizer=optimizer,
        epochs=options.epochs,
        batch_size=options.batch_size,
        schedule=schedule,
        seed=options.seed,
        divisor=255,  # pixels stay bytes until they are in a batch
        augment=make_augmentation_for(network, options),
        average=options.average or None,
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


def evaluate(network: Network, data: str, folder: Path) -> tuple[Result, float]:
    """Return how the network does on the test set of `data`, and its mean loss."""
    _, (x, t) = load_data(data, network)
    start = time.perf_counter()
    scores = network.predict(x)
    wrong = len(t) - int(network.backend.item(count_hits(scores, t)))
    seconds = time.perf_counter() - start
    loss = network.backend.item(network.loss_layer.forward(scores, t))
    return Result(folder, 1 - wrong / len(t), wrong, len(t), seconds), loss


def _new_folder(model: str, folder: str | Path | None) -> Path:
    if folder is None:
        stem = Path("runs") / f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
        folder, number = stem, 2
        while folder.exists():
            folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    if not str(folder):
        raise ArgumentError("--out is empty; name a folder, or leave it out.")
    path = files.make_folder(folder)
    try:
        occupied = any(path.iterdir())
    except OSError as error:
        raise FileAccessError(f"cannot look into the folder {str(path)!r}: {error}.") from error
    if occupied:
        raise ArgumentError(
            f"the folder {str(path)!r} is not empty; choose another, "
            f"or go on with the run in it: xpdl train --resume {path}"
        )
    return path


def _read_history(folder: Path) -> dict[str, Any]:
    record = files.read_json(folder / HISTORY)
    if not isinstance(record, dict):
        raise ModelFileError(f"{str(folder / HISTORY)!r} is not the record of a run.")
    return record
