"""Layers made of layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Any

from xpdl.backends import Array, Shape, array_module, backend_of
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.layers.activations import ReLU
from xpdl.layers.base import Kept, Layer, expect_floats, layer_from_config
from xpdl.layers.pooling import MaxPooling


class Flatten(Layer):
    """Images (N, C, H, W) as rows (N, C*H*W); `Affine` does this by itself.

    y = x reshaped        dL/dx = dL/dy reshaped back
    """

    kind = "flatten"
    shape: Any = Kept()
    home: Any = Kept()

    def plan(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def forward(self, x: Array, train: bool = False) -> Array:
        expect_floats("Flatten", x)
        if not x.ndim:
            raise ShapeError(f"Flatten wants x (N, ...), got {x.shape}.")
        home = backend_of(x)
        if train:
            self.shape, self.home = x.shape, home
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dout: Array) -> Array:
        self.expect_gradient(dout, (self.shape[0], math.prod(self.shape[1:])), home=self.home)
        return dout.reshape(self.shape)


class Sequential(Layer):
    """Layers one after the other: y = f_n(... f_2(f_1(x))), and the gradient back through each.

    Parameters
    ----------
    layers : iterable of Layer, or mapping of str to Layer
        Given names stay; the others are called after their kind and number: conv1, relu1, conv2.
    """

    kind = "block"

    def __init__(self, layers: Iterable[Layer] | Mapping[str, Layer]) -> None:
        super().__init__()
        if not isinstance(layers, Iterable) or isinstance(layers, str | bytes | type):
            raise ArgumentError(f"layers must be a list of layers, got {shown(layers)}.")
        named = dict(layers) if isinstance(layers, Mapping) else _named(list(layers))
        if not named:
            raise ArgumentError("layers is empty; give one at least.")
        for name, layer in named.items():
            if not isinstance(layer, Layer):
                hint = " (give an instance, such as ReLU())" if isinstance(layer, type) else ""
                raise ArgumentError(f"layers: {name} must be a Layer, got {shown(layer)}{hint}.")
            if not isinstance(name, str) or not name or "." in name:
                raise ArgumentError(
                    f"layers: a name must be a text without dots, got {shown(name)}."
                )
        if len({id(layer) for layer in named.values()}) < len(named):
            raise ArgumentError("layers: one layer stands there twice; make a new one each time.")
        self.layers: dict[str, Layer] = named
        self.shapes: dict[str, Shape] = {}

    def plan(self, input_shape: Shape) -> Shape:
        """Return the output's shape; a layer that does not fit is named in the error."""
        shape = input_shape
        for name, layer in self.layers.items():
            if layer.owned:
                raise ArgumentError(f"{name} already belongs to a network; make a new layer.")
            try:
                shape = layer.plan(shape)
            except ShapeError as error:
                raise ShapeError(f"{name}, with input {shape}: {error}") from error
            self.shapes[name] = shape
        self._join_relus()
        return shape

    def _join_relus(self) -> None:
        """Let a product compute the ReLU behind it, while its result is still at hand.

        The product's y is then the ReLU's, which hands it on, and so the gradient on the way back.
        Max pooling behind them takes the ReLU's gradient with its own, and sums it for the
        product's b. A layer derived from these may do something else, and is left alone.
        """
        layers = list(self.layers.values())
        for layer in layers:  # what may have stood elsewhere before
            layer.relu = layer.pooled = False
            if isinstance(layer, ReLU):
                layer.computed_before = False
            if isinstance(layer, MaxPooling):
                layer.product = None
        for layer, relu, after in zip_longest(layers, layers[1:], layers[2:]):
            if vars(type(layer)).get("takes_relu") and type(relu) is ReLU:
                layer.relu = relu.computed_before = True
                if type(after) is MaxPooling:
                    after.product, layer.pooled = layer, True

    def forward(self, x: Array, train: bool = False) -> Array:
        for layer in self.layers.values():
            x = layer.forward(x, train)
        return x

    def backward(self, dout: Array) -> Array:
        for layer in reversed(self.layers.values()):
            if not layer.needs_backward:
                return None  # type: ignore[return-value]  # only where a network does not want it
            dout = layer.backward(dout)
        return dout

    def want_gradient(self, wanted: bool) -> bool:
        passes = super().want_gradient(wanted)
        # A container derived from these may do something else, and has its layers make all.
        if type(self) in (Sequential, Residual):
            for layer in self.layers.values():
                wanted = layer.want_gradient(wanted)
        return passes

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        for name, layer in self.layers.items():
            yield from layer.leaves(f"{prefix}.{name}" if prefix else name)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Sequential:
        if not isinstance(config["layers"], Mapping):
            raise ArgumentError(
                f"the layers of a {cls.__name__} must be a mapping of names to configs, "
                f"got {shown(config['layers'])}."
            )
        return cls({name: layer_from_config(layer) for name, layer in config["layers"].items()})

    def config(self) -> dict[str, Any]:
        layers = {name: layer.config() for name, layer in self.layers.items()}
        return {"type": type(self).__name__, "layers": layers}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.layers.values())})"


class Residual(Sequential):
    """Layers with a way around them: y = x + f(x), dL/dx = dL/dy + f'(dL/dy). He et al. 2015.

    f must give the shape it takes.
    """

    kind = "residual"

    def plan(self, input_shape: Shape) -> Shape:
        shape = super().plan(input_shape)
        if shape != input_shape:
            raise ShapeError(f"Residual adds its input {input_shape} to its output {shape}.")
        return shape

    def forward(self, x: Array, train: bool = False) -> Array:
        y = super().forward(x, train)
        if y.shape != x.shape:
            raise ShapeError(
                f"Residual adds x, {x.shape}, to what its layers make of it, {y.shape}."
            )
        return _sum(x, y)

    def backward(self, dout: Array) -> Array:
        dx = super().backward(dout)
        return _sum(dout, dx) if self.input_gradient else dx


def _sum(a: Array, b: Array) -> Array:
    """Return a + b, in the memory order of a."""
    xp = array_module(a, b)
    return xp.add(a, b, out=xp.empty_like(a))


def _named(layers: list[Layer]) -> dict[str, Layer]:
    count: Counter[str] = Counter()
    named = {}
    for layer in layers:
        kind = getattr(layer, "kind", "layer")
        count[kind] += 1
        named[f"{kind}{count[kind]}"] = layer
    return named
