"""In the style of chapter 8: a deep network as a list of layers."""

import os
import pickle
import sys

sys.path.append(os.pardir)
import numpy as np
from common.layers import *


class DeepConvNet:
    def __init__(self, filters=(2, 3, 4)):
        scales = np.sqrt(2.0 / np.array([9, 18, 27, 4 * 7 * 7, 12]))
        self.params, self.layers, channels = {}, [], 1
        for n, number in enumerate(filters):
            self.add(Convolution, scales[n] * np.random.randn(number, channels, 3, 3), 1, 1)
            self.layers.append(Relu())
            if n:
                self.layers.append(Pooling(pool_h=2, pool_w=2, stride=2))
            channels = number
        self.add(Affine, scales[3] * np.random.randn(filters[-1] * 49, 12))
        self.layers += [Relu(), Dropout(0.5)]
        self.add(Affine, scales[4] * np.random.randn(12, 10))
        self.layers.append(Dropout(0.5))
        self.last_layer = SoftmaxWithLoss()

    def add(self, kind, W, *options):
        n = str(len(self.params) // 2 + 1)
        self.params["W" + n] = W
        self.params["b" + n] = np.zeros(W.shape[0] if W.ndim == 4 else W.shape[1])
        self.layers.append(kind(W, self.params["b" + n], *options))

    def with_parameters(self):
        return [layer for layer in self.layers if hasattr(layer, "W")]

    def predict(self, x, train_flg=False):
        for layer in self.layers:
            x = layer.forward(x, train_flg) if isinstance(layer, Dropout) else layer.forward(x)
        return x

    def loss(self, x, t):
        return self.last_layer.forward(self.predict(x, train_flg=True), t)

    def accuracy(self, x, t):
        return np.mean(self.predict(x).argmax(axis=1) == t)

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.last_layer.backward(1)
        tmp_layers = self.layers.copy()
        tmp_layers.reverse()
        for layer in tmp_layers:
            dout = layer.backward(dout)
        grads = {}
        for n, layer in enumerate(self.with_parameters(), start=1):
            grads["W" + str(n)], grads["b" + str(n)] = layer.dW, layer.db
        return grads

    def save_params(self, file_name):
        with open(file_name, "wb") as f:
            pickle.dump(self.params, f)

    def load_params(self, file_name):
        with open(file_name, "rb") as f:
            params = pickle.load(f)
        self.params.update(params)
        for n, layer in enumerate(self.with_parameters(), start=1):
            layer.W, layer.b = self.params["W" + str(n)], self.params["b" + str(n)]
