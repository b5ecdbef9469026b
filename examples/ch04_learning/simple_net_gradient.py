"""The gradient of a network's loss by its weights, numerical and by backpropagation.

Book, section 4.4.2. One matrix of weights, two inputs, three classes; in float64, as there.
"""

from functools import partial

import xpdl
from xpdl import numerical_gradient, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.layers import Affine

array = partial(xpdl.asarray, dtype="float64")


def main(experiment: Experiment) -> None:
    W = array([[0.47355232, 0.9977393, 0.84668094], [0.85557411, 0.03563661, 0.69422093]])
    x, t = array([[0.6, 0.9]]), array([[0.0, 0.0, 1.0]])
    network = xpdl.Network([Affine(W)], input_shape=2, dtype="float64")  # softmax and cross entropy
    W = network.params["affine1.W"]
    experiment.record(
        "scores", network.predict(x)[0], ".8f", book="1.05414809, 0.63071653, 1.1328074"
    )
    experiment.record("loss", network.loss(x, t), ".8f", book="0.92806854")

    numerical = numerical_gradient(lambda W: network.loss(x, t), W)
    computed = network.gradient(x, t)["affine1.W"].copy()
    book = "(0.219, 0.144, -0.363), (0.329, 0.215, -0.544)"
    experiment.record("numerical gradient", numerical, ".8f", book=book)
    experiment.record("by backpropagation, it differs by", abs(numerical - computed).max(), ".1e")

    # Against the gradient the loss falls: at first as steeply as the gradient says, then less.
    start, before = W.copy(), network.loss(x, t)
    slope = (computed * computed).sum()
    steps = [i / 20 for i in range(61)]
    losses, promised = [], []
    for step in steps:
        W[...] = start - step * computed
        losses.append(network.loss(x, t))
        promised.append(before - step * slope)
    stack = xpdl.array_module(W).stack
    lines = {"loss": (steps, stack(losses)), "as the gradient says": (steps, stack(promised))}
    title = "loss at W - lr dL/dW"
    experiment.save(plots.curves(lines, title, xlabel="lr", ylabel="loss", ylim=(0, 1)))


if __name__ == "__main__":
    run(main)
