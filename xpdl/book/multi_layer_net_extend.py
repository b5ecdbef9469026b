"""The book's ``common.multi_layer_net_extend``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpdl.backends import Array
from xpdl.book.gradient import numerical_gradient
from xpdl.book.layers import BatchNormalization, Dropout
from xpdl.book.multi_layer_net import MultiLayerNet

__all__ = ["MultiLayerNetExtend", "np", "numerical_gradient"]


class MultiLayerNetExtend(MultiLayerNet):
    """A `MultiLayerNet` with batch normalisation before, and dropout behind each activation.

    Parameters
    ----------
    use_dropout, use_batchnorm : bool
    dropout_ration : float
        The share of numbers that are dropped; the name is the book's.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        self.use_dropout, self.use_batchnorm = use_dropout, use_batchnorm
        self.dropout_ration = dropout_ration
        super().__init__(
            input_size,
            hidden_size_list,
            output_size,
            activation,
            weight_init_std,
            weight_decay_lambda,
        )

    def _add_behind(self, n: int, activation: Any) -> None:
        if self.use_batchnorm:
            units = self.hidden_size_list[n - 1]
            gamma = self.params[f"gamma{n}"] = np.ones(units)
            beta = self.params[f"beta{n}"] = np.zeros(units)
            self.layers[f"BatchNorm{n}"] = BatchNormalization(gamma, beta)
        super()._add_behind(n, activation)
        if self.use_dropout:
            self.layers[f"Dropout{n}"] = Dropout(self.dropout_ration)

    def predict(self, x: Array, train_flg: bool = False) -> Array:
        """Return scores (N, output_size) of x (N, input_size)."""
        for layer in self.layers.values():
            if isinstance(layer, BatchNormalization | Dropout):
                x = layer.forward(x, train_flg)
            else:
                x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array, train_flg: bool = False) -> Any:
        """Return the mean cross entropy of x and targets t, and what weight decay adds."""
        return self.last_layer.forward(self.predict(x, train_flg), t) + self._decay()

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of each parameter by differences, by name."""
        return {
            name: numerical_gradient(lambda _: self.loss(x, t, train_flg=True), p)
            for name, p in self.params.items()
        }

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient of each parameter by backpropagation, by name."""
        self.loss(x, t, train_flg=True)
        grads = self._backward()
        if self.use_batchnorm:
            for n in range(1, self.hidden_layer_num + 1):
                layer = self.layers[f"BatchNorm{n}"]
                grads[f"gamma{n}"], grads[f"beta{n}"] = layer.dgamma, layer.dbeta
        return grads
