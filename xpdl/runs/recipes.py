"""Ways to train, by name: which network, which rule, how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xpdl.arguments import flag, number, one_of, whole_number
from xpdl.datasets.augmentation import make_augmentation
from xpdl.datasets.batches import check_reached
from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.models import PRETRAINED

# By the run itself, and by options of their own.
_TAKEN = {
    "model_options": {"name", "seed", "dtype", "loss", "normalize", "class_names"},
    "optimizer_options": {"learning_rate", "weight_decay", "clip_norm"},
}


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train which network, as JSON can hold it.

    Parameters
    ----------
    model : str
        One of `xpdl.models.MODELS`.
    model_options : mapping of str to value
        What it is made with, such as ``{"drop_scores": False}``.
    pretrained : str, optional
        One of `xpdl.models.PRETRAINED`, in place of a model: with a new head, which learns alone
        for the first quarter of the epochs; then everything does, what is before the head at a
        tenth of the learning rate, and batch normalisation by the batch.
    epochs : int
    batch_size : int or mapping of int to int
        How many images a step, or from which epoch on how many; see `Batches`.
    optimizer : str
        One of `xpdl.optimizers`, by name.
    optimizer_options : mapping of str to value
        What it is made with beside its rate, decay and clipping, such as ``{"momentum": 0.95}``.
    learning_rate : float
        Its own, or the peak where there is a schedule.
    schedule : str
        One of `xpdl.schedules`, by name.
    warm_up : float
        The share of the training in which the learning rate rises, below 1; see `with_warm_up`. 0
        leaves that to the schedule.
    weight_decay : float, optional
        Of the optimizer; its usual one by default.
    clip_norm : float, optional
        Of the optimizer, above 0: gradients together are made no longer than that.
    label_smoothing : float
        Of `SoftmaxWithLoss`, below 1.
    class_weights : str, optional
        Of `SoftmaxWithLoss`: "balanced" lets classes of few pictures count as much as others.
    augment : mapping of str to value
        What changes the pictures of a batch, see `make_augmentation`: ``{"shift": 2}``.
    average : float
        The decay of a `MovingAverage` of the parameters, below 1; 0 is for none.
    shifts : int
        How far pictures are moved when the finished network answers, by its `ShiftAverage`; 0 is
        for one look at each as it is. Only for a model that takes pictures (C, H, W).
    mirrored : bool
        Whether it looks at their mirror images, too.
    members : int
        How many networks are trained one after another, each from its own seed, to answer together
        as an `Ensemble`.
    patience : int, optional
        Of `Trainer`: after how many epochs in which validation found nothing better to stop.

    Raises
    ------
    ArgumentError
        If one is of another type than it should be, or out of its range. Names of models,
        optimizers and schedules are checked where those are made.
    """

    model: str
    epochs: int
    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int | Mapping[int, int]
    model_options: Mapping[str, Any] = field(default_factory=dict)
    optimizer_options: Mapping[str, Any] = field(default_factory=dict)
    warm_up: float = 0.0
    weight_decay: float | None = None
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    augment: Mapping[str, Any] = field(default_factory=dict)
    average: float = 0.0
    shifts: int = 0
    mirrored: bool = False
    members: int = 1
    class_weights: str | None = None
    patience: int | None = None
    pretrained: str | None = None

    def __post_init__(self) -> None:
        self._expect_text("model", "optimizer", "schedule")
        whole_number("epochs", self.epochs)
        check_reached(self.batch_size, self.epochs)
        number("learning_rate", self.learning_rate, above=0)
        for name in ("warm_up", "label_smoothing", "average"):
            number(name, getattr(self, name), below=1)
        if self.weight_decay is not None:
            number("weight_decay", self.weight_decay)
        if self.clip_norm is not None:
            number("clip_norm", self.clip_norm, above=0)
        whole_number("shifts", self.shifts, least=0)
        flag("mirrored", self.mirrored)
        whole_number("members", self.members)
        if self.pretrained is not None and self.pretrained not in PRETRAINED:
            raise UnknownNameError("pretrained network", self.pretrained, PRETRAINED)
        if self.class_weights is not None:
            one_of("class_weights", self.class_weights, ("balanced",))
        if self.patience is not None:
            whole_number("patience", self.patience)
        for name in ("model_options", "optimizer_options", "augment"):
            if not isinstance(getattr(self, name), Mapping):
                raise ArgumentError(f"{name} must be a dict, got {getattr(self, name)!r}.")
        for name, elsewhere in _TAKEN.items():
            taken = sorted(getattr(self, name).keys() & elsewhere)
            if taken:
                raise ArgumentError(f"{name}: {', '.join(taken)} is not for here.")
        make_augmentation(self.augment)

    def _expect_text(self, *names: str) -> None:
        for name in names:
            if not isinstance(getattr(self, name), str):
                raise ArgumentError(f"{name} must be a str, got {getattr(self, name)!r}.")


