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
        kind.forward = (_forward if kind.arity == 1 else _forward_of_several)(kind.forward)
    if "backward" in vars(kind):
        kind.backward = _backward(kind.backward)


def _forward(compute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compute)
    def forward(self: Any, x: Any, train: bool = False) -> Any:
        if self.owned:
            return compute(self, x, train)
        self.expect(x)
        y = compute(self, x, train)
        if train:
            self.made = y.shape, backend_of(x)
        return y

    return forward


def _forward_of_several(compute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compute)
    def forward(self: Any, *xs: Any, train: bool = False) -> Any:
        if self.owned:
            return compute(self, *xs, train=train)
        self.expect(*xs)
        y = compute(self, *xs, train=train)
        if train:
            self.made = y.shape, backend_of(*xs)
        return y

    return forward


def _backward(compute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(compute)
    def backward(self: Any, dout: Array) -> Any:
        if not self.owned:
            shape, home = self.made
            expect_gradient(type(self).__name__, dout, shape, home)
        return compute(self, dout)

    return backward
