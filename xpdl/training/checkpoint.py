"""A training to and from a file: network, optimizer, average, and how far it came."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from xpdl import files
from xpdl.backends import Array
from xpdl.errors import ArgumentError, ModelFileError
from xpdl.network import Network
from xpdl.optimizers import Optimizer
from xpdl.training.averaging import MovingAverage
from xpdl.training.history import History
from xpdl.training.settings import differences

FILE_FORMAT = "xpdl-checkpoint-1"


def save_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    optimizer: Optimizer,
    notes: dict[str, Any],
    average: MovingAverage | None = None,
) -> None:
    """Write all that is needed to go on to one safetensors file, whole or not at all.

    Parameters
    ----------
    notes : dict
        What else is to be known on going on, as JSON can hold it; ``notes["history"]`` is
        `History.as_dict`.
    average : MovingAverage, optional
        Kept beside the network as it is trained.
    """
    state = optimizer.state_dict()
    tensors = {
        f"network/{name}": network.backend.to_numpy(array)
        for name, array in network.arrays().items()
    }
    for slot, arrays in state.pop("state").items():
        tensors |= {f"optimizer/{slot}/{name}": array for name, array in arrays.items()}
    about: dict[str, Any] = {"format": FILE_FORMAT, "optimizer": state, "notes": notes}
    if average is not None:
        to_numpy = network.backend.to_numpy
        tensors |= {f"average/{name}": to_numpy(a) for name, a in average.arrays().items()}
        about["averaged_updates"] = average.updates()
    files.write_tensors(path, tensors, about)


def load_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    optimizer: Optimizer,
    expected: dict[str, Any],
    average: MovingAverage | None = None,
) -> dict[str, Any]:
    """Bring all that is given to where `path` left it; return its notes and history.

    Parameters
    ----------
    expected : dict
        Notes that must be the same now as when the checkpoint was written.

    Raises
    ------
    ModelFileError
        If the file is foreign, damaged, or of another network, optimizer or average.
    ArgumentError
        If a note in `expected` differs; the message names it. Nothing is changed then.
    """
    tensors, description = files.read_tensors(path)
    if description.get("format") != FILE_FORMAT:
        raise ModelFileError(f"{str(path)!r} is not a checkpoint of xpdl.")
    try:
        notes: dict[str, Any] = description["notes"]
        state = dict(description["optimizer"])
        # As JSON gives it back: a tuple is a list there.
        now = json.loads(json.dumps(expected))
        differ = differences({name: notes.get(name) for name in now}, now)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelFileError(f"{str(path)!r} is damaged: {error!r}.") from error
    if differ:
        raise ArgumentError(
            f"{str(path)!r} is of another training: {', '.join(differ)}. "
            "Go on with the same, or start anew elsewhere."
        )
    try:
        notes["history"] = History.from_dict(notes["history"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"the history in {str(path)!r} is damaged: {error!r}.") from error
    state["state"] = {}
    arrays: dict[str, dict[str, Array]] = {"network": {}, "average": {}}
    for key, array in tensors.items():
        if not np.isfinite(array).all():
            raise ModelFileError(f"{key} in {str(path)!r} holds NaN or infinity.")
        room, _, name = key.partition("/")
        if room in arrays:
            arrays[room][name] = array
        else:
            slot, _, name = name.partition("/")
            state["state"].setdefault(slot, {})[name] = array
    try:
        optimizer.load_state_dict(state)
        if average is not None:
            average.restore(arrays["average"], description["averaged_updates"])
        network.load_arrays(arrays["network"])
    except (ArgumentError, KeyError, TypeError) as error:
        raise ModelFileError(f"{str(path)!r} does not fit: {error}") from error
    return notes
