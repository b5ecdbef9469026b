"""The door of a layer that is used alone: what it is given is looked at before it computes.

A network has planned its layers and looks at what it is given itself, so that they compute at once.
Either way their `forward` and `backward` are written as formulas.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from xpdl.backends import Array, backend_of
from xpdl.layers.checks import expect_gradient


def look_first(kind: Any) -> None:
    """Let what a class of layers writes as `forward` and `backward` look first, if used alone."""
    if "forward" in vars(kind):
        kind.forward = _forward(kind.forward, several=kind.arity != 1)
    if "backward" in vars(kind):
        kind.backward = _backward(kind.backward)


def _forward(compute: Callable[..., Any], several: bool) -> Callable[..., Any]:
    def look(layer: Any, xs: tuple[Any, ...], train: bool) -> Any:
        layer.expect(*xs)
        y = compute(layer, *xs, train=train)
        if train:
            layer.made = y.shape, backend_of(*xs)
        return y

    @functools.wraps(compute)
    def forward(self: Any, x: Any, train: bool = False) -> Any:
        return compute(self, x, train) if self.owned else look(self, (x,), train)

    @functools.wraps(compute)
    def forward_of_several(self: Any, *xs: Any, train: bool = False) -> Any:
        return compute(self, *xs, train=train) if self.owned else look(self, xs, train)

    return forward_of_several if several else forward


def _backward(compute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compute)
    def backward(self: Any, dout: Array) -> Any:
        if not self.owned:
            shape, home = self.made
            expect_gradient(type(self).__name__, dout, shape, home)
        return compute(self, dout)

    return backward
