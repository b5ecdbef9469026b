"""Dropout against learning by heart: each step trains another part of the network.

Book, section 6.4.3; figure 6-23. 300 images, seven layers, SGD, with and without a share of 15 % of
the neurons dropped.
"""

from typing import Any

from xpdl import Trainer, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.models import MultiLayerNet
from xpdl.optimizers import SGD


def main(experiment: Experiment) -> None:
    epochs, tests = experiment.choose(quick=(60, 500), full=(301, 10_000))
    (x, t), (x_test, t_test) = load_mnist()
    train, test = (x[:300], t[:300]), (x_test[:tests], t_test[:tests])
    panels = {}
    for ratio, book in ((0.0, "100 %"), (0.15, "below 100 %")):
        network = MultiLayerNet(784, [100] * 6, 10, dropout_ratio=ratio, seed=experiment.seed)
        curves: dict[str, list[float]] = {"training": [], "test": []}

        def measure(trainer, epoch, curves=curves):
            """Measure on the training images too as at inference, where nothing is dropped."""
            curves["training"].append(trainer.network.accuracy(*train))
            curves["test"].append(epoch.test_accuracy)

        options: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": 100,
            "seed": experiment.seed,
            "progress": False,
        }
        Trainer(network, train, test, optimizer=SGD(0.01), callbacks=[measure], **options).fit()
        name = f"dropout {100 * ratio:.0f} %"
        panels[name] = curves
        last, last_test = curves["training"][-1], curves["test"][-1]
        experiment.record(f"training accuracy, {name}", last, ".2%", book=book)
        experiment.record(f"test accuracy, {name}", last_test, ".2%")
        experiment.record(f"training less test accuracy, {name}", last - last_test, ".2%")
    experiment.save(plots.curve_grid(panels, xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02)))


if __name__ == "__main__":
    run(main)
