"""Networks by name."""

from __future__ import annotations

from typing import Any

from xpdl.arguments import plainly
from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.models.convnets import DeepConvNet, NormalizedConvNet, SimpleConvNet
from xpdl.models.fully_connected import MultiLayerNet, TwoLayerNet
from xpdl.network import Network

__all__ = [
    "MODELS",
    "DeepConvNet",
    "MultiLayerNet",
    "NormalizedConvNet",
    "SimpleConvNet",
    "TwoLayerNet",
    "make_model",
]

MODELS: dict[str, type[Network]] = {
    model.__name__: model
    for model in (DeepConvNet, NormalizedConvNet, SimpleConvNet, TwoLayerNet, MultiLayerNet)
}


def make_model(name: str, **options: Any) -> Network:
    """Make the network of a name, in any case.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    ArgumentError
        If an option is not that network's.
    """
    by_lower = {known.lower(): model for known, model in MODELS.items()}
    if not isinstance(name, str) or name.lower() not in by_lower:
        raise UnknownNameError("model", name, MODELS)
    model = by_lower[name.lower()]
    try:
        return model(**options)
    except TypeError as error:
        raise ArgumentError(f"{model.__name__}: {plainly(error)}.") from error
