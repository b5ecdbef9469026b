"""Batch normalisation: learning that hardly depends on the scale of the first weights.

Book, section 6.3.2; figures 6-18 and 6-19. 1,000 images, five hidden layers of 100, SGD, with and
without, for 16 standard deviations of the first weights from 1 down to 0.0001. Without it, the
largest let the loss overflow: nan, and no curve.
"""

import math
from typing import Any

from xpdl import Trainer, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.errors import DivergenceError
from xpdl.models import MultiLayerNet
from xpdl.optimizers import SGD


def learn(std, use_batchnorm, train, epochs, seed):
    """Return the accuracy on the training images at first and after each epoch that was made."""
    network = MultiLayerNet(
        784, [100] * 5, 10, weight_init_std=std, use_batchnorm=use_batchnorm, seed=seed
    )
    options: dict[str, Any] = {"epochs": epochs, "batch_size": 100, "seed": seed, "progress": False}
    accuracies = [network.accuracy(*train)]
    trainer = Trainer(network, train, train, optimizer=SGD(0.01), **options)
    try:
        trainer.fit()
    except DivergenceError as error:
        print(f"std {std:.4g}{' with' if use_batchnorm else ' without'} normalisation: {error}")
    return accuracies + [epoch.test_accuracy for epoch in trainer.history.epochs]


def main(experiment: Experiment) -> None:
    count, epochs = experiment.choose(quick=4, full=16), experiment.choose(quick=8, full=20)
    (x, t), _ = load_mnist()
    train = x[:1000], t[:1000]
    panels = {}
    for i in range(count):
        std = 10 ** (-4 * i / (count - 1))
        panels[f"std {std:.4g}"] = {
            name: learn(std, use_batchnorm, train, epochs, experiment.seed)
            for name, use_batchnorm in (("with normalisation", True), ("without", False))
        }
    for name in ("with normalisation", "without"):
        curves = [lines[name] for lines in panels.values()]
        last = [curve[-1] if len(curve) > epochs else math.nan for curve in curves]
        experiment.record(f"accuracy at the end by scale, {name}", last, ".0%")
        experiment.record(f"scales that reach 40 %, {name}", sum(a > 0.4 for a in last))
    figure = plots.curve_grid(
        panels,
        xlabel="epoch",
        ylabel="accuracy on the training images",
        ylim=(0, 1.02),
        ended="the loss overflowed",
    )
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
