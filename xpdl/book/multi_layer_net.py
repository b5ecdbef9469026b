"""The book's ``common.multi_layer_net``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from xpdl.backends import Array
from xpdl.book.gradient import numerical_gradient
from xpdl.book.layers import Affine, Relu, Sigmoid, SoftmaxWithLoss

__all__ = ["MultiLayerNet", "OrderedDict", "np", "numerical_gradient"]

ACTIVATIONS = {"relu": Relu, "sigmoid": Sigmoid}


class MultiLayerNet:
    """Affine layers with an activation behind each but the last, and softmax with loss.

    Parameters
    ----------
    input_size, output_size : int
    hidden_size_list : sequence of int
        Units of each hidden layer.
    activation : {"relu", "sigmoid"}
    weight_init_std : str or float
        "relu" or "he" is sqrt(2 / inputs), "sigmoid" or "xavier" sqrt(1 / inputs).
    weight_decay_lambda : float
        The loss has half of it times the sum of all squared weights.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
    ) -> None:
        self.input_size, self.output_size = input_size, output_size
        self.hidden_size_list = hidden_size_list
        self.hidden_layer_num = len(hidden_size_list)
        self.weight_decay_lambda = weight_decay_lambda
        self.params: dict[str, Array] = {}
        sizes = [input_size, *hidden_size_list, output_size]
        for n, (inputs, units) in enumerate(pairwise(sizes), start=1):
            scale = _scale(weight_init_std, inputs)
            self.params[f"W{n}"] = scale * np.random.randn(inputs, units)
            self.params[f"b{n}"] = np.zeros(units)
        self.layers: OrderedDict[str, Any] = OrderedDict()
        for n in range(1, self.hidden_layer_num + 1):
            self.layers[f"Affine{n}"] = self._affine(n)
            self._add_behind(n, ACTIVATIONS[activation.lower()]())
        last = self.hidden_layer_num + 1
        self.layers[f"Affine{last}"] = self._affine(last)
        self.last_layer = SoftmaxWithLoss()

    def _affine(self, n: int) -> Affine:
        return Affine(self.params[f"W{n}"], self.params[f"b{n}"])

    def _add_behind(self, n: int, activation: Any) -> None:
        """Add what stands behind the n-th affine layer."""
        self.layers[f"Activation_function{n}"] = activation

    def predict(self, x: Array) -> Array:
        """Return scores (N, output_size) of x (N, input_size)."""
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """Return the mean cross entropy of x and targets t, and what weight decay adds."""
        return self.last_layer.forward(self.predict(x), t) + self._decay()

    def _decay(self) -> Any:
        affine = range(1, self.hidden_layer_num + 2)
        return sum(
            0.5 * self.weight_decay_lambda * np.sum(self.params[f"W{n}"] ** 2) for n in affine
        )

    def accuracy(self, x: Array, t: Array) -> Any:
        """Return the share of x whose largest score is that of its class."""
        return _accuracy(self.predict(x), t)

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of each parameter by differences, by name."""
        return {
            name: numerical_gradient(lambda _: self.loss(x, t), p)
            for name, p in self.params.items()
        }

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of each parameter by backpropagation, by name."""
        self.loss(x, t)
        return self._backward()

    def _backward(self) -> dict[str, Array]:
        dout = self.last_layer.backward()
        for layer in reversed(self.layers.values()):
            dout = layer.backward(dout)
        grads = {}
        for n in range(1, self.hidden_layer_num + 2):
            layer = self.layers[f"Affine{n}"]
            grads[f"W{n}"] = layer.dW + self.weight_decay_lambda * layer.W
            grads[f"b{n}"] = layer.db
        return grads


def _scale(weight_init_std: str | float, inputs: int) -> float:
    """Return the standard deviation of the first weights of a layer of so many inputs."""
    name = str(weight_init_std).lower()
    if name in ("relu", "he"):
        return float(np.sqrt(2.0 / inputs))
    if name in ("sigmoid", "xavier"):
        return float(np.sqrt(1.0 / inputs))
    return float(weight_init_std)


def _accuracy(y: Array, t: Array) -> Any:
    classes = t if t.ndim == 1 else t.argmax(axis=1)
    return np.sum(y.argmax(axis=1) == classes) / float(len(y))
