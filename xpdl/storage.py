"""A network to and from a file, which needs nothing but the file."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from xpdl import files
from xpdl.errors import ArgumentError, FileAccessError, ModelFileError
from xpdl.layers import Sequential, layer_from_config
from xpdl.network import FILE_FORMAT, Network, network_from_config


def load(path: str | os.PathLike[str], *, dtype: Any = None) -> Network:
    """Read a network that `Network.save` wrote; it is born on the active backend.

    Parameters
    ----------
    path : str or path
        A safetensors file, or a run's folder, whose ``model.safetensors`` is read.
    dtype : str or dtype, optional
        Another float policy than the file's.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it is foreign, damaged, or its arrays are not those of its architecture.
    """
    return load_with_notes(path, dtype=dtype)[0]


def load_with_notes(
    path: str | os.PathLike[str], *, dtype: Any = None
) -> tuple[Network, dict[str, Any]]:
    """Read a network as `load` does, and what `Network.save` was told about it."""
    if os.path.isdir(path):
        inside = os.path.join(path, "model.safetensors")
        if not os.path.exists(inside):
            raise FileAccessError(
                f"the folder {str(path)!r} holds no model.safetensors; give the folder of a run, "
                "or a file."
            )
        path = inside
    arrays, description = files.read_tensors(path)
    if description.get("format") != FILE_FORMAT:
        raise ModelFileError(
            f"{str(path)!r} is not a network: its format is {description.get('format')!r}, "
            f"wanted {FILE_FORMAT!r}."
        )
    try:
        config, about = description["architecture"], dict(description["about"])
        _expect_notes(about)
        _expect_size(config, sum(a.size for a in arrays.values()))
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise ModelFileError(f"{name} holds NaN or infinity: a training that diverged?")
        network = network_from_config(config, dtype=dtype)
        network.load_arrays(arrays)
    except (
        ArgumentError,
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        RecursionError,
    ) as error:
        reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(f"{str(path)!r} does not describe a network: {reason}") from error
    return network, about


def _expect_notes(about: dict[str, Any]) -> None:
    """See that what is known of a network is of the types that its readers count on."""
    names = about.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFileError(f"its class_names must be a list of str, got {names!r}.")
    if not isinstance(about.get("data", ""), str):
        raise ModelFileError(f"its data must be the name of a data set, got {about['data']!r}.")


def _expect_size(config: Any, stored: int) -> None:
    """See, before anything is allocated, that the architecture wants no more than is stored."""
    body = layer_from_config(config["body"])
    if not isinstance(body, Sequential):
        raise ModelFileError("its architecture is not a sequence of layers.")
    body.plan(tuple(config["input_shape"]))
    wanted = sum(math.prod(spec.shape) for _, leaf in body.leaves() for spec in leaf.specs.values())
    if wanted > stored:
        raise ModelFileError(f"its layers want {wanted:,} parameters, it holds {stored:,} numbers.")
