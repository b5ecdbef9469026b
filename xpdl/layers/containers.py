"""Graphs that are written shorter: a chain of layers, and one with a way around it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from xpdl.backends import Array, Shape
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.layers.base import Layer, layer_from_config
from xpdl.layers.graph import Graph
from xpdl.layers.kept import Kept
from xpdl.layers.merging import Add
from xpdl.layers.node import numbered


class Flatten(Layer):
    """Images (N, C, H, W) as rows (N, C*H*W); `Affine` does this by itself.

    y = x reshaped        dL/dx = dL/dy reshaped back
    """

    kind = "flatten"
    shape: Any = Kept()

    def plan(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def expect(self, x: Array) -> None:
        super().expect(x)
        if not x.ndim:
            raise ShapeError(f"Flatten wants x (N, ...), got {x.shape}.")

    def forward(self, x: Array, train: bool = False) -> Array:
        if train:
            self.shape = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, dout: Array) -> Array:
        return dout.reshape(self.shape)


class Sequential(Graph):
    """Layers one after the other: y = f_n(... f_2(f_1(x))), and the gradient back through each.

    Parameters
    ----------
    layers : iterable of Layer, or mapping of str to Layer
        Given names stay; the others are called after their kind and number: conv1, relu1, conv2.
    """

    kind = "block"

    def __init__(self, layers: Iterable[Layer] | Mapping[str, Layer]) -> None:
        Layer.__init__(self)
        self._lay(("x",), _chain(_named(layers)), {})

    def forward(self, x: Array, train: bool = False) -> Array:  # type: ignore[override]
        y: Array = super().forward(x, train=train)
        return y

    def _lay(self, inputs: Any, nodes: Any, outputs: Any) -> None:
        super()._lay(inputs, nodes, outputs or {"y": next(reversed(nodes))})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Sequential:
        return cls(_layers_of(cls, config))

    def config(self) -> dict[str, Any]:
        layers = {name: layer.config() for name, layer in self.layers.items()}
        return {"type": type(self).__name__, "layers": layers}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self.layers.values())})"


class Residual(Sequential):
    """Layers with a way around them: y = f(x) + s(x). He et al. 2015 (arXiv:1512.03385).

    dL/dx = f'(dL/dy) + s'(dL/dy)

    Parameters
    ----------
    layers : iterable of Layer, or mapping of str to Layer
        f, one after the other.
    shortcut : Layer, optional
        s, such as a 1x1 convolution where f changes the shape; by default x itself.
    """

    kind = "residual"

    def __init__(
        self, layers: Iterable[Layer] | Mapping[str, Layer], shortcut: Layer | None = None
    ) -> None:
        Layer.__init__(self)
        inner = _named(layers)
        for name in ("shortcut", "sum"):
            if name in inner:
                raise ArgumentError(f"layers: the name {name!r} is taken in a Residual.")
        nodes, last = _chain(inner), next(reversed(inner))
        around = "x"
        if shortcut is not None:
            nodes["shortcut"], around = (shortcut, ("x",)), "shortcut"
        nodes["sum"] = (Add(), (around, last))
        self.shortcut = shortcut
        self._lay(("x",), nodes, {})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Residual:
        shortcut = config.get("shortcut")
        layers = _layers_of(cls, config)
        return cls(layers, *([] if shortcut is None else [layer_from_config(shortcut)]))

    def config(self) -> dict[str, Any]:
        config = super().config()
        del config["layers"]["sum"]
        shortcut = config["layers"].pop("shortcut", None)
        return config if shortcut is None else config | {"shortcut": shortcut}

    def __repr__(self) -> str:
        inner = [layer for name, layer in self.layers.items() if name not in ("sum", "shortcut")]
        shortcut = "" if self.shortcut is None else f", shortcut={self.shortcut!r}"
        return f"{type(self).__name__}({inner}{shortcut})"


Graph.plain |= {Sequential, Residual}


def _named(layers: Iterable[Layer] | Mapping[str, Layer]) -> dict[str, Layer]:
    if not isinstance(layers, Iterable) or isinstance(layers, str | bytes | type):
        raise ArgumentError(f"layers must be a list of layers, got {shown(layers)}.")
    if isinstance(layers, Mapping):
        for name in layers:
            if not isinstance(name, str) or not name or "." in name:
                raise ArgumentError(
                    f"layers: a name must be a text without dots, got {shown(name)}."
                )
        named = dict(layers)
    else:
        listed = list(layers)
        named = dict(zip(numbered([(None, layer) for layer in listed]), listed, strict=True))
    if not named:
        raise ArgumentError("layers is empty; give one at least.")
    return named


def _chain(layers: Mapping[str, Layer]) -> dict[str, tuple[Layer, tuple[str, ...]]]:
    """Return nodes of which each reads the one before it."""
    before = ["x", *layers]
    return {name: (layer, (before[i],)) for i, (name, layer) in enumerate(layers.items())}


def _layers_of(cls: type[Layer], config: Mapping[str, Any]) -> dict[str, Layer]:
    if not isinstance(config["layers"], Mapping):
        raise ArgumentError(
            f"the layers of a {cls.__name__} must be a mapping of names to configs, "
            f"got {shown(config['layers'])}."
        )
    return {name: layer_from_config(layer) for name, layer in config["layers"].items()}
