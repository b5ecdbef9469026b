"""What is measured: networks of xpdl, and the same ones in PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from xpdl.layers import (
    AdaptiveAveragePooling,
    Add,
    Affine,
    BatchNormalization,
    Concatenate,
    Convolution,
    Dropout,
    GlobalAveragePooling,
    Layer,
    MaxPooling,
    Normalize,
    ReLU,
    ReLU6,
)
from xpdl.models import DeepConvNet, MultiLayerNet, SimpleConvNet
from xpdl.network import Network


def _strided(**options: Any) -> Network:
    """Three 3x3 convolutions of stride 2 on 32x32 pictures in colour."""
    layers: list[Layer] = []
    for filters in (32, 64, 128):
        layers += [Convolution(filters, 3, stride=2, pad=1, remainder="drop"), ReLU()]
    return Network([*layers, Affine(10)], (3, 32, 32), name="strided", **options)


def _pictures(**options: Any) -> Network:
    """Three convolutions, each pooled, on 64x64 pictures in colour."""
    layers: list[Layer] = []
    for filters in (32, 64, 128):
        layers += [Convolution(filters, 3, pad=1), ReLU(), MaxPooling(2)]
    return Network([*layers, Affine(10)], (3, 64, 64), name="pictures", **options)


def _layers_of_100(**options: Any) -> Network:
    return MultiLayerNet(784, [100] * 5, 10, **options)


NETWORKS: dict[str, Callable[..., Network]] = {
    "deep": DeepConvNet,  # the book's, Figure 8-1
    "simple": SimpleConvNet,  # 5x5 filters
    "layers": _layers_of_100,  # 784-100x5-10
    "strided": _strided,  # 3x3, stride 2, 32x32x3
    "pictures": _pictures,  # 64x64x3
}


def torch_twin(network: Network) -> Any:
    """Return the same layers in PyTorch, with PyTorch's own first weights.

    A chain is an ``nn.Sequential``; a graph computes its layers one after the other.
    """
    from torch import nn

    # What it is given are floats that are scaled already.
    places = [place for place in network.body.places if not isinstance(place.layer, Normalize)]
    shapes = network.body.shapes
    modules = [_module(place.layer, shapes[place.reads[0]]) for place in places]
    before = places[0].reads[0]  # the input, or what is left out behind it
    for place in places:
        if place.reads != (before,):
            return _torch_graph(network, dict(zip(places, modules, strict=True)))
        before = place.name
    return nn.Sequential(*(module for several in modules for module in several))


def _module(layer: Layer, shape: tuple[int, ...]) -> list[Any]:
    """Return a layer's modules in PyTorch, for inputs of such a shape."""
    from torch import nn

    match layer:
        case Convolution():
            pad: Any = layer.pad
            options: dict[str, Any] = {
                "bias": layer.bias,
                "groups": layer.groups,
                "dilation": layer.dilation,
            }
            return [nn.Conv2d(shape[0], layer.filters, layer.size, layer.stride, pad, **options)]
        case MaxPooling():
            keep = layer.remainder == "keep"
            return [nn.MaxPool2d(layer.size, layer.stride, layer.pad, ceil_mode=keep)]
        case AdaptiveAveragePooling():
            return [nn.AdaptiveAvgPool2d(layer.size)]
        case GlobalAveragePooling():
            return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        case BatchNormalization():
            return [nn.BatchNorm2d(shape[0], layer.epsilon)]
        case ReLU():
            return [nn.ReLU()]
        case ReLU6():
            return [nn.ReLU6()]
        case Dropout():
            return [nn.Dropout(layer.ratio)]
        case Affine():
            flatten = [nn.Flatten()] if len(shape) > 1 else []
            return [*flatten, nn.Linear(math.prod(shape), layer.units)]
        case Add() | Concatenate():
            return []
        case _:
            raise NotImplementedError(f"no twin for {layer!r}")


def _torch_graph(network: Network, modules: dict[Any, list[Any]]) -> Any:
    """Return a module that computes a graph of one input and one output."""
    import torch
    from torch import nn

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Sequential(*several) for several in modules.values())

        def forward(self, x: Any) -> Any:
            scaled = [p.name for p in network.body.places if isinstance(p.layer, Normalize)]
            values = dict.fromkeys([*network.body.inputs, *scaled], x)
            for place, part in zip(modules, self.parts, strict=True):
                read = [values[name] for name in place.reads]
                if isinstance(place.layer, Add):
                    values[place.name] = read[0] + read[1]
                elif isinstance(place.layer, Concatenate):
                    values[place.name] = torch.cat(read, 1)
                else:
                    values[place.name] = part(read[0])
            return values[network.body.ends[0]]

    return Twin()
