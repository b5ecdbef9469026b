"""In the style of chapter 8: a deep network trained, its mistakes, and half precision."""

import os
import sys

sys.path.append(os.pardir)
import matplotlib.pyplot as plt
import numpy as np
from common.trainer import Trainer
from dataset.mnist import load_mnist
from deep_convnet import DeepConvNet

np.random.seed(8)
(x_train, t_train), (x_test, t_test) = load_mnist(flatten=False)
network = DeepConvNet()
trainer = Trainer(
    network, x_train, t_train, x_test, t_test, epochs=1, mini_batch_size=50, optimizer="Adam",
    optimizer_param={"lr": 0.001}, evaluate_sample_num_per_epoch=20, verbose=False,
)  # fmt: skip
trainer.train()
network.save_params("deep_convnet_params.pkl")

network = DeepConvNet()
network.load_params("deep_convnet_params.pkl")
scores = network.predict(x_test, train_flg=False)
found = {"losses": trainer.train_loss_list, "scores": scores}
mistakes = np.flatnonzero(scores.argmax(axis=1) != t_test)
for place, i in enumerate(mistakes[:4]):
    plt.subplot(2, 2, place + 1)
    plt.imshow(x_test[i].reshape(28, 28), cmap=plt.cm.gray_r, interpolation="nearest")
plt.show()

for param in network.params.values():
    param[...] = param.astype(np.float16)
found["half"] = network.predict(x_test.astype(np.float16))
print(network.accuracy(x_test.astype(np.float16), t_test))
np.savez("found.npz", **found)
