"""A small convolutional network learns to read digits, from three seeds.

Book, section 7.5; figure 7-23. One convolution of 30 filters 5x5, a pooling and two affine layers:
every pixel keeps its neighbours, which a network of affine layers alone throws away. Drawn are the
first seed's curves.
"""

import statistics

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.models import SimpleConvNet
from xpdl.optimizers import Adam


def main(experiment: Experiment) -> None:
    images, tested, epochs, seeds = experiment.choose(
        quick=(3000, 1000, 2, 1), full=(60000, 10000, 20, 3)
    )
    (x, t), (x_test, t_test) = xpdl.datasets.load_mnist(flatten=False)
    train, test = (x[:images], t[:images]), (x_test[:tested], t_test[:tested])
    known, unknown = [], []
    for seed in range(experiment.seed, experiment.seed + seeds):
        network = SimpleConvNet(seed=seed)
        trainer = xpdl.Trainer(
            network,
            train,
            test,
            optimizer=Adam(0.001),
            epochs=epochs,
            batch_size=100,
            seed=seed,
            checkpoint=experiment.checkpoint(f"seed{seed}"),
        )
        history = experiment.fit(trainer)
        known.append(network.accuracy(*train))
        unknown.append(network.accuracy(*test))
        if seed == experiment.seed:
            print(network.summary())
            learned = [epoch.train_accuracy for epoch in history.epochs]
            measured = [epoch.test_accuracy for epoch in history.epochs]
            title = f"SimpleConvNet on {images:,} digits"
            experiment.save(plots.learning_curves(history.losses, learned, measured, title))
    experiment.record("training accuracy", statistics.mean(known), ".2%", book="99.82 %")
    experiment.record("test accuracy", statistics.mean(unknown), ".2%", book="98.96 %")
    experiment.record("test accuracy of each seed", unknown, ".2%")


if __name__ == "__main__":
    run(main)
