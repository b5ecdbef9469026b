"""More layers learn worse; a way around each block makes up for most of that.

Book, section 8.2.4. Networks of 20 and of 56 layers, with the ways around their blocks (ResNet-20,
ResNet-56) and without (plain-20, plain-56), learn 5,000 pictures of CIFAR-10 for eight epochs from
three seeds each: momentum (Nesterov), a rate that rises and falls, pictures mirrored and moved.
The pictures are fetched from their publisher; the variable XPDL_CIFAR10 may name a folder of them
instead, train/<class>/ and test/<class>/, as JPEG if need be, which loses a little.
"""

import os

import numpy as np

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets.augmentation import Compose, Crop, Flip
from xpdl.layers import Normalize
from xpdl.models import CifarResNet
from xpdl.optimizers import Nesterov


def main(experiment: Experiment) -> None:
    count, tested, seeds, depths, epochs = experiment.choose(
        quick=(20, 20, 1, (8, 14), 2), full=(5000, 10000, 3, (20, 56), 8)
    )
    data = xpdl.datasets.load(os.environ.get("XPDL_CIFAR10", "cifar-10"))
    generator = np.random.default_rng(experiment.seed)
    chosen = generator.permutation(len(data.train[1]))[:count]
    x, t = data.train[0][chosen], data.train[1][chosen]
    assert data.test is not None
    order = generator.permutation(len(data.test[1]))[:tested]
    x_test, t_test = data.test[0][order], data.test[1][order]
    curves = {}
    for plain in (True, False):
        for depth in depths:
            name = f"{'plain' if plain else 'ResNet'}-{depth}"
            learned, accuracies = [], []
            for seed in range(experiment.seed, experiment.seed + seeds):
                network = CifarResNet(
                    depth,
                    plain=plain,
                    normalize=Normalize(255, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
                    seed=seed,
                )
                trainer = xpdl.Trainer(
                    network,
                    (x, t),
                    optimizer=Nesterov(0.1, weight_decay=0.0005),
                    schedule="one-cycle",
                    epochs=epochs,
                    batch_size=min(100, count),
                    seed=seed,
                    augment=Compose([Flip(), Crop(pad=4)]),
                    checkpoint=experiment.checkpoint(f"{name}-{seed}"),
                )
                history = experiment.fit(trainer)
                learned.append([epoch.train_accuracy or 0.0 for epoch in history.epochs])
                accuracies.append(network.accuracy(xpdl.asarray(x_test), t_test))
            curves[name] = np.mean(learned, axis=0)
            experiment.record(f"accuracy on what it learns, {name}, mean", curves[name][-1], ".1%")
            experiment.record(f"test accuracy, {name}, each seed", accuracies, ".1%")
            experiment.record(f"test accuracy, {name}, mean", np.mean(accuracies), ".1%")
    title = f"Depth, with and without ways around: {count:,} pictures of CIFAR-10"
    experiment.save(
        plots.curves(curves, title, xlabel="epoch", ylabel="accuracy on the training pictures")
    )


if __name__ == "__main__":
    run(main)
