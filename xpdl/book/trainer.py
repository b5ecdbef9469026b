"""The book's ``common.trainer``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xpdl.backends import Array
from xpdl.book.optimizer import SGD, AdaGrad, Adam, Momentum, Nesterov, Optimizer, RMSprop

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "Trainer", "np"]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "rmsprpo": RMSprop,  # as the book spells it
    "adam": Adam,
}


class Trainer:
    """Train a network of the book on batches drawn with `np.random.choice`.

    Parameters
    ----------
    network : object
        With `params`, `gradient(x, t)`, `loss(x, t)` and `accuracy(x, t)`.
    x_train, t_train, x_test, t_test : array
        Examples and their targets.
    epochs, mini_batch_size : int
    optimizer : str
        A name such as ``"SGD"``, in upper or lower case; `optimizer_param` is what it is made with.
    evaluate_sample_num_per_epoch : int, optional
        How many of the first examples accuracy is measured on after an epoch; all by default.
    verbose : bool
        Whether to print losses and accuracies.
    """

    def __init__(
        self,
        network: Any,
        x_train: Array,
        t_train: Array,
        x_test: Array,
        t_test: Array,
        epochs: int = 20,
        mini_batch_size: int = 100,
        optimizer: str = "SGD",
        optimizer_param: Mapping[str, float] | None = None,
        evaluate_sample_num_per_epoch: int | None = None,
        verbose: bool = True,
    ) -> None:
        self.network = network
        self.x_train, self.t_train = x_train, t_train
        self.x_test, self.t_test = x_test, t_test
        self.epochs, self.batch_size = epochs, mini_batch_size
        self.evaluate_sample_num_per_epoch = evaluate_sample_num_per_epoch
        self.verbose = verbose
        if optimizer.lower() not in OPTIMIZERS:
            names = ", ".join(kind.__name__ for kind in dict.fromkeys(OPTIMIZERS.values()))
            raise ValueError(f"optimizer must be one of {names}; got {optimizer!r}.")
        options = {"lr": 0.01} if optimizer_param is None else optimizer_param
        self.optimizer = OPTIMIZERS[optimizer.lower()](**options)
        self.train_size = x_train.shape[0]
        self.iter_per_epoch = max(self.train_size / mini_batch_size, 1)
        self.max_iter = int(epochs * self.iter_per_epoch)
        self.current_iter = 0
        self.current_epoch = 0
        self.train_loss_list: list[Any] = []
        self.train_acc_list: list[Any] = []
        self.test_acc_list: list[Any] = []

    def train_step(self) -> None:
        """Take one step, and measure the loss after it; at an epoch's first, accuracy as well."""
        rows = np.random.choice(self.train_size, self.batch_size)
        x, t = self.x_train[rows], self.t_train[rows]
        grads = self.network.gradient(x, t)
        self.optimizer.update(self.network.params, grads)
        loss = self.network.loss(x, t)
        self.train_loss_list.append(loss)
        self._say(f"train loss:{loss!s}")
        if self.current_iter % self.iter_per_epoch == 0:
            self._evaluate()
        self.current_iter += 1

    def _evaluate(self) -> None:
        self.current_epoch += 1
        part = slice(self.evaluate_sample_num_per_epoch)
        train = self.network.accuracy(self.x_train[part], self.t_train[part])
        test = self.network.accuracy(self.x_test[part], self.t_test[part])
        self.train_acc_list.append(train)
        self.test_acc_list.append(test)
        self._say(f"=== epoch:{self.current_epoch}, train acc:{train!s}, test acc:{test!s} ===")

    def train(self) -> None:
        """Take all steps, and measure accuracy on the test examples."""
        for _ in range(self.max_iter):
            self.train_step()
        accuracy = self.network.accuracy(self.x_test, self.t_test)
        self._say("=============== Final Test Accuracy ===============")
        self._say(f"test acc:{accuracy!s}")

    def _say(self, text: str) -> None:
        if self.verbose:
            print(text)
