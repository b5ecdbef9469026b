"""Softmax turns scores into probabilities, and must not overflow on the way.

Book, section 3.5; equations 3.10 and 3.11. In float64, as there.
"""

import warnings

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.functions import softmax


def naive_softmax(a):
    """Return y_k = exp(a_k) / sum_i exp(a_i), as equation 3.10 has it."""
    xp = xpdl.array_module(a)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # on the CPU, of what this is to show
        return xp.exp(a) / xp.exp(a).sum()


def main(experiment: Experiment) -> None:
    scores = xpdl.asarray([0.3, 2.9, 4.0], dtype="float64")
    large = xpdl.asarray([1010.0, 1000.0, 990.0], dtype="float64")
    record = experiment.record
    book = "0.01821127, 0.24519181, 0.73659691"
    record("softmax of (0.3, 2.9, 4.0)", softmax(scores), ".8f", book=book)
    record("their sum", softmax(scores).sum(), ".8f", book="1.0")
    record("of (1010, 1000, 990) by the formula", naive_softmax(large), book="nan, nan, nan")
    book = "9.99954600e-01, 4.53978686e-05, 2.06106005e-09"
    record("with the maximum taken off", softmax(large), ".8e", book=book)

    thirds = [i / 10 for i in range(-20, 81)]
    y = softmax(xpdl.asarray([[0.3, 2.9, third] for third in thirds]))
    lines = {
        f"of the score {name}": (thirds, y[:, k]) for k, name in enumerate(("0.3", "2.9", "a"))
    }
    title = "softmax of (0.3, 2.9, a): always 1 in all"
    experiment.save(plots.curves(lines, title, xlabel="a", ylabel="probability"))


if __name__ == "__main__":
    run(main)
