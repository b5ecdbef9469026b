"""Losses: how wrong an answer is, as squared error and as cross entropy, alone and in a batch.

Book, section 4.2; figure 4-3. The right class is 2; the first answer gives it 0.6, the second 0.1.
"""

import math

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.functions import cross_entropy_error, one_hot, sum_squared_error


def main(experiment: Experiment) -> None:
    right = xpdl.asarray([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
    wrong = xpdl.asarray([0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0])
    batch = xpdl.array_module(right).stack([right, wrong])
    labels = xpdl.asarray([2, 2])
    t = one_hot(labels, 10)

    record = experiment.record
    record("squared error, 0.6 for the class", sum_squared_error(right, t[0]), ".4f", book="0.0975")
    record("squared error, 0.1 for the class", sum_squared_error(wrong, t[1]), ".4f", book="0.5975")
    record("cross entropy, 0.6", cross_entropy_error(right, t[0]), ".2f", book="0.51")
    record("cross entropy, 0.1", cross_entropy_error(wrong, t[1]), ".2f", book="2.30")
    record("cross entropy, 0.6, class number", cross_entropy_error(right, labels[0]), ".2f")
    record("squared error of the batch, the mean", sum_squared_error(batch, t), ".4f")
    record("cross entropy of the batch, one-hot", cross_entropy_error(batch, t), ".4f")
    record("cross entropy of the batch, class numbers", cross_entropy_error(batch, labels), ".4f")

    y = [i / 200 for i in range(1, 201)]
    lines = {
        "log y": (y, [math.log(p) for p in y]),
        "the loss, -log y": (y, [-math.log(p) for p in y]),
        "y = 0.6: 0.51": ([0.6, 0.6, 0], [0, -math.log(0.6), -math.log(0.6)]),
        "y = 0.1: 2.30": ([0.1, 0.1, 0], [0, -math.log(0.1), -math.log(0.1)]),
    }
    title = "cross entropy, by the probability y of the right class"
    experiment.save(plots.curves(lines, title, xlabel="y"))


if __name__ == "__main__":
    run(main)
