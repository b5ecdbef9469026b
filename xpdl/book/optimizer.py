"""The book's ``common.optimizer``: rules that change parameters, by name, in place.

A parameter may also be a plain number, which is replaced in `params`.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from xpdl import optimizers
from xpdl.backends import Array, backend_of

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]

EPSILON = 1e-7


class Optimizer:
    """A rule, and the arrays that it keeps for each parameter, zeros at first."""

    keeps = 0

    def __init__(self) -> None:
        self._kept: dict[str, list[Array]] = {}

    def update(self, params: MutableMapping[str, Any], grads: Mapping[str, Any]) -> None:
        """Change each of `params` by the gradient of its name in `grads`."""
        rule, *numbers = self._rule_and_numbers()
        known = rule.device_rule, rule.rule, rule.settings()
        for name in params:
            p = params[name]
            if not isinstance(p, np.ndarray):
                p = np.array(p, dtype=np.float64)
            if name not in self._kept:
                self._kept[name] = [np.zeros_like(p) for _ in range(self.keeps)]
            arrays = p, np.asarray(grads[name], dtype=p.dtype), *self._kept[name]
            backend_of(*arrays).update_rule(*known, arrays, numbers)
            if p is not params[name]:
                params[name] = p[()]

    def _rule_and_numbers(self) -> tuple[optimizers.Optimizer, *tuple[float, ...]]:
        """Return the rule of `xpdl.optimizers` for an update, with the numbers that it takes."""
        raise NotImplementedError


class SGD(Optimizer):
    """p <- p - lr g. Book, equation 6.1."""

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = lr

    def _rule_and_numbers(self) -> tuple[optimizers.Optimizer, *tuple[float, ...]]:
        return optimizers.SGD(), self.lr


class Momentum(Optimizer):
    """v <- momentum v - lr g; p <- p + v. Book, equations 6.3 and 6.4."""

    keeps = 1

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__()
        self.lr, self.momentum = lr, momentum

    def _rule_and_numbers(self) -> tuple[optimizers.Optimizer, *tuple[float, ...]]:
        return optimizers.Momentum(momentum=self.momentum), self.lr


class Nesterov(Momentum):
    """v <- momentum v - lr g; p <- p + momentum v - lr g. Bengio et al. 2012 (arXiv:1212.0901)."""

    def _rule_and_numbers(self) -> tuple[optimizers.Optimizer, *tuple[float, ...]]:
        return optimizers.Nesterov(momentum=self.momentum), self.lr


class AdaGrad(Optimizer):
    """h <- h + g*g; p <- p - lr g / (sqrt(h) + 1e-7). Book, equations 6.5 and 6.6."""

    keeps = 1

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.lr = lr

    def _rule_and_numbers(self) -> tuple[optimizers.Optimizer, *tuple[float, ...]]:
        return optimizers.AdaGrad(epsilon=EPSILON), self.lr


class RMSprop(Optimizer):
    """h <- decay h + (1 - decay) g*g; p <- p - lr g / (sqrt(h) + 1e-7)."""

    keeps = 1

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__()
        self.lr, self.decay_rate = lr, decay_rate

    def _rule_and_numbers(self) -> tuple[optimizers.Optimizer, *tuple[float, ...]]:
        return optimizers.RMSProp(decay_rate=self.decay_rate, epsilon=EPSILON), self.lr


class Adam(Optimizer):
    """Kingma and Ba 2015, in the form of the book.

    m <- beta1 m + (1 - beta1) g        v <- beta2 v + (1 - beta2) g*g
    p <- p - lr sqrt(1 - beta2^i) / (1 - beta1^i) m / (sqrt(v) + 1e-7), at the i-th call
    """

    keeps = 2

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__()
        self.lr, self.beta1, self.beta2, self.iter = lr, beta1, beta2, 0

    def _rule_and_numbers(self) -> tuple[optimizers.Optimizer, *tuple[float, ...]]:
        self.iter += 1
        # Our rule adds its epsilon to the corrected sqrt(v), the book to v's own.
        epsilon = EPSILON / (1 - self.beta2**self.iter) ** 0.5
        rule = optimizers.Adam(beta1=self.beta1, beta2=self.beta2, epsilon=epsilon)
        return rule, self.lr, self.iter
