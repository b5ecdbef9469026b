"""What a run trains with, made from its options: the network, the data, the Trainer."""

from __future__ import annotations

import inspect
import math
from typing import Any

from xpdl.backends import Array
from xpdl.datasets import PictureData
from xpdl.datasets.augmentation import Augmentation, OfRows, make_augmentation
from xpdl.errors import ArgumentError, ShapeError, UnknownNameError
from xpdl.layers import Normalize
from xpdl.losses import SoftmaxWithLoss
from xpdl.models import MODELS, WhitenedConvNet, head_of, make_model, new_head, pretrained
from xpdl.network import Network
from xpdl.optimizer_checks import factors_by_parameter
from xpdl.optimizers import Optimizer, get_optimizer
from xpdl.runs.data import LOADERS, as_taken, expect_fitting, normalizing
from xpdl.runs.options import RunOptions
from xpdl.schedules import get_schedule, with_warm_up
from xpdl.training import Trainer
from xpdl.training.history import Epoch
from xpdl.training.trainer import Data

BEFORE_THE_HEAD = 0.1
"""What share of the learning rate the layers before a new head learn at."""


def make_network(options: RunOptions, pictures: PictureData | None = None) -> Network:
    """Return the new network of a run, with its loss; made for MNIST's form without `pictures`.

    Raises
    ------
    UnknownNameError, ArgumentError
        If there is no such model, or it does not fit the pictures' size, channels and classes.
    """
    loss = SoftmaxWithLoss(
        label_smoothing=options.label_smoothing, class_weights=options.class_weights
    )
    given: dict[str, Any] = {"seed": options.seed, "dtype": options.dtype, "loss": loss}
    if options.pretrained is not None:
        return _with_new_head(options, loss, pictures)
    if pictures is None:
        # Pixels stay bytes until they are in a batch.
        normalize = Normalize(255)
        return make_model(options.model, normalize=normalize, **given, **options.model_options)
    shape, classes = pictures.shape, len(pictures.class_names)
    flat = _takes_rows(options.model)
    given |= {"input_size": math.prod(shape)} if flat else {"input_shape": shape}
    given |= {"output_size": classes, **options.model_options}
    given["normalize"] = normalizing(options.data, pictures, flat)
    if options.data not in LOADERS:
        given["class_names"] = pictures.class_names
    told = f"{classes} classes of pictures of {' x '.join(map(str, shape))}"
    try:
        network = make_model(options.model, **given)
    except ShapeError as error:
        raise ArgumentError(f"{options.model} does not fit {told}: {error}") from error
    expect_fitting(network, shape)
    if network.output_shape != (classes,):
        raise ArgumentError(
            f"{options.model} ends in {network.output_shape}, which does not fit {told}."
        )
    if isinstance(network, WhitenedConvNet):
        network.whiten(pictures.train[0])
    return network


def _with_new_head(
    options: RunOptions, loss: SoftmaxWithLoss, pictures: PictureData | None
) -> Network:
    """Return a network that others trained, to tell the pictures' classes apart."""
    name = str(options.pretrained)
    if pictures is None or pictures.shape[0] != 3:
        raise ArgumentError(
            f"pretrained {name!r} sees pictures in colour; name some with --data, and give "
            "--channels 3 if they are grey."
        )
    network = pretrained(name, dtype=options.dtype)
    try:
        return new_head(
            *(network, pictures.class_names), input_shape=pictures.shape, loss=loss,
            seed=options.seed,
        )  # fmt: skip
    except ShapeError as error:
        height, width = pictures.shape[1:]
        raise ArgumentError(
            f"{name} does not take pictures of {height} x {width}: {error} Try --picture-size 224."
        ) from error


def epochs_of_the_head(options: RunOptions) -> int:
    """Return for how many epochs the new head of a pretrained network learns alone."""
    return max(1, options.epochs // 4)


def _takes_rows(model: str) -> bool:
    """Say whether a model takes a picture as a row of numbers."""
    return model in MODELS and "input_size" in inspect.signature(MODELS[model]).parameters


def make_augmentation_for(
    network: Network, options: RunOptions, shape: tuple[int, int, int] = (1, 28, 28)
) -> Augmentation | None:
    """Return what changes the pictures, of `shape`, of a run's batches, flat ones too."""
    if not options.augment:
        return None
    augmentation = make_augmentation(options.augment)
    return OfRows(augmentation, shape) if len(network.input_shape) == 1 else augmentation


def make_optimizer(options: RunOptions, network: Network | None = None) -> Optimizer:
    """Return the new optimizer of a run; of a pretrained `network` the head has the whole rate."""
    given: dict[str, Any] = {"learning_rate": options.learning_rate, **options.optimizer_options}
    if options.pretrained is not None and network is not None:
        given["rate_factors"] = {"": BEFORE_THE_HEAD, head_of(network): 1.0}
    for name in ("weight_decay", "clip_norm"):
        if getattr(options, name) is not None:
            given[name] = getattr(options, name)
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
    more.setdefault("augment", make_augmentation_for(network, options))
    schedule = get_schedule(options.schedule)
    if options.warm_up:
        schedule = with_warm_up(schedule, options.warm_up, options.epochs)
    optimizer = make_optimizer(options, network)
    factors_by_parameter(optimizer.rate_factors, network.params)  # says now if one fits none
    trainer = Trainer(
        network,
        train,
        test,
        optimizer=optimizer,
        epochs=options.epochs,
        batch_size=options.batch_size,
        schedule=schedule,
        seed=options.seed,
        average=options.average or None,
        patience=options.patience,
        checkpoint_every=options.checkpoint_every,
        on_divergence=options.on_divergence,
        reduce_dtype=options.reduce_dtype,
        **more,
    )
    if options.pretrained is not None:
        alone = epochs_of_the_head(options)

        def unfreeze(trainer: Trainer, epoch: Epoch) -> None:
            if epoch.number + 1 >= alone and trainer.network.frozen:
                trainer.network.unfreeze()

        trainer.callbacks.append(unfreeze)
    return trainer


def make_run_trainer(
    options: RunOptions, network: Network, pictures: PictureData, **more: Any
) -> Trainer:
    """Return the Trainer of a run on its pictures.

    Where there are validation pictures, those for testing are not shown to it. What more there is,
    such as ranks or progress, is the Trainer's.

    Raises
    ------
    ArgumentError
        If the network does not take such pictures, or `patience` has none to choose by.
    """
    validation = pictures.validation
    if options.patience is not None and validation is None:
        raise ArgumentError(
            "patience wants validation pictures to choose by; set some aside: --validation 0.1."
        )
    trainer = make_trainer(
        options,
        network,
        as_taken(network, pictures.train),
        as_taken(network, pictures.test) if validation is None and pictures.test else None,
        validation=None if validation is None else as_taken(network, validation),
        augment=make_augmentation_for(network, options, pictures.shape),
        **more,
    )
    if pictures.digest:  # and the shares, by which the rest is told
        shares = f"{options.test:g} {options.validation:g}"
        trainer.source = f"{pictures.digest} {shares} {len(pictures.train[1])}"
    return trainer


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
