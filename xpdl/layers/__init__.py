"""The layers: each a formula, forward and backward."""

from xpdl.layers.activations import ReLU, Sigmoid, Softmax, Tanh
from xpdl.layers.affine import Affine
from xpdl.layers.base import Layer, forget, layer_from_config
from xpdl.layers.containers import Flatten, Residual, Sequential
from xpdl.layers.convolution import Convolution
from xpdl.layers.dropout import Dropout
from xpdl.layers.normalization import BatchNormalization
from xpdl.layers.pooling import AveragePooling, GlobalAveragePooling, MaxPooling

__all__ = [
    "Affine",
    "AveragePooling",
    "BatchNormalization",
    "Convolution",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling",
    "Layer",
    "MaxPooling",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "forget",
    "layer_from_config",
]
