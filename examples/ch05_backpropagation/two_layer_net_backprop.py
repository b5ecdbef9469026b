"""A network of two layers, built of layers like bricks, learns by backpropagation.

Book, section 5.7.4. Forward, the layers are called in their order; backward in the reverse.
"""

import numpy as np

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import Batches, load_mnist
from xpdl.layers import Affine, ReLU
from xpdl.losses import SoftmaxWithLoss


def predict(layers, x, train=False):
    for layer in layers.values():
        x = layer.forward(x, train)
    return x


def gradient(layers, last_layer, x, t):
    """Fill each layer's `grads`; return the loss."""
    loss = last_layer.forward(predict(layers, x, train=True), t)
    dout = last_layer.backward()
    for layer in reversed(layers.values()):
        dout = layer.backward(dout)
    return loss


def accuracy(layers, x, t):
    hits = (predict(layers, x).argmax(axis=1) == t).sum()
    return xpdl.get_backend().item(hits) / len(x)


def main(experiment: Experiment) -> None:
    steps = experiment.choose(quick=1200, full=10_000)
    learning_rate, batch_size = 0.1, 100
    layers = {
        "affine1": Affine(50, weight_init=0.01),
        "relu1": ReLU(),
        "affine2": Affine(10, weight_init=0.01),
    }
    shape: tuple[int, ...] = (784,)
    rng = np.random.default_rng(experiment.seed)
    for layer in layers.values():
        shape = layer.build(shape, rng)
    last_layer = SoftmaxWithLoss()

    dtype = layers["affine1"].params["W"].dtype
    train, test = ((x.astype(dtype), t) for x, t in load_mnist())
    batches = Batches(*train, batch_size, backend=xpdl.get_backend(), seed=experiment.seed)

    def both():
        return accuracy(layers, *train), accuracy(layers, *test)

    losses, accuracies = [], []
    for step, (x, t) in enumerate(batches.steps(steps)):
        if step % len(batches) == 0:
            accuracies.append(both())
        losses.append(gradient(layers, last_layer, x, t))
        for layer in layers.values():
            for name, parameter in layer.params.items():
                parameter -= learning_rate * layer.grads[name]
    accuracies.append(both())

    epochs = [*range(len(accuracies) - 1), steps / len(batches)]
    xp = xpdl.array_module(x)
    experiment.record("accuracy at first, training and test", accuracies[0], ".2%")
    experiment.record(f"accuracy after {steps:,} steps", accuracies[-1], ".2%")
    experiment.record("mean loss of the last 100 steps", xp.stack(losses[-100:]).mean(), ".3f")
    lines = zip(("training", "test"), zip(*accuracies, strict=True), strict=True)
    figure = plots.curves(
        {name: (epochs, line) for name, line in lines}, xlabel="epoch", ylabel="accuracy"
    )
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
