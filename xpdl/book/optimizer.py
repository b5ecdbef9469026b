"""The book's ``common.optimizer``: rules that change parameters, by name, in place.

A parameter may also be a plain number, which is replaced in `params`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import numpy as np

from xpdl import optimizers
from xpdl.backends import Array, backend_of

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]

EPSILON = 1e-7
PART = 32768
"""Numbers of an array that a rule changes at a time: Adam takes a seventh of the time for all."""


class Optimizer:
    """A rule for one array at a time, and the arrays that it keeps for each, zeros at first."""

    keeps = 0

    def __init__(self) -> None:
        self._kept: dict[str, list[Array]] = {}

    def update(self, params: MutableMapping[str, Any], grads: Mapping[str, Any]) -> None:
        """Change each of `params` by the gradient of its name in `grads`."""
        self._begin()
        for name in params:
            p = params[name]
            if not isinstance(p, np.ndarray):
                p = np.array(p, dtype=np.float64)
            if name not in self._kept:
                self._kept[name] = [np.zeros_like(p) for _ in range(self.keeps)]
            g = np.asarray(grads[name], dtype=p.dtype)
            for part in _parts(p, g, *self._kept[name]):
                self._change(*part)
            if p is not params[name]:
                params[name] = p[()]

    def _begin(self) -> None:
        """Count a call."""

    def _change(self, p: Array, g: Array, *kept: Array) -> None:
        raise NotImplementedError


def _do(rule: optimizers.Optimizer, rate: float, *arrays: Array, count: int | None = None) -> None:
    """Change p, and what is kept beside it, by a rule of `xpdl.optimizers`."""
    known = rule.device_rule, rule.rule, rule.settings()
    numbers = (rate,) if count is None else (rate, count)
    backend_of(*arrays).update_rule(*known, arrays, numbers)


def _parts(*arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Yield arrays of one shape a part at a time: as views, that stay in a core's cache."""
    if not all(a.flags.c_contiguous for a in arrays):
        yield arrays
        return
    flat = [a.reshape(-1) for a in arrays]
    for start in range(0, arrays[0].size, PART):
        yield tuple(a[start : start + PART] for a in flat)


class SGD(Optimizer):
    """p <- p - lr g. Book, equation 6.1."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = lr

    def _change(self, p: Array, g: Array, *kept: Array) -> None:
        _do(optimizers.SGD(), self.lr, p, g)


class Momentum(Optimizer):
    """v <- momentum v - lr g; p <- p + v. Book, equations 6.3 and 6.4."""

    keeps = 1

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__()
        self.lr, self.momentum = lr, momentum

    def _change(self, p: Array, g: Array, *kept: Array) -> None:
        _do(optimizers.Momentum(momentum=self.momentum), self.lr, p, g, *kept)


class Nesterov(Momentum):
    """v <- momentum v - lr g; p <- p + momentum v - lr g. Bengio et al. 2012 (arXiv:1212.0901)."""

    def _change(self, p: Array, g: Array, *kept: Array) -> None:
        _do(optimizers.Nesterov(momentum=self.momentum), self.lr, p, g, *kept)


class AdaGrad(Optimizer):
    """h <- h + g*g; p <- p - lr g / (sqrt(h) + 1e-7). Book, equations 6.5 and 6.6."""

    keeps = 1

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = lr

    def _change(self, p: Array, g: Array, *kept: Array) -> None:
        _do(optimizers.AdaGrad(epsilon=EPSILON), self.lr, p, g, *kept)


class RMSprop(Optimizer):
    """h <- decay h + (1 - decay) g*g; p <- p - lr g / (sqrt(h) + 1e-7)."""

    keeps = 1

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__()
        self.lr, self.decay_rate = lr, decay_rate

    def _change(self, p: Array, g: Array, *kept: Array) -> None:
        rule = optimizers.RMSProp(decay_rate=self.decay_rate, epsilon=EPSILON)
        _do(rule, self.lr, p, g, *kept)


class Adam(Optimizer):
    """Kingma and Ba 2015, in the form of the book.

    m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g*g
    p <- p - lr sqrt(1 - beta2^i) / (1 - beta1^i) m / (sqrt(v) + 1e-7), at the i-th call
    """

    keeps = 2

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__()
        self.lr, self.beta1, self.beta2, self.iter = lr, beta1, beta2, 0

    def _begin(self) -> None:
        self.iter += 1

    def _change(self, p: Array, g: Array, *kept: Array) -> None:
        # Our rule adds its epsilon to the corrected sqrt(v), the book to v's own.
        epsilon = EPSILON / (1 - self.beta2**self.iter) ** 0.5
        rule = optimizers.Adam(beta1=self.beta1, beta2=self.beta2, epsilon=epsilon)
        _do(rule, self.lr, p, g, *kept, count=self.iter)
