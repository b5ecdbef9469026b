"""Networks by name."""

from __future__ import annotations

from typing import Any

from xpdl.arguments import plainly
from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.models.alexnet import AlexNet
from xpdl.models.convnets import DeepConvNet, NormalizedConvNet, SimpleConvNet
from xpdl.models.fully_connected import MultiLayerNet, TwoLayerNet
from xpdl.models.googlenet import GoogLeNet
from xpdl.models.lenet import LeNet
from xpdl.models.mobilenet import MobileNetV2
from xpdl.models.resnet import CifarResNet, ResNet
from xpdl.models.squeezenet import SqueezeNet
from xpdl.models.vgg import VGG
from xpdl.network import Network

__all__ = [
    "MODELS",
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
    "make_model",
]

MODELS: dict[str, type[Network]] = {
    model.__name__: model
    for model in (
        *(DeepConvNet, NormalizedConvNet, SimpleConvNet, TwoLayerNet, MultiLayerNet),
        *(LeNet, AlexNet, VGG, GoogLeNet, ResNet, CifarResNet, SqueezeNet, MobileNetV2),
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
        raise ArgumentError(f"{model.__name__}: {plainly(error)}.") from error