@dataclass(frozen=True, kw_only=True)
class Recipe(TrainingOptions):
    """A way to train that has a name; each part can be overridden on the command line."""

    about: str


# What the two for the highest accuracy have in common.
_CHANGED_PICTURES: dict[str, Any] = {
    "model": "NormalizedConvNet",
    "model_options": {"widths": [32, 64, 128]},
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": 0.004,
    "schedule": "one-cycle",
    "label_smoothing": 0.1,
    "augment": {"rotate": 10, "zoom": 0.1, "shear": 10, "shift": 2},
    "average": 0.998,
}

# For pictures of one's own. The network is that of `_CHANGED_PICTURES`.
_OWN_PICTURES: dict[str, Any] = {
    **_CHANGED_PICTURES,
    "epochs": 7,
}

RECIPES: dict[str, Recipe] = {
    "fast": Recipe(
        about="two epochs: batches of 50, one-cycle rate, label smoothing, averaged parameters",
        model="DeepConvNet",
        model_options={"drop_scores": False, "dropout_ratio": 0.25},
        epochs=2,
        batch_size=50,
        optimizer="adam",
        learning_rate=0.004,
        schedule="one-cycle",
        label_smoothing=0.1,
        average=0.99,
    ),
    "best": Recipe(
        about="24 epochs of changed pictures in a wide, normalised network, which looks nine times",
        epochs=24,
        shifts=1,
        **_CHANGED_PICTURES,
    ),
    "ensemble": Recipe(
        about="three such networks of 18 epochs each, which answer together",
        epochs=18,
        members=3,
        **_CHANGED_PICTURES,
    ),
    "book": Recipe(
        about="the book's own: Adam 0.001, 20 epochs, dropout on the scores too",
        model="DeepConvNet",
        epochs=20,
        batch_size=100,
        optimizer="adam",
        learning_rate=0.001,
        schedule="constant",
    ),
    "photos": Recipe(
        about="for pictures in colour: a normalised network, pictures mirrored and moved",
        **_OWN_PICTURES | {"augment": {"flip": 0.5, "crop": {"pad": 4}}},
    ),
    "resnet-20": Recipe(
        about="CIFAR-10 much as He et al. have it, in 40 epochs: ResNet-20, Nesterov's momentum",
        model="CifarResNet",
        model_options={"depth": 20},
        epochs=40,
        batch_size=128,
        optimizer="nesterov",
        learning_rate=0.2,
        schedule="one-cycle",
        weight_decay=0.0005,
        augment={"flip": 0.5, "crop": {"pad": 4}},
    ),
    "cifar": Recipe(
        about="CIFAR-10 in 18 epochs: a wide network behind measured filters, Muon, 18 looks",
        model="WhitenedConvNet",
        epochs=18,
        batch_size=500,
        optimizer="muon",
        optimizer_options={"momentum": 0.6},
        learning_rate=0.2,
        schedule="one-cycle",
        weight_decay=0.05,
        label_smoothing=0.2,
        augment={"flip": 0.5, "crop": {"pad": 2}},
        shifts=1,
        mirrored=True,
    ),
    "drawings": Recipe(
        about="for grey ones, such as letters: pictures moved, not mirrored",
        **_OWN_PICTURES | {"augment": {"crop": {"pad": 4}}},
    ),
}
