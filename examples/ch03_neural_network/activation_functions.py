"""Step, sigmoid, tanh and ReLU: what a neuron makes of the sum that reaches it.

Book, section 3.2; figures 3-6 to 3-9. They must not be straight lines: layers without one between
them do no more than a single layer would, since (x W1) W2 = x (W1 W2).
"""

import xpdl
from xpdl import functions, plots
from xpdl.cli.experiment import Experiment, run

FUNCTIONS = {
    "step": functions.step_function,
    "sigmoid": functions.sigmoid,
    "tanh": functions.tanh,
    "ReLU": functions.relu,
}


def main(experiment: Experiment) -> None:
    x = xpdl.asarray([-1.0, 1.0, 2.0], dtype="float64")
    experiment.record("step of (-1, 1, 2)", functions.step_function(x), "g", book="0, 1, 1")
    book = "0.26894142, 0.73105858, 0.88079708"
    experiment.record("sigmoid of (-1, 1, 2)", functions.sigmoid(x), ".8f", book=book)
    experiment.record("tanh of (-1, 1, 2)", functions.tanh(x), ".8f")
    experiment.record("ReLU of (-1, 1, 2)", functions.relu(x), "g")

    W1 = xpdl.asarray([[0.1, 0.3, 0.5], [0.2, 0.4, 0.6], [0.3, 0.5, 0.7]], dtype="float64")
    W2 = xpdl.asarray([[0.1, 0.4], [0.2, 0.5], [0.3, 0.6]], dtype="float64")
    gap = abs((x @ W1) @ W2 - x @ (W1 @ W2)).max()
    experiment.record("two layers without activation differ from one by", gap, ".1e")

    axis = xpdl.array_module(x).arange(-5, 5, 0.05, dtype="float32")
    lines = {name: (axis, f(axis)) for name, f in FUNCTIONS.items()}
    figure = plots.curves(lines, "activation functions", xlabel="x", ylabel="h(x)", ylim=(-1.1, 3))
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
