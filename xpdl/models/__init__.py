"""Networks by name."""

from __future__ import annotations

import inspect
import re
from typing import Any

from xpdl.arguments import plainly
from xpdl.errors import ArgumentError, UnknownNameError, nearest
from xpdl.models.alexnet import AlexNet
from xpdl.models.convnets import DeepConvNet, NormalizedConvNet, SimpleConvNet
from xpdl.models.fully_connected import MultiLayerNet, TwoLayerNet
from xpdl.models.googlenet import GoogLeNet
from xpdl.models.lenet import LeNet
from xpdl.models.mobilenet import MobileNetV2
from xpdl.models.pretrained import PRETRAINED, pretrained
from xpdl.models.resnet import CifarResNet, ResNet
from xpdl.models.squeezenet import SqueezeNet
from xpdl.models.transfer import head_of, new_head
from xpdl.models.vgg import VGG
from xpdl.models.whitened import WhitenedConvNet
from xpdl.network import Network

__all__ = [
    "MODELS",
    "PRETRAINED",
    "VGG",
    "AlexNet",
    "CifarResNet",
    "DeepConvNet",
    "GoogLeNet",
    "LeNet",
    "MobileNetV2",
    "MultiLayerNet",
    "NormalizedConvNet",
    "ResNet",
    "SimpleConvNet",
    "SqueezeNet",
    "TwoLayerNet",
    "WhitenedConvNet",
    "head_of",
    "make_model",
    "new_head",
    "pretrained",
]

MODELS: dict[str, type[Network]] = {
    model.__name__: model
    for model in (
        *(DeepConvNet, NormalizedConvNet, SimpleConvNet, TwoLayerNet, MultiLayerNet),
        *(LeNet, AlexNet, VGG, GoogLeNet, ResNet, CifarResNet, SqueezeNet, MobileNetV2),
        WhitenedConvNet,
    )
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
        raise ArgumentError(
            f"{model.__name__}: {plainly(error)}{_its_options(model, error)}"
        ) from error


def _its_options(model: type[Network], error: TypeError) -> str:
    """Return the end of a message: the options of a model, with their defaults, and which is meant.

    `error` is what Python says of a call that does not fit, with the name in question in quotes.
    """
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(model).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    told = ", ".join(
        name if default is inspect.Parameter.empty else f"{name}={default!r}"
        for name, default in known.items()
    )
    quoted = re.search("'([^']*)'", str(error))
    close = nearest(quoted[1], known) if quoted else None
    return f"; its options are {told}." + ("" if close is None else f" Did you mean {close!r}?")
