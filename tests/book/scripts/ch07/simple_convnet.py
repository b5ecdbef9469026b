"""In the style of chapter 7: a convolutional network, saved and read."""

import os
import pickle
import sys
from collections import OrderedDict

sys.path.append(os.pardir)
import numpy as np
from common.gradient import numerical_gradient
from common.layers import Affine, Convolution, Pooling, Relu, SoftmaxWithLoss
from common.util import conv_output_size


class SimpleConvNet:
    def __init__(self, input_dim, conv_param, hidden_size, output_size, weight_init_std=0.01):
        filters, size = conv_param["filter_num"], conv_param["filter_size"]
        stride, pad = conv_param["stride"], conv_param["pad"]
        side = int(conv_output_size(input_dim[1], size, stride, pad)) // 2
        shapes = [(filters, input_dim[0], size, size), (filters * side**2, hidden_size)]
        shapes.append((hidden_size, output_size))
        self.params = {}
        for n, shape in enumerate(shapes, start=1):
            self.params["W" + str(n)] = weight_init_std * np.random.randn(*shape)
            self.params["b" + str(n)] = np.zeros(shape[0] if n == 1 else shape[1])
        p = self.params
        self.layers = OrderedDict()
        self.layers["Conv1"] = Convolution(p["W1"], p["b1"], stride, pad)
        self.layers["Relu1"] = Relu()
        self.layers["Pool1"] = Pooling(pool_h=2, pool_w=2, stride=2)
        self.layers["Affine1"] = Affine(p["W2"], p["b2"])
        self.layers["Relu2"] = Relu()
        self.layers["Affine2"] = Affine(p["W3"], p["b3"])
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        return self.last_layer.forward(self.predict(x), t)

    def accuracy(self, x, t, batch_size=20):
        hits = 0.0
        for i in range(int(x.shape[0] / batch_size)):
            part = slice(i * batch_size, (i + 1) * batch_size)
            hits += np.sum(np.argmax(self.predict(x[part]), axis=1) == t[part])
        return hits / x.shape[0]

    def numerical_gradient(self, x, t):
        return {
            name: numerical_gradient(lambda w: self.loss(x, t), p)
            for name, p in self.params.items()
        }

    def gradient(self, x, t):
        self.loss(x, t)
        dout = self.last_layer.backward(1)
        for layer in reversed(list(self.layers.values())):
            dout = layer.backward(dout)
        self.dx = dout
        grads = {}
        for n, name in enumerate(["Conv1", "Affine1", "Affine2"], start=1):
            grads["W" + str(n)] = self.layers[name].dW
            grads["b" + str(n)] = self.layers[name].db
        return grads

    def save_params(self, file_name="params.pkl"):
        with open(file_name, "wb") as f:
            pickle.dump(dict(self.params), f)

    def load_params(self, file_name="params.pkl"):
        with open(file_name, "rb") as f:
            params = pickle.load(f)
        for key, val in params.items():
            self.params[key] = val
        for n, key in enumerate(["Conv1", "Affine1", "Affine2"], start=1):
            self.layers[key].W = self.params["W" + str(n)]
            self.layers[key].b = self.params["b" + str(n)]
