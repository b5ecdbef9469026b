"""In the style of chapter 4: losses, differences, and a network that learns by them."""

import os
import sys

sys.path.append(os.pardir)
import numpy as np
from common.functions import (
    cross_entropy_error,
    relu_grad,
    sigmoid_grad,
    softmax_loss,
    sum_squared_error,
)
from common.gradient import numerical_gradient, numerical_gradient_2d
from dataset.mnist import load_mnist
from two_layer_net import TwoLayerNet

np.random.seed(4)
(x_train, t_train), _ = load_mnist(normalize=True, one_hot_label=True)

y, t = np.random.rand(5, 4), np.array([0, 3, 1, 1, 2])
one_hot = np.eye(4)[t]
X = np.random.randn(3, 2)


def f(x):
    return np.sum(x**2)


found = {
    "squared, one": sum_squared_error(y[0], one_hot[0]),
    "squared, batch": sum_squared_error(y, one_hot),
    "entropy, labels": cross_entropy_error(y, t),
    "entropy, one-hot": cross_entropy_error(y, one_hot),
    "entropy, one": cross_entropy_error(y[0], one_hot[0]),
    "entropy, one label": cross_entropy_error(y[0], np.array(3)),
    "softmax loss": softmax_loss(y, t),
    "sigmoid'": sigmoid_grad(X),
    "relu'": relu_grad(X),
    "gradient": numerical_gradient(f, np.array([3.0, 4.0])),
    "gradient, 3-D": numerical_gradient(f, np.random.rand(2, 3, 2)),
    "gradients": numerical_gradient_2d(f, X),
    "gradients, one": numerical_gradient_2d(f, X[0]),
}

network = TwoLayerNet(input_size=784, hidden_size=6, output_size=10)
losses = []
for i in range(20):
    batch_mask = np.random.choice(len(x_train), 50)
    x_batch, t_batch = x_train[batch_mask], t_train[batch_mask]
    grad = network.gradient(x_batch, t_batch)
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= 0.5 * grad[key]
    losses.append(network.loss(x_batch, t_batch))
found["losses"] = losses
small = TwoLayerNet(3, 2, 4)
found |= small.numerical_gradient(np.random.rand(2, 3), one_hot[:2])
np.savez("found.npz", **found)
