"""Backpropagation against numerical gradients: equal but for rounding, unless there is a mistake.

Book, section 5.7.3. The figure shows how far they are apart for other steps h of the numerical
gradient: its error falls with h squared until the rounding of the loss, divided by h, takes over.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.layers import Affine, Sigmoid
from xpdl.models import TwoLayerNet


class WrongSigmoid(Sigmoid):
    """Whose backward pass forgets the factor 1 - y."""

    def backward(self, dout):
        return dout * self.y


def main(experiment: Experiment) -> None:
    seed = experiment.seed
    (x, t), _ = load_mnist()
    x, t = x[:3].astype("float64"), t[:3]
    few = x.reshape(3, 28, 28)[:, 3::7, 3::7].reshape(3, 16)  # a few pixels, to be quicker

    hidden = experiment.choose(quick=2, full=50)
    network = TwoLayerNet(784, hidden, 10, seed=seed, dtype="float64")
    differences = xpdl.gradient_check(network, x, t)
    labels = {"affine1.W": "W1", "affine1.b": "b1", "affine2.W": "W2", "affine2.b": "b2"}
    book = {"W1": "2.2e-13", "b1": "9.7e-13", "W2": "8.4e-13", "b2": "1.2e-10"}
    for name, label in labels.items():
        experiment.record(f"mean difference, {label}", differences[name], ".1e", book=book[label])

    wrong = xpdl.Network([Affine(10), WrongSigmoid(), Affine(10)], 16, seed=seed, dtype="float64")
    mistake = xpdl.gradient_check(wrong, few, t)["affine1.W"]
    experiment.record("mean difference, W1, with a mistake in sigmoid's backward", mistake, ".1e")

    steps = [10.0**-k for k in range(1, 10, experiment.choose(quick=2, full=1))]
    small = TwoLayerNet(16, 8, 10, activation="sigmoid", seed=seed, dtype="float64")
    found = [xpdl.gradient_check(small, few, t, h) for h in steps]
    lines = {labels[name]: (steps, [gaps[name] for gaps in found]) for name in labels}
    experiment.record("W1 for h = 0.1 to 1e-9", lines["W1"][1], ".0e")
    figure = plots.curves(
        lines,
        "backpropagation and numerical gradients",
        xlabel="h",
        ylabel="mean absolute difference",
        xscale="log",
        yscale="log",
    )
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
