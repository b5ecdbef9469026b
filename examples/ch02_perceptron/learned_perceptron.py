"""A perceptron finds AND, NAND and OR by itself, from their truth tables, but never XOR.

Book, section 2.4; figures 2-6 to 2-8. There a person chooses the weights; here Rosenblatt's rule of
1958 does, which stops at the first line that parts the classes, and finds one if there is any.
"""

import random

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run

INPUTS = [[0, 0], [1, 0], [0, 1], [1, 1]]
TRUTH = {"AND": [0, 0, 0, 1], "NAND": [1, 1, 1, 0], "OR": [0, 1, 1, 1], "XOR": [0, 1, 1, 0]}
RATE = 0.1


def with_ones(x):
    """Return x (n, 2) with a third column of ones, so that the third weight is the bias."""
    xp = xpdl.array_module(x)
    return xp.concatenate([x, xp.ones((len(x), 1), dtype=x.dtype)], axis=1)


def learn(x, t, w, epochs):
    """Return the weights (3,) that the rule makes of w, and how many mistakes each epoch had.

    w <- w + rate (t - y) x, one example after the other: nothing where the answer y is right.
    """
    xp = xpdl.array_module(x)
    mistakes = []
    for _ in range(epochs):
        errors = []
        for x_n, t_n in zip(with_ones(x), t, strict=True):
            errors.append(t_n - (x_n @ w > 0).astype(x.dtype))
            w = w + RATE * errors[-1] * x_n
        mistakes.append(abs(xp.stack(errors)).sum())
    return w, xpdl.to_numpy(xp.stack(mistakes)).astype(int).tolist()


def classifier(w):
    return lambda x: (with_ones(x) @ w.astype(x.dtype) > 0).astype("int64")


def main(experiment: Experiment) -> None:
    epochs = experiment.choose(quick=100, full=1000)
    x, start = xpdl.asarray(INPUTS, dtype="float32"), random.Random(experiment.seed)
    gates, panels = {}, {}
    for name, table in TRUTH.items():
        t = xpdl.asarray(table, dtype="float32")
        w = xpdl.asarray([start.gauss(0, 1) for _ in range(3)], dtype="float32")
        w, mistakes = learn(x, t, w, epochs)
        gates[name], panels[name] = classifier(w), {"mistakes": mistakes[:60]}
        experiment.record(f"{name}: what it answers", gates[name](x))
        experiment.record(f"{name}: mistakes in the last of {epochs} epochs", mistakes[-1])
        if 0 in mistakes:
            experiment.record(f"{name}: epochs until none is wrong", mistakes.index(0))
        else:
            experiment.record(f"{name}: fewest mistakes in an epoch", min(mistakes))
    experiment.save(plots.decision_regions(gates, x, TRUTH, "what each perceptron has learned"))
    figure = plots.curve_grid(panels, xlabel="epoch", ylabel="mistakes of 4", ylim=(-0.2, 4.2))
    experiment.save(figure, "mistakes")


if __name__ == "__main__":
    run(main)
