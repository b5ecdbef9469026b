"""The steps of the book's Trainer, and no more."""

import numpy as np
from common.optimizer import Adam


class Trainer:
    def __init__(self, network, x_train, t_train, x_test, t_test, epochs=20, mini_batch_size=100,
                 optimizer="Adam", optimizer_param=None, evaluate_sample_num_per_epoch=None,
                 verbose=True):  # fmt: skip
        assert optimizer == "Adam"
        self.network, self.x_train, self.t_train = network, x_train, t_train
        self.batch_size, self.optimizer = mini_batch_size, Adam(**(optimizer_param or {}))
        self.train_loss_list = []

    def train_step(self):
        rows = np.random.choice(len(self.x_train), self.batch_size)
        x, t = self.x_train[rows], self.t_train[rows]
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        self.train_loss_list.append(self.network.loss(x, t))
