"""A training to and from a file: all that it takes to go on as if it had never been interrupted."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from xpdl import files
from xpdl.arguments import number, whole_number
from xpdl.backends import Array, check_generator_state
from xpdl.errors import ArgumentError, DTypeError, ModelFileError, ShapeError
from xpdl.network import Network
from xpdl.schedules import keeps_its_pace
from xpdl.storage import as_finite
from xpdl.training.history import History
from xpdl.training.settings import differences, training_settings
from xpdl.training.tally import Tally

FILE_FORMAT = "xpdl-checkpoint-3"
MOST_UPDATES = 2**62
ROOMS = ("network", "average", "best", "optimizer", "epoch", "history")


def save_checkpoint(path: str | os.PathLike[str], trainer: Any, tally: Tally | None) -> None:
    """Write all that is needed to go on to one safetensors file, whole or not at all.

    Parameters
    ----------
    path : str or path
    trainer : Trainer
        Between two steps, with the network as it is trained.
    tally : Tally, optional
        What an epoch came to that is not at its end.

    Raises
    ------
    FileAccessError
        If the place is missing, read-only or full; what was there is left as it was.
    """
    network, optimizer, average = trainer.network, trainer.optimizer, trainer.average
    to_numpy = network.backend.to_numpy
    state = optimizer.state_dict()
    tensors = {f"network/{name}": to_numpy(a) for name, a in network.arrays().items()}
    for slot, arrays in state.pop("state").items():
        tensors |= {f"optimizer/{slot}/{name}": array for name, array in arrays.items()}
    about: dict[str, Any] = {
        "format": FILE_FORMAT,
        "settings": training_settings(trainer),
        "sha256": trainer.data_digest(),
        "optimizer": state,
        "rate_factor": trainer.rate_factor,
        "frozen": list(network.frozen),
        "history": trainer.history.as_dict() | {"losses": None},
    }
    # Of a long training they are too many for a text.
    tensors["history/losses"] = np.array(trainer.history.losses, dtype=np.float64)
    if trainer.step.loss_scale is not None:
        about["loss_scale"] = trainer.step.loss_scale.state()
    if average is not None:
        tensors |= {f"average/{name}": to_numpy(a) for name, a in average.arrays().items()}
        about["averaged_updates"] = average.updates()
    if trainer.patience.best is not None:
        tensors |= {f"best/{name}": a for name, a in trainer.patience.arrays().items()}
        about["best"] = trainer.patience.best
    if tally is not None:
        tensors |= {f"epoch/{name}": a for name, a in tally.arrays().items()}
        about["epoch"] = tally.counts() | {
            "masks": network.random_state(),
            "augmentation": trainer.feeding.state(),
        }
    files.write_tensors(path, tensors, about)


def load_checkpoint(path: str | os.PathLike[str], trainer: Any) -> Tally | None:
    """Bring a new trainer to where `path` left another; return its epoch that is not at its end.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it is foreign or damaged.
    ArgumentError
        If it is of another training; the message names what differs. Or if it is further than that
        trainer's `epochs`.

    In each of these cases network, optimizer and all else are as they were.
    """
    found = trainer.first(lambda: files.read_tensors(path))
    return _resting(path, trainer, *found).apply(trainer)


def check_checkpoint(path: str | os.PathLike[str], trainer: Any) -> None:
    """See that `load_checkpoint` will bring a new trainer to where `path` left another.

    Raises
    ------
    FileAccessError, ModelFileError, ArgumentError
        As `load_checkpoint`.
    """
    _resting(path, trainer, *files.read_tensors(path))


def _resting(
    path: str | os.PathLike[str], trainer: Any, tensors: Mapping[str, Array], about: dict[str, Any]
) -> _Resting:
    """Return what a checkpoint holds; see `load_checkpoint`."""
    found = about.get("format")
    if found != FILE_FORMAT:
        old = isinstance(found, str) and found.startswith("xpdl-checkpoint-")
        raise ModelFileError(
            f"{str(path)!r} is a checkpoint of another version of xpdl, which this one cannot go "
            "on from."
            if old
            else f"{str(path)!r} is not a checkpoint of xpdl."
        )
    damaged = (ArgumentError, KeyError, TypeError, ValueError, AttributeError, OverflowError)
    try:
        differ = _differences(trainer, about)
        if not differ:
            resting = _Resting(trainer, tensors, about)
    except damaged as error:
        reason = str(error) if isinstance(error, ArgumentError) else f"{error!r}."
        raise ModelFileError(f"{str(path)!r} is damaged: {reason}") from error
    if differ:
        raise ArgumentError(
            f"{str(path)!r} is of another training: {', '.join(differ)}. "
            "Go on with the same, or start anew elsewhere."
        )
    begun = len(resting.history.epochs) + (resting.tally is not None)
    if begun > trainer.epochs:
        raise ArgumentError(
            f"epochs must be at least {begun}, got {trainer.epochs}: as many are begun in "
            f"{str(path)!r}."
        )
    return resting


def _differences(trainer: Any, about: Mapping[str, Any]) -> list[str]:
    """Return what decides how a training goes and is not now what it was."""
    then, now = dict(about["settings"]), training_settings(trainer)
    free = {"epochs"} if keeps_its_pace(trainer.schedule) else set()
    if then["backend"] != now["backend"]:  # on another device it goes on, if not bit for bit
        free |= {"backend", "environment"}
    for name in free:
        then.pop(name, None)
        now.pop(name, None)
    then["data"], now["data"] = about["sha256"], trainer.data_digest()
    return differences(then, now)


class _Resting:
    """What a checkpoint holds, seen to fit a trainer."""

    def __init__(
        self, trainer: Any, tensors: Mapping[str, Array], about: Mapping[str, Any]
    ) -> None:
        network, average, scale = trainer.network, trainer.average, trainer.step.loss_scale
        rooms = _rooms(tensors)
        network.check_arrays(rooms["network"])
        self.network = as_finite(rooms["network"], network.arrays())
        self.averaged, self.updates = rooms["average"], 0
        if average is not None:
            network.check_arrays(self.averaged)
            self.averaged = as_finite(self.averaged, network.arrays())
            self.updates = whole_number(
                "averaged_updates", about["averaged_updates"], least=0, most=MOST_UPDATES
            )
        self.optimizer = {**about["optimizer"], "state": _slots(network, rooms["optimizer"])}
        trainer.optimizer.check_state_dict(self.optimizer)
        losses = rooms["history"]["losses"]
        if losses.ndim != 1 or losses.dtype != np.float64:
            raise ShapeError(f"history/losses must be float64 (N,), got {losses.shape}.")
        self.history = History.from_dict(about["history"] | {"losses": losses.tolist()})
        _expect_whole_epochs(trainer, self.history)
        self.rate_factor = number("rate_factor", about["rate_factor"], above=0)
        self.frozen = _layers(network, about["frozen"])
        self.loss_scale: dict[str, float] = {}
        if scale is not None:
            told = about["loss_scale"]
            self.loss_scale = {name: number(name, told[name]) for name in scale.state()}
            if self.loss_scale["bad_steps"] >= scale.most_bad_steps:
                self.loss_scale["bad_steps"] = 0.0  # it has stopped for that, and is to go on
        self.best, self.best_arrays = about.get("best"), rooms["best"]
        if self.best is not None:
            whole_number("best", self.best, least=0, most=max(0, len(self.history.epochs) - 1))
            network.check_arrays(self.best_arrays)
            self.best_arrays = as_finite(self.best_arrays, network.arrays())
        self.tally: Tally | None = None
        if "epoch" in about:
            epoch, index = about["epoch"], len(self.history.epochs)
            self.tally = Tally(network, len(trainer.feeding.tally.losses))
            self.tally.begin(trainer.batches.in_epoch(index))
            self.tally.restore(rooms["epoch"], epoch)
            network.check_random_state(epoch["masks"])
            self.masks = epoch["masks"]
            self.augmentation = epoch["augmentation"]
            if trainer.feeding.augment is not None or self.augmentation is not None:
                check_generator_state(self.augmentation)

    def apply(self, trainer: Any) -> Tally | None:
        """Bring the trainer there; return its epoch that is not at its end."""
        network, average, rate = trainer.network, trainer.average, trainer.learning_rate
        trainer.optimizer.load_state_dict(self.optimizer)
        trainer.optimizer.learning_rate = rate  # the saved one is that of a step
        if average is not None:
            average.restore(self.averaged, self.updates)
        network.load_arrays(self.network)
        if self.frozen != list(network.frozen):
            network.unfreeze()
            if self.frozen:
                network.freeze(*self.frozen)
        if trainer.step.loss_scale is not None:
            trainer.step.loss_scale.restore(self.loss_scale)
        trainer.history, trainer.watch.rate_factor = self.history, self.rate_factor
        trainer.patience.restore(self.best, self.best_arrays)
        if self.tally is not None:
            network.reseed([trainer.seed, len(self.history.epochs)])
            network.set_random_state(self.masks)
            trainer.feeding.set_state(len(self.history.epochs), self.augmentation)
            trainer.feeding.tally = self.tally
        return self.tally


def _rooms(tensors: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Return the arrays of each part, by the names that they have there."""
    rooms: dict[str, dict[str, Array]] = {room: {} for room in ROOMS}
    for key, array in tensors.items():
        room, _, name = key.partition("/")
        if room not in rooms:
            raise ArgumentError(f"it holds {key!r}, which no part of a training is called.")
        if array.dtype.kind != "f":
            raise DTypeError(f"{key} must hold floats, got {array.dtype}.")
        rooms[room][name] = array
    return rooms


