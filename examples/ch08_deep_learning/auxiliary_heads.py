"""GoogLeNet's heads on the way: what their losses do for the answer at the end.

Book, section 8.2.3. GoogLeNet, in the form that is normalised by batch, learns 3,000 pictures of
CIFAR-10 for eight epochs, with the two auxiliary heads, whose losses count 0.3, and without, from
five seeds each. The answer is that of the last head alone.
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
from xpdl.models import GoogLeNet
from xpdl.optimizers import Adam


def main(experiment: Experiment) -> None:
    count, tested, seeds, epochs = experiment.choose(quick=(10, 20, 1, 2), full=(3000, 10000, 5, 8))
    data = xpdl.datasets.load(os.environ.get("XPDL_CIFAR10", "cifar-10"))
    generator = np.random.default_rng(experiment.seed)
    chosen = generator.permutation(len(data.train[1]))[:count]
    x, t = data.train[0][chosen], data.train[1][chosen]
    assert data.test is not None
    order = generator.permutation(len(data.test[1]))[:tested]
    x_test, t_test = data.test[0][order], data.test[1][order]
    curves = {}
    for name, heads in (("with heads", True), ("without", False)):
        learned, accuracies = [], []
        for seed in range(experiment.seed, experiment.seed + seeds):
            network = GoogLeNet(
                (3, 32, 32),
                10,
                form="torchvision",
                heads=heads,
                normalize=Normalize(255, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
                seed=seed,
            )
            trainer = xpdl.Trainer(
                network,
                (x, dict.fromkeys(("y", "aux1", "aux2"), t) if heads else t),
                optimizer=Adam(0.001),
                schedule="one-cycle",
                epochs=epochs,
                batch_size=min(50, count),
                seed=seed,
                augment=Compose([Flip(), Crop(pad=4)]),
            )
            history = experiment.fit(trainer)
            learned.append([epoch.train_accuracy or 0.0 for epoch in history.epochs])
            scores = network.predict(xpdl.asarray(x_test))
            scores = xpdl.to_numpy(scores["y"] if heads else scores)
            accuracies.append(float((scores.argmax(axis=1) == t_test).mean()))
        curves[name] = np.mean(learned, axis=0)
        experiment.record(f"test accuracy, {name}, each seed", accuracies, ".1%")
        experiment.record(f"test accuracy, {name}, mean", np.mean(accuracies), ".1%")
        spread = np.std(accuracies, ddof=1) if seeds > 1 else 0.0
        experiment.record(f"standard deviation, {name}", spread, ".1%")
    title = f"Auxiliary heads in GoogLeNet: {count:,} pictures of CIFAR-10"
    experiment.save(
        plots.curves(curves, title, xlabel="epoch", ylabel="accuracy on the training pictures")
    )


if __name__ == "__main__":
    run(main)
