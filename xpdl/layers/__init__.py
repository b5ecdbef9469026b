"""The layers: each a formula, forward and backward."""

from xpdl.layers.activations import ReLU, ReLU6, ScaledTanh, Sigmoid, Softmax, Tanh
from xpdl.layers.affine import Affine
from xpdl.layers.base import Layer, layer_from_config
from xpdl.layers.channels import PadChannels
from xpdl.layers.containers import Flatten, Residual, Sequential
from xpdl.layers.convolution import Convolution
from xpdl.layers.dropout import Dropout
from xpdl.layers.graph import Graph
from xpdl.layers.kept import forget
from xpdl.layers.merging import Add, Concatenate, Multiply
from xpdl.layers.node import Input, Node
from xpdl.layers.normalization import BatchNormalization
from xpdl.layers.normalize import Normalize
from xpdl.layers.partial_convolution import PartialConvolution
from xpdl.layers.pooling import (
    AdaptiveAveragePooling,
    AveragePooling,
    GlobalAveragePooling,
    MaxPooling,
)
from xpdl.layers.response import LocalResponseNormalization
from xpdl.layers.subsampling import Subsampling

__all__ = [
    "AdaptiveAveragePooling",
    "Add",
    "Affine",
    "AveragePooling",
    "BatchNormalization",
    "Concatenate",
    "Convolution",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling",
    "Graph",
    "Input",
    "Layer",
    "LocalResponseNormalization",
    "MaxPooling",
    "Multiply",
    "Node",
    "Normalize",
    "PadChannels",
    "PartialConvolution",
    "ReLU",
    "ReLU6",
    "Residual",
    "ScaledTanh",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Subsampling",
    "Tanh",
    "forget",
    "layer_from_config",
]
