"""In the style of chapter 6: optimizers, weights, batch normalisation, dropout, a search."""

import os
import sys
from collections import OrderedDict

sys.path.append(os.pardir)
import matplotlib.pyplot as plt
from common.layers import BatchNormalization, Dropout
from common.multi_layer_net import MultiLayerNet
from common.multi_layer_net_extend import MultiLayerNetExtend
from common.optimizer import *
from common.trainer import Trainer
from common.util import shuffle_dataset, smooth_curve
from dataset.mnist import load_mnist

np.random.seed(6)
found = {}

optimizers = OrderedDict()
optimizers["SGD"] = SGD(lr=0.95)
optimizers["Momentum"] = Momentum(lr=0.1, momentum=0.8)
optimizers["Nesterov"] = Nesterov(lr=0.1)
optimizers["AdaGrad"] = AdaGrad(lr=1.5)
optimizers["RMSprop"] = RMSprop(lr=0.1, decay_rate=0.9)
optimizers["Adam"] = Adam(lr=0.3, beta1=0.8, beta2=0.99)
for key, optimizer in optimizers.items():
    params = {"x": -7.0, "y": 2.0}  # plain numbers, as the book has them
    path = []
    for i in range(30):
        path.append([params["x"], params["y"]])
        optimizer.update(params, {"x": params["x"] / 10.0, "y": 2.0 * params["y"]})
    found[key] = path
    plt.plot(*np.array(path).T, "o-")
plt.show()

(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)
x_train, t_train = shuffle_dataset(x_train[:100], t_train[:100])
found["order"] = t_train

for name, options in {
    "he": {},
    "xavier": {"activation": "sigmoid", "weight_init_std": "sigmoid"},
    "std": {"weight_init_std": 0.01, "weight_decay_lambda": 0.1},
}.items():
    network = MultiLayerNet(784, [6, 5], 10, **options)
    trainer = Trainer(
        network, x_train, t_train, x_test, t_test, epochs=3, mini_batch_size=40,
        optimizer="RMSprop", optimizer_param={"lr": 0.01}, verbose=name == "he",
    )  # fmt: skip
    trainer.train()
    found[name + ", loss"] = trainer.train_loss_list
    found[name + ", accuracy"] = trainer.train_acc_list + trainer.test_acc_list
    found[name + ", smooth"] = smooth_curve(np.arange(12) ** 1.5)

for name, options in {
    "dropout": {"use_dropout": True, "dropout_ration": 0.2},
    "norm": {"use_batchnorm": True, "weight_decay_lambda": 0.01},
    "both": {"use_batchnorm": True, "use_dropout": True, "activation": "sigmoid"},
}.items():
    network = MultiLayerNetExtend(784, [6, 5], 10, **options)
    trainer = Trainer(
        network, x_train, t_train, x_test, t_test, epochs=2, mini_batch_size=40,
        optimizer="sgd", optimizer_param={"lr": 0.1}, evaluate_sample_num_per_epoch=30,
        verbose=False,
    )  # fmt: skip
    trainer.train_step()
    trainer.train_step()
    found[name + ", losses"] = trainer.train_loss_list
    found[name + ", scores"] = network.predict(x_test, train_flg=False)
    found[name + ", loss in training"] = network.loss(x_test, t_test, train_flg=True)
    found |= {f"{name}, {key}": g for key, g in network.gradient(x_test, t_test).items()}

net = MultiLayerNetExtend(4, [3], 2, use_batchnorm=True)
x, t = np.random.randn(6, 4), np.array([0, 1, 1, 0, 1, 0])
found |= {f"differences, {key}": g for key, g in net.numerical_gradient(x, t).items()}

layer = BatchNormalization(np.random.rand(12), np.random.rand(12), momentum=0.7)
images = np.random.randn(5, 3, 2, 2)
found["norm of images"] = layer.forward(images)
found["dx of images"] = layer.backward(np.random.randn(5, 3, 2, 2))
found |= {"dgamma": layer.dgamma, "dbeta": layer.dbeta, "mean": layer.running_mean}
found["norm at rest"] = layer.forward(images, train_flg=False)
drop = Dropout()
found["dropped"] = drop.forward(images)
found["kept"] = drop.forward(images, train_flg=False)
found["dropped back"] = drop.backward(images)
np.savez("found.npz", **found)
