"""Few images, many weights: the network learns them by heart, unless large weights cost something.

Book, sections 6.4.1 and 6.4.2; figures 6-20 and 6-21. 300 images, seven layers, SGD; weight decay
adds lambda/2 sum W² to the loss.
"""

from typing import Any

from xpdl import Trainer, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.models import MultiLayerNet
from xpdl.optimizers import SGD


def main(experiment: Experiment) -> None:
    epochs, tests = experiment.choose(quick=(60, 500), full=(201, 10_000))
    (x, t), (x_test, t_test) = load_mnist()
    train, test = (x[:300], t[:300]), (x_test[:tests], t_test[:tests])
    panels = {}
    for decay, book in ((0.0, "100 %"), (0.1, "below 100 %")):
        network = MultiLayerNet(784, [100] * 6, 10, weight_decay_lambda=decay, seed=experiment.seed)
        options: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": 100,
            "seed": experiment.seed,
            "progress": False,
        }
        history = Trainer(network, train, test, optimizer=SGD(0.01), **options).fit().epochs
        name = f"weight decay {decay:g}"
        panels[name] = {
            "training": [epoch.train_accuracy for epoch in history],
            "test": [epoch.test_accuracy for epoch in history],
        }
        last, last_test = network.accuracy(*train), network.accuracy(*test)
        experiment.record(f"training accuracy, {name}", last, ".2%", book=book)
        experiment.record(f"test accuracy, {name}", last_test, ".2%")
        experiment.record(f"training less test accuracy, {name}", last - last_test, ".2%")
    experiment.save(plots.curve_grid(panels, xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02)))


if __name__ == "__main__":
    run(main)
