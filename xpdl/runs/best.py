"""What a run keeps about its networks, and the best of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xpdl.datasets import PictureData
from xpdl.runs.data import notes_of
from xpdl.runs.options import RunOptions
from xpdl.training.history import Epoch
from xpdl.training.trainer import Trainer


def notes_about(options: RunOptions, pictures: PictureData) -> dict[str, Any]:
    """Return what the file of a network of a run keeps about it."""
    o = options
    asked = {"picture_size": o.picture_size, "channels": o.channels}
    asked["skip_broken"] = o.skip_broken or None
    notes = notes_of(pictures, o.data, o.test, **asked)
    return notes | o.looks.notes()


def keep_best(path: Path, notes: Mapping[str, Any], trainer: Trainer, epoch: Epoch) -> None:
    """Write the network if validation found none of the epochs before so good."""
    before = trainer.history.epochs[:-1]
    if epoch.validation and all(trainer.patience.better(epoch, one) for one in before):
        found = {"epochs": epoch.number + 1, "validation": epoch.validation}
        trainer.network.save(path, {**notes, **found})
