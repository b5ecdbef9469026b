"""MNIST as the book gives it, from the files that xpdl has verified."""

import numpy as np

from xpdl.datasets import mnist


def init_mnist():
    mnist.read_mnist()


def load_mnist(normalize=True, flatten=True, one_hot_label=False):
    def prepare(images, labels):
        x = images.reshape(len(images), *((784,) if flatten else (1, 28, 28)))
        x = x.astype(np.float32) / 255.0 if normalize else x
        return x, np.eye(10)[labels] if one_hot_label else labels

    data = mnist.read_mnist()
    return prepare(data.x_train, data.t_train), prepare(data.x_test, data.t_test)
