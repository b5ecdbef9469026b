"""Logic gates from perceptrons: AND, NAND and OR from one, XOR from three.

Book, sections 2.3 to 2.5; figures 2-6 to 2-8 and 2-13.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run

INPUTS = [[0, 0], [1, 0], [0, 1], [1, 1]]
TRUTH = {"AND": [0, 0, 0, 1], "NAND": [1, 1, 1, 0], "OR": [0, 1, 1, 1], "XOR": [0, 1, 1, 0]}


def perceptron(x, w, b):
    """Return 1 where w1 x1 + w2 x2 + b > 0, else 0, for each row of x (n, 2); equation 2.2."""
    xp = xpdl.array_module(x)
    return (x @ xp.asarray(w, dtype=x.dtype) + b > 0).astype("int64")


def AND(x):
    return perceptron(x, (0.5, 0.5), -0.7)


def NAND(x):
    return perceptron(x, (-0.5, -0.5), 0.7)


def OR(x):
    return perceptron(x, (0.5, 0.5), -0.2)


def XOR(x):
    """One line cannot part the plane so; two layers of perceptrons can."""
    xp = xpdl.array_module(x)
    hidden = xp.stack([NAND(x), OR(x)], axis=1).astype(x.dtype)
    return AND(hidden)


def main(experiment: Experiment) -> None:
    gates = {"AND": AND, "NAND": NAND, "OR": OR, "XOR": XOR}
    x = xpdl.asarray(INPUTS, dtype="float32")
    for name, gate in gates.items():
        label = f"{name} of (0,0), (1,0), (0,1), (1,1)"
        experiment.record(label, gate(x), book=", ".join(map(str, TRUTH[name])))
    experiment.save(plots.decision_regions(gates, x, TRUTH, "what each gate answers"))


if __name__ == "__main__":
    run(main)
