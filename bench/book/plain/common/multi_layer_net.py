"""Layers in a row: NumPy alone."""

from collections import OrderedDict

import numpy as np

from common.gradient import numerical_gradient
from common.layers import Affine, BatchNormalization, Dropout, Relu, Sigmoid, SoftmaxWithLoss

SQUARES = {"relu": 2, "he": 2, "sigmoid": 1, "xavier": 1}


class MultiLayerNet:
    def __init__(self, input_size, hidden_size_list, output_size, activation="relu",
                 weight_init_std="relu", weight_decay_lambda=0, use_dropout=False,
                 dropout_ration=0.5, use_batchnorm=False):  # fmt: skip
        self.decay, self.params, self.layers = weight_decay_lambda, {}, OrderedDict()
        self.last_layer = SoftmaxWithLoss()
        sizes = [input_size, *hidden_size_list, output_size]
        self.depth = len(sizes) - 1
        for n in range(1, self.depth + 1):
            std = weight_init_std
            if isinstance(std, str):
                std = (SQUARES[std] / sizes[n - 1]) ** 0.5
            W = self.params["W" + str(n)] = std * np.random.randn(sizes[n - 1], sizes[n])
            b = self.params["b" + str(n)] = np.zeros(sizes[n])
            self.layers["Affine" + str(n)] = Affine(W, b)
            if n < self.depth:
                if use_batchnorm:
                    gamma = self.params["gamma" + str(n)] = np.ones(sizes[n])
                    beta = self.params["beta" + str(n)] = np.zeros(sizes[n])
                    self.layers["BatchNorm" + str(n)] = BatchNormalization(gamma, beta)
                kind = {"relu": Relu, "sigmoid": Sigmoid}[activation]
                self.layers["Activation_function" + str(n)] = kind()
                if use_dropout:
                    self.layers["Dropout" + str(n)] = Dropout(dropout_ration)

    def predict(self, x, train_flg=False):
        for layer in self.layers.values():
            changes = isinstance(layer, BatchNormalization | Dropout)
            x = layer.forward(x, train_flg) if changes else layer.forward(x)
        return x

    def loss(self, x, t, train_flg=False):
        weights = [self.params["W" + str(n)] for n in range(1, self.depth + 1)]
        decay = self.decay / 2 * sum((W**2).sum() for W in weights)
        return self.last_layer.forward(self.predict(x, train_flg), t) + decay

    def accuracy(self, x, t):
        return np.mean(self.predict(x).argmax(axis=1) == (t if t.ndim == 1 else t.argmax(axis=1)))

    def numerical_gradient(self, x, t):
        return {name: numerical_gradient(lambda _: self.loss(x, t, train_flg=True), p)
                for name, p in self.params.items()}  # fmt: skip

    def gradient(self, x, t):
        self.loss(x, t, train_flg=True)
        dout = self.last_layer.backward(1)
        for layer in list(self.layers.values())[::-1]:
            dout = layer.backward(dout)
        grads = {}
        for name, layer in self.layers.items():
            if name.startswith("Affine"):
                grads["W" + name[6:]] = layer.dW + self.decay * layer.W
                grads["b" + name[6:]] = layer.db
            if name.startswith("BatchNorm"):
                grads["gamma" + name[9:]] = layer.dgamma
                grads["beta" + name[9:]] = layer.dbeta
        return grads
