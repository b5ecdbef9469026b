"""In the style of chapter 4: all by NumPy, which comes with the functions."""

import os
import sys

sys.path.append(os.pardir)
from common.functions import *
from common.gradient import numerical_gradient


class TwoLayerNet:
    def __init__(self, input_size, hidden_size, output_size, weight_init_std=0.01):
        self.params = {}
        self.params["W1"] = weight_init_std * np.random.randn(input_size, hidden_size)
        self.params["b1"] = np.zeros(hidden_size)
        self.params["W2"] = weight_init_std * np.random.randn(hidden_size, output_size)
        self.params["b2"] = np.zeros(output_size)

    def predict(self, x):
        z = sigmoid(np.dot(x, self.params["W1"]) + self.params["b1"])
        return softmax(np.dot(z, self.params["W2"]) + self.params["b2"])

    def loss(self, x, t):
        return cross_entropy_error(self.predict(x), t)

    def numerical_gradient(self, x, t):
        def loss(W):
            return self.loss(x, t)

        return {name: numerical_gradient(loss, p) for name, p in self.params.items()}

    def gradient(self, x, t):
        a = np.dot(x, self.params["W1"]) + self.params["b1"]
        z = sigmoid(a)
        dy = (self.predict(x) - t) / x.shape[0]
        da = sigmoid_grad(a) * np.dot(dy, self.params["W2"].T)
        return {
            "W1": np.dot(x.T, da),
            "b1": np.sum(da, axis=0),
            "W2": np.dot(z.T, dy),
            "b2": np.sum(dy, axis=0),
        }
