"""In the style of chapter 5: backpropagation against differences, and a training."""

import os
import sys

sys.path.append(os.pardir)
import numpy as np
from dataset.mnist import load_mnist
from two_layer_net import TwoLayerNet

np.random.seed(5)
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, one_hot_label=True)
network = TwoLayerNet(input_size=784, hidden_size=5, output_size=10)

x_batch, t_batch = x_train[:3], t_train[:3]
grad_numerical = network.numerical_gradient(x_batch, t_batch)
grad_backprop = network.gradient(x_batch, t_batch)
found = {"dx": network.dx}
for key in grad_numerical:
    diff = np.average(np.abs(grad_backprop[key] - grad_numerical[key]))
    print(key + ":" + str(diff))
    found[key] = grad_backprop[key]
    found["difference of " + key] = diff

for i in range(20):
    batch_mask = np.random.choice(len(x_train), 50)
    grad = network.gradient(x_train[batch_mask], t_train[batch_mask])
    for key in ("W1", "b1", "W2", "b2"):
        network.params[key] -= 0.1 * grad[key]
found["scores"] = network.predict(x_test)

images = x_test[:4].reshape(4, 1, 28, 28)  # flattened by the layer
found["of images"] = network.predict(images)
network.gradient(images, t_test[:4])
found["dx of images"] = network.dx
np.savez("found.npz", **found)
