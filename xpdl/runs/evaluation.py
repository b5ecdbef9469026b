"""What a run left: read it again, and measure it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from xpdl import functions
from xpdl.errors import ArgumentError
from xpdl.network import Network
from xpdl.runs.folder import HISTORY, MODEL, read_record, resuming
from xpdl.runs.preparation import load_data
from xpdl.runs.run import Result
from xpdl.storage import load_with_notes
from xpdl.tuning.answers import count_hits
from xpdl.tuning.ensemble import INDEX, Ensemble, load_ensemble_with_notes
from xpdl.tuning.shifts import answering


def load_trained(
    path: str | Path, *, dtype: Any = None
) -> tuple[Network | Ensemble, dict[str, Any]]:
    """Read what a run left, and what it keeps about it.

    Parameters
    ----------
    path : str or path
        A run's folder, or a network's file.
    dtype : str or dtype, optional
        Another float policy than the file's.

    Raises
    ------
    FileAccessError, ModelFileError
        If it cannot be read, or is not by xpdl.
    ArgumentError
        If it is an ensemble of which not all members are trained.
    """
    place = Path(path)
    if (place / INDEX).exists():
        return load_ensemble_with_notes(place, dtype=dtype)
    single = not place.is_dir() or (place / MODEL).exists()
    if not single and (place / HISTORY).exists() and "members" in read_record(place):
        raise ArgumentError(
            f"not all members of the ensemble in {str(path)!r} are trained; go on with "
            f"{resuming(place)}, or give the file of one of them."
        )
    return load_with_notes(path, dtype=dtype)


def evaluate(
    model: Network | Ensemble, data: str, folder: Path, shifts: int = 0
) -> tuple[Result, float]:
    """Return how a model does on the test set of `data`, and its mean loss.

    That of a network is the loss it was trained on; that of an ensemble, and of an average over
    shifts, is the cross entropy of its probabilities.
    """
    network = model if isinstance(model, Network) else model.members[0]
    _, (x, t) = load_data(data, network)
    item = network.backend.item
    start = time.perf_counter()
    y = model.predict(x)
    single_look_accuracy = None
    if shifts:
        single_look_accuracy = item(count_hits(y, t)) / len(t)
        y = answering(model, shifts).predict(x)
    wrong = len(t) - int(item(count_hits(y, t)))
    seconds = time.perf_counter() - start
    if isinstance(model, Network) and not shifts:
        loss = network.loss_layer.forward(y, t)
    else:
        loss = functions.cross_entropy_error(y, t)
    result = Result(folder, 1 - wrong / len(t), wrong, len(t), seconds, single_look_accuracy)
    return result, item(loss)
