"""The book's training loop."""

import numpy as np

import common.optimizer

BY_NAME = {name.lower(): kind for name, kind in vars(common.optimizer).items()}


class Trainer:
    def __init__(self, network, x_train, t_train, x_test, t_test, epochs=20, mini_batch_size=100,
                 optimizer="SGD", optimizer_param={"lr": 0.01},  # noqa: B006
                 evaluate_sample_num_per_epoch=None, verbose=True):  # fmt: skip
        self.network, self.batch_size = network, mini_batch_size
        self.train_data, self.test_data = (x_train, t_train), (x_test, t_test)
        self.steps_per_epoch = max(len(x_train) / mini_batch_size, 1)
        self.steps, self.step = int(epochs * self.steps_per_epoch), 0
        self.optimizer = BY_NAME[optimizer.lower()](**optimizer_param)
        self.looked_at, self.verbose = evaluate_sample_num_per_epoch, verbose
        self.train_loss_list, self.train_acc_list, self.test_acc_list = [], [], []

    def train_step(self):
        rows = np.random.choice(len(self.train_data[0]), self.batch_size)
        x, t = (a[rows] for a in self.train_data)
        self.optimizer.update(self.network.params, self.network.gradient(x, t))
        self.train_loss_list.append(self.network.loss(x, t))
        self.tell("train loss:" + str(self.train_loss_list[-1]))
        if self.step % self.steps_per_epoch == 0:
            train, test = (self.network.accuracy(*(a[: self.looked_at] for a in data))
                           for data in (self.train_data, self.test_data))  # fmt: skip
            self.train_acc_list.append(train)
            self.test_acc_list.append(test)
            epoch = len(self.test_acc_list)
            self.tell(f"=== epoch:{epoch}, train acc:{train!s}, test acc:{test!s} ===")
        self.step += 1

    def train(self):
        for _ in range(self.steps):
            self.train_step()
        self.tell("=============== Final Test Accuracy ===============")
        self.tell("test acc:" + str(self.network.accuracy(*self.test_data)))

    def tell(self, text):
        if self.verbose:
            print(text)
