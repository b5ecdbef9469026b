"""How fast the update rules learn handwritten digits, each from the same first weights.

Book, section 6.1.8; figure 6-9. A network of five layers, 2,000 steps: five epochs of the
first 51,200 images in batches of 128.
"""

from typing import Any

from xpdl import Trainer, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.models import MultiLayerNet
from xpdl.optimizers import SGD, AdaGrad, Adam, Momentum, RMSProp

BATCH = 128


def main(experiment: Experiment) -> None:
    batches, epochs = experiment.choose(quick=(100, 2), full=(400, 5))
    (x, t), _ = load_mnist()
    train = x[: BATCH * batches], t[: BATCH * batches]
    losses = {}
    for optimizer in (SGD(0.01), Momentum(0.01), AdaGrad(0.01), RMSProp(0.001), Adam(0.001)):
        network = MultiLayerNet(784, [100] * 4, 10, seed=experiment.seed)
        options: dict[str, Any] = {"epochs": epochs, "batch_size": BATCH, "seed": experiment.seed}
        trainer = Trainer(network, train, optimizer=optimizer, progress=False, **options)
        name = type(optimizer).__name__
        losses[name] = trainer.fit().losses
        last = losses[name][-100:]
        experiment.record(f"mean loss of the last 100 steps, {name}", sum(last) / 100, ".3f")
    figure = plots.curves(losses, xlabel="step", ylabel="loss", smooth=30, ylim=(0, 1))
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
