"""The book's deep network learns to read digits, from three seeds.

Book, section 8.1; figures 8-1 and 8-2. Six convolutions of 3x3, padded so that their output is as
large as their input, each pair pooled; two affine layers; dropout behind both. Drawn are the first
seed's curves, the digits that it misreads, and which it takes for which.
"""

import statistics

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.layers import Normalize
from xpdl.models import DeepConvNet
from xpdl.optimizers import Adam
from xpdl.runs import RECIPES

RECIPE = RECIPES["book"]


def save_figures(experiment, network, history, x, t):
    answers = network.predict(x).argmax(axis=1)
    wrong = answers != t
    labels, guesses = (xpdl.to_numpy(classes[wrong]).tolist() for classes in (t, answers))
    title = f"{len(t) - len(labels):,} of {len(t):,} right: "
    seen = [epoch.train_accuracy for epoch in history.epochs]
    unseen = [epoch.test_accuracy for epoch in history.epochs]
    experiment.save(plots.learning_curves(history.losses, seen, unseen))
    digits = plots.misclassified(x[wrong][:, 0], labels, guesses, title=title)
    experiment.save(digits, "misclassified")
    experiment.save(plots.confusion_matrix(t, answers), "confusion")


def main(experiment: Experiment) -> None:
    images, tested, epochs, seeds = experiment.choose(
        quick=(2000, 500, 1, 1), full=(60000, 10000, RECIPE.epochs, 3)
    )
    (x, t), (x_test, t_test) = xpdl.datasets.load_mnist(normalize=False, flatten=False)
    train, test = (x[:images], t[:images]), (x_test[:tested], t_test[:tested])
    pixels = test[0].astype("float32") / 255
    accuracies = []
    for seed in range(experiment.seed, experiment.seed + seeds):
        network = DeepConvNet(seed=seed, normalize=Normalize(255))
        trainer = xpdl.Trainer(
            network,
            train,
            test,
            optimizer=Adam(RECIPE.learning_rate),
            epochs=epochs,
            batch_size=RECIPE.batch_size,
            seed=seed,
            checkpoint=experiment.checkpoint(f"seed{seed}"),
        )
        history = experiment.fit(trainer)
        accuracies.append(network.accuracy(pixels, test[1]))
        experiment.record(f"test accuracy, seed {seed}", accuracies[-1], ".2%")
        if seed == experiment.seed:
            print(network.summary())
            save_figures(experiment, network, history, pixels, test[1])
    experiment.record("test accuracy, mean", statistics.mean(accuracies), ".2%", book="99.38 %")
    if seeds > 1:
        deviation = statistics.stdev(accuracies)
        experiment.record("test accuracy, standard deviation", deviation, ".3%")


if __name__ == "__main__":
    run(main)
