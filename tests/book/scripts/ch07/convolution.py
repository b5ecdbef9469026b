"""In the style of chapter 7: windows, layers, a training, filters over a picture."""

import os
import sys

sys.path.append(os.pardir)
import numpy as np
from common.layers import Convolution, Pooling
from common.trainer import Trainer
from common.util import col2im, conv_output_size, im2col
from dataset.mnist import load_mnist
from simple_convnet import SimpleConvNet

np.random.seed(7)
x = np.random.rand(4, 3, 7, 7)
col = im2col(x, 5, 5, stride=1, pad=0)
found = {"col": col, "im": col2im(col, x.shape, 5, 5), "size": conv_output_size(28, 5, 2, 1)}
found["padded"] = im2col(x, 3, 3, 2, 1)
found["padded, back"] = col2im(found["padded"], x.shape, 3, 3, 2, 1)

for name, layer in {
    "conv": Convolution(np.random.randn(2, 3, 3, 3), np.random.randn(2)),
    "conv, stride": Convolution(np.random.randn(2, 3, 3, 3), np.random.randn(2), stride=2, pad=1),
    "conv, remainder": Convolution(np.random.randn(5, 3, 2, 2), 0, stride=3),
    "pool": Pooling(2, 2, stride=2),
    "pool, overlapping": Pooling(3, 2, stride=1),
    "pool, padded": Pooling(pool_h=2, pool_w=2, stride=2, pad=1),
}.items():
    y = layer.forward(x)
    found[name], found[name + ", dx"] = y, layer.backward(np.cos(y))
    if hasattr(layer, "dW"):
        found[name + ", dW"], found[name + ", db"] = layer.dW, layer.db

network = SimpleConvNet(
    input_dim=(1, 10, 10),
    conv_param={"filter_num": 3, "filter_size": 3, "pad": 0, "stride": 1},
    hidden_size=4, output_size=10, weight_init_std=0.01,
)  # fmt: skip
X, T = np.random.rand(100).reshape((1, 1, 10, 10)), np.array([1]).reshape((1, 1))
grad_num, grad = network.numerical_gradient(X, T), network.gradient(X, T)
for key in grad_num:
    print(key, np.abs(grad_num[key] - grad[key]).mean())
    found["check of " + key] = np.abs(grad_num[key] - grad[key]).mean()

(x_train, t_train), (x_test, t_test) = load_mnist(flatten=False)
network = SimpleConvNet(
    input_dim=(1, 28, 28),
    conv_param={"filter_num": 4, "filter_size": 5, "pad": 0, "stride": 1},
    hidden_size=8, output_size=10, weight_init_std=0.05,
)  # fmt: skip
trainer = Trainer(
    network, x_train, t_train, x_test, t_test, epochs=1, mini_batch_size=50, optimizer="Adam",
    optimizer_param={"lr": 0.001}, evaluate_sample_num_per_epoch=40,
)  # fmt: skip
trainer.train()
found["losses"] = trainer.train_loss_list
network.save_params("params.pkl")
filters = {name: p.copy() for name, p in network.params.items()}
found |= filters
network.params["W1"][...] = 0
network.load_params("params.pkl")
found["scores"] = network.predict(x_test)
picture = np.random.rand(1, 1, 30, 20)
w = network.params["W1"][0].reshape(1, 1, 5, 5)
found["filtered"] = Convolution(w, 0).forward(picture)
np.savez("found.npz", **found)