def _expect_whole_epochs(trainer: Any, history: History) -> None:
    """See that a history tells of each epoch from the first on, with all of its steps."""
    numbers = [epoch.number for epoch in history.epochs]
    steps = sum(trainer.batches.in_epoch(number) for number in range(len(numbers)))
    if numbers != list(range(len(numbers))) or len(history.losses) != steps:
        raise ArgumentError(
            f"its history tells of {len(numbers)} epochs and {len(history.losses)} steps, where "
            f"so many epochs have {steps} steps."
        )


def _slots(network: Network, arrays: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Return what the optimizer remembers, by slot, seen to be of the network's parameters."""
    slots: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        slot, _, name = key.partition("/")
        slots.setdefault(slot, {})[name] = array
    wanted = {name: a.shape for name, a in network.params.items()}
    for slot, memory in slots.items():
        if {name: a.shape for name, a in memory.items()} != wanted:
            raise ArgumentError(f"the optimizer's {slot} is not of {network.name}'s parameters.")
    return {slot: as_finite(memory, network.params) for slot, memory in slots.items()}


def _layers(network: Network, names: Any) -> list[str]:
    known = set(network.leaves())
    if not isinstance(names, list) or not known.issuperset(names):
        raise ArgumentError(f"the frozen layers {names!r} are not {network.name}'s.")
    return names
