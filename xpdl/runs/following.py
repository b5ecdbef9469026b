"""The ranks beside the first: they train along, and leave files and talk to it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from xpdl.backends import use_backend
from xpdl.datasets import PictureData
from xpdl.distributed.ranks import Ranks
from xpdl.errors import RanksError
from xpdl.runs.best import keep_best, notes_about
from xpdl.runs.data import load_pictures
from xpdl.runs.folder import going_on
from xpdl.runs.options import RunOptions
from xpdl.runs.preparation import make_network, make_run_trainer
from xpdl.runs.signals import stopping_in_order
from xpdl.training.trainer import Trainer
from xpdl.tuning.ensemble import member_seed
from xpdl.tuning.members import SharedMembers


def follow(options: RunOptions, ranks: Ranks) -> None:
    """Train with rank 0, which has a `Run` of the same options.

    Raises
    ------
    Stopped
        If one of the ranks was stopped by a signal; rank 0 has kept all.
    XpdlError
        Whatever ends the run of rank 0.
    """
    with use_backend(options.backend):
        pictures = load_pictures(**options.of_pictures())
        if options.members > 1:
            _follow_members(options, ranks, pictures)
            return
        network = make_network(options, pictures)
        _follow_one(make_run_trainer(options, network, pictures, ranks=ranks, progress=False))


def _follow_one(trainer: Trainer) -> None:
    try:
        with stopping_in_order(trainer.interrupt):
            trainer.fit()
    except RanksError as error:
        if trainer.checkpoint is None:  # rank 0 has not told its folder
            raise
        raise going_on(error, trainer.checkpoint.parent) from error


def _follow_members(options: RunOptions, ranks: Ranks, pictures: PictureData) -> None:
    """Train a member at a time, by itself, in the folder of rank 0."""
    folder: Path = ranks.broadcast()
    shared, notes = SharedMembers(ranks), notes_about(options, pictures)
    current: list[Trainer] = []

    def make(number: int) -> Trainer:
        own = replace(options, seed=member_seed(options.seed, number), members=1)
        trainer = make_run_trainer(own, make_network(own, pictures), pictures, progress=False)
        trainer.callbacks.append(partial(keep_best, folder / f"best-{number}.safetensors", notes))
        current[:] = [trainer]
        return trainer

    def interrupt() -> None:
        for trainer in current:
            trainer.interrupt()

    try:
        with stopping_in_order(interrupt):
            shared.follow(make, folder)
    except RanksError as error:
        raise going_on(error, folder) from error
