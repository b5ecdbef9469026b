"""SimpleConvNet and DeepConvNet of chapters 7 and 8, as a script of the book would define them."""

from __future__ import annotations

import numpy as np
from common.layers import Affine, Convolution, Dropout, Pooling, Relu, SoftmaxWithLoss


class ConvNet:
    """A list of layers, of which those with W and b have their arrays in `params` by number."""

    def __init__(self):
        self.params, self.layers, self.last_layer = {}, [], SoftmaxWithLoss()

    def add(self, kind, std, shape, *options):
        n = len(self.params) // 2 + 1
        units = shape[0] if kind is Convolution else shape[1]
        W = self.params[f"W{n}"] = std * np.random.randn(*shape)
        b = self.params[f"b{n}"] = np.zeros(units)
        self.layers.append(kind(W, b, *options))

    def predict(self, x, train_flg=False):
        for layer in self.layers:
            x = layer.forward(x, train_flg) if isinstance(layer, Dropout) else layer.forward(x)
        return x

    def loss(self, x, t):
        return self.last_layer.forward(self.predict(x, train_flg=True), t)

    def accuracy(self, x, t, batch_size=100):
        parts = range(0, len(x), batch_size)
        y = [self.predict(x[i : i + batch_size]).argmax(axis=1) for i in parts]
        return np.mean(np.concatenate(y) == t)

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.last_layer.backward(1)
        for layer in reversed(self.layers):
            dout = layer.backward(dout)
        grads, trained = {}, [layer for layer in self.layers if hasattr(layer, "W")]
        for n, layer in enumerate(trained, start=1):
            grads[f"W{n}"], grads[f"b{n}"] = layer.dW, layer.db
        return grads


class SimpleConvNet(ConvNet):
    def __init__(self):
        super().__init__()
        self.add(Convolution, 0.01, (30, 1, 5, 5))
        self.layers += [Relu(), Pooling(pool_h=2, pool_w=2, stride=2)]
        self.add(Affine, 0.01, (30 * 12 * 12, 100))
        self.layers.append(Relu())
        self.add(Affine, 0.01, (100, 10))


class DeepConvNet(ConvNet):
    def __init__(self):
        super().__init__()
        channels = 1
        for n, (filters, pad) in enumerate([(16, 1), (16, 1), (32, 1), (32, 2), (64, 1), (64, 1)]):
            std = np.sqrt(2.0 / (channels * 9))
            self.add(Convolution, std, (filters, channels, 3, 3), 1, pad)
            self.layers.append(Relu())
            if n % 2:
                self.layers.append(Pooling(pool_h=2, pool_w=2, stride=2))
            channels = filters
        self.add(Affine, np.sqrt(2.0 / 1024), (1024, 50))
        self.layers += [Relu(), Dropout(0.5)]
        self.add(Affine, np.sqrt(2.0 / 50), (50, 10))
        self.layers.append(Dropout(0.5))
