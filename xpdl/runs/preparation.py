"""What a run trains with, made from its options: the network, the data, the Trainer."""

from __future__ import annotations

from typing import Any

from xpdl.backends import Array
from xpdl.datasets import load_fashion_mnist, load_mnist
from xpdl.datasets.augmentation import Augmentation, OfRows, make_augmentation
from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.layers import Normalize
from xpdl.losses import SoftmaxWithLoss
from xpdl.models import make_model
from xpdl.network import Network
from xpdl.optimizers import Optimizer, get_optimizer
from xpdl.runs.options import RunOptions
from xpdl.schedules import get_schedule, with_warm_up
from xpdl.training import Trainer
from xpdl.training.trainer import Data

LOADERS = {"mnist": load_mnist, "fashion-mnist": load_fashion_mnist}


def make_network(options: RunOptions) -> Network:
    """Return the new network of a run, with its loss."""
    return make_model(
        options.model,
        seed=options.seed,
        dtype=options.dtype,
        loss=SoftmaxWithLoss(label_smoothing=options.label_smoothing),
        normalize=Normalize(255),  # pixels stay bytes until they are in a batch
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
