"""Response normalisation, as AlexNet has it: what it does for a small network's accuracy.

Book, section 8.2.1, and 7.7.2 for AlexNet. Three convolutions learn 5,000 pictures of CIFAR-10 for
ten epochs, with local response normalisation behind the first two and without, from five seeds
each. AlexNet's paper found 11 % of errors with it and 13 % without in four layers, on all 50,000.
The pictures are fetched from their publisher; the variable XPDL_CIFAR10 may name a folder of them
instead, train/<class>/ and test/<class>/, as JPEG if need be, which loses a little.
"""

import os

import numpy as np

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets.augmentation import Compose, Crop, Flip
from xpdl.layers import (
    Affine,
    Convolution,
    LocalResponseNormalization,
    MaxPooling,
    Normalize,
    ReLU,
)
from xpdl.network import Network
from xpdl.optimizers import Adam


def make_network(normalized, seed):
    """Return conv 64@5x5, relu, pool, norm twice, conv 64@3x3, relu, pool, affine."""
    layers = []
    for size in (5, 5, 3):
        layers += [Convolution(64, size, pad=size // 2), ReLU()]
        layers.append(MaxPooling(3, 2, 1, remainder="drop"))
        if normalized and size == 5:
            # The paper's alpha, 0.0001, is for what pixels from 0 to 255 become; here they are
            # about 1, and it would be nothing beside the bias.
            layers.append(LocalResponseNormalization(size=9, bias=1, alpha=0.01, beta=0.75))
    normalize = Normalize(255, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26))
    return Network([*layers, Affine(10)], (3, 32, 32), normalize=normalize, seed=seed)


def main(experiment: Experiment) -> None:
    count, tested, seeds, epochs = experiment.choose(
        quick=(20, 20, 1, 2), full=(5000, 10000, 5, 10)
    )
    data = xpdl.datasets.load(os.environ.get("XPDL_CIFAR10", "cifar-10"))
    generator = np.random.default_rng(experiment.seed)
    chosen = generator.permutation(len(data.train[1]))[:count]
    x, t = data.train[0][chosen], data.train[1][chosen]
    assert data.test is not None
    order = generator.permutation(len(data.test[1]))[:tested]
    x_test, t_test = data.test[0][order], data.test[1][order]
    curves = {}
    for name, normalized in (("with normalisation", True), ("without", False)):
        losses, accuracies = [], []
        for seed in range(experiment.seed, experiment.seed + seeds):
            network = make_network(normalized, seed)
            trainer = xpdl.Trainer(
                network,
                (x, t),
                optimizer=Adam(0.002),
                schedule="one-cycle",
                epochs=epochs,
                batch_size=min(100, count),
                seed=seed,
                augment=Compose([Flip(), Crop(pad=4)]),
            )
            losses.append([epoch.loss for epoch in experiment.fit(trainer).epochs])
            accuracies.append(network.accuracy(xpdl.asarray(x_test), t_test))
        curves[name] = np.mean(losses, axis=0)
        experiment.record(f"test accuracy, {name}, each seed", accuracies, ".1%")
        experiment.record(f"test accuracy, {name}, mean", np.mean(accuracies), ".1%")
        spread = np.std(accuracies, ddof=1) if seeds > 1 else 0.0
        experiment.record(f"standard deviation, {name}", spread, ".1%")
    title = f"Local response normalisation: {count:,} pictures of CIFAR-10"
    experiment.save(plots.curves(curves, title, xlabel="epoch", ylabel="loss, mean of the seeds"))


if __name__ == "__main__":
    run(main)
