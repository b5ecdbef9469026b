"""What is measured: networks of xpdl, and the same ones in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xpdl.layers import Affine, Convolution, Dropout, Layer, MaxPooling, Normalize, ReLU
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
    """Return the same layers in PyTorch, with PyTorch's own first weights."""
    from torch import nn

    modules: list[Any] = []
    shape = network.input_shape
    for place in network.body.places:
        layer, output = place.layer, network.body.shapes[place.name]
        if isinstance(layer, Normalize):
            continue  # the twin is given floats that are scaled already
        if isinstance(layer, Convolution):
            pad: Any = layer.pad
            modules.append(nn.Conv2d(shape[0], layer.filters, layer.size, layer.stride, pad))
        elif isinstance(layer, MaxPooling):
            modules.append(nn.MaxPool2d(layer.size, layer.stride, layer.pad))
        elif isinstance(layer, ReLU):
            modules.append(nn.ReLU())
        elif isinstance(layer, Dropout):
            modules.append(nn.Dropout(layer.ratio))
        elif isinstance(layer, Affine):
            if len(shape) > 1:
                modules.append(nn.Flatten())
            inputs = 1
            for extent in shape:
                inputs *= extent
            modules.append(nn.Linear(inputs, layer.units))
        else:
            raise NotImplementedError(f"no twin for {layer!r}")
        shape = output
    return nn.Sequential(*modules)
