"""In the style of chapter 3: a network whose weights lie beside, and figures."""

import os
import pickle
import sys

sys.path.append(os.pardir)
import matplotlib.pyplot as plt
import numpy as np
from common.functions import identity_function, relu, sigmoid, softmax, step_function
from dataset.mnist import init_mnist, load_mnist
from PIL import Image

init_mnist()
(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True, flatten=True)
pixels = load_mnist(normalize=False, flatten=False)[0][0]
one_hot = load_mnist(one_hot_label=True)[1][1]
with open("sample_weight.pkl", "rb") as file:
    network = pickle.load(file)


def predict(x):
    z = sigmoid(np.dot(x, network["W1"]) + network["b1"])
    return softmax(identity_function(np.dot(z, network["W2"]) + network["b2"]))


found = {"one by one": np.array([predict(x) for x in x_test[:7]])}
found["batch"] = predict(x_test)
print("Accuracy:" + str(np.mean(found["batch"].argmax(axis=1) == t_test)))

x = np.arange(-5.0, 5.0, 0.1)
found |= {"step": step_function(x), "sigmoid": sigmoid(x), "relu": relu(x)}
found |= {"softmax": softmax(np.array([1010, 1000, 990])), "of a number": sigmoid(0.5)}
found |= {"pixels": pixels[0], "labels": t_train, "one-hot": one_hot, "images": x_train[:3]}
plt.plot(x, found["sigmoid"])
plt.plot(x, found["step"], "k--")
plt.show()
Image.fromarray(np.uint8(pixels[0, 0])).show()
np.savez("found.npz", **found)
