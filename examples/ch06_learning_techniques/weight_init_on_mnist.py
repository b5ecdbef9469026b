"""Three ways to begin, one network: too small weights do not learn, Xavier's and He's do.

Book, section 6.2.4; figure 6-15. A network of five layers with ReLU, 2,000 steps of SGD: five
epochs of the first 51,200 images in batches of 128.
"""

from typing import Any

from xpdl import Trainer, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.models import MultiLayerNet
from xpdl.optimizers import SGD

BATCH = 128


def main(experiment: Experiment) -> None:
    batches, epochs = experiment.choose(quick=(100, 3), full=(400, 5))
    (x, t), _ = load_mnist()
    train = x[: BATCH * batches], t[: BATCH * batches]
    beginnings: dict[str, str | float] = {"std 0.01": 0.01, "Xavier": "xavier", "He": "he"}
    losses = {}
    for name, weight_init in beginnings.items():
        seed = experiment.seed
        network = MultiLayerNet(784, [100] * 4, 10, weight_init_std=weight_init, seed=seed)
        options: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": BATCH,
            "seed": seed,
            "progress": False,
        }
        losses[name] = Trainer(network, train, optimizer=SGD(0.01), **options).fit().losses
        last = losses[name][-100:]
        experiment.record(f"mean loss of the last 100 steps, {name}", sum(last) / 100, ".3f")
    figure = plots.curves(losses, xlabel="step", ylabel="loss", smooth=30, ylim=(0, 2.5))
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
