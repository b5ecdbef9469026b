"""A training to and from a file: network, optimizer, and how far it came."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from xpdl import files
from xpdl.errors import ArgumentError, ModelFileError
from xpdl.network import Network
from xpdl.optimizers import Optimizer
from xpdl.training.history import History
from xpdl.training.settings import differences

FILE_FORMAT = "xpdl-checkpoint-1"


def save_checkpoint(
    path: str | os.PathLike[str], network: Network, optimizer: Optimizer, notes: dict[str, Any]
) -> None:
    """Write all that is needed to go on to one safetensors file, whole or not at all.

    Parameters
    ----------
    notes : dict
        What else is to be known on going on, as JSON can hold it; ``notes["history"]`` is
        `History.as_dict`.
    """
    state = optimizer.state_dict()
    tensors = {
        f"network/{name}": network.backend.to_numpy(array)
        for name, array in network.arrays().items()
    }
    for slot, arrays in state.pop("state").items():
        tensors |= {f"optimizer/{slot}/{name}": array for name, array in arrays.items()}
    files.write_tensors(path, tensors, {"format": FILE_FORMAT, "optimizer": state, "notes": notes})


def load_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    optimizer: Optimizer,
    expected: dict[str, Any],
) -> dict[str, Any]:
    """Bring `network` and `optimizer` to where `path` left them; return its notes and history.

    Parameters
    ----------
    expected : dict
        Notes that must be the same now as when the checkpoint was written.

    Raises
    ------
    ModelFileError
        If the file is foreign, damaged, or of another network or optimizer.
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
    arrays = {}
    for key, array in tensors.items():
        if not np.isfinite(array).all():
            raise ModelFileError(f"{key} in {str(path)!r} holds NaN or infinity.")
        room, _, name = key.partition("/")
        if room == "network":
            arrays[name] = array
        else:
            slot, _, name = name.partition("/")
            state["state"].setdefault(slot, {})[name] = array
    try:
        optimizer.load_state_dict(state)
        network.load_arrays(arrays)
    except (ArgumentError, KeyError, TypeError) as error:
        raise ModelFileError(f"{str(path)!r} does not fit: {error}") from error
    return notes
