"""Arrays: arithmetic element by element, broadcasting, and curves drawn from numbers.

Book, sections 1.5 and 1.6; figures 1-1 to 1-4.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run


def main(experiment: Experiment) -> None:
    x, y = xpdl.asarray([1.0, 2.0, 3.0]), xpdl.asarray([2.0, 4.0, 6.0])
    experiment.record("(1, 2, 3) * (2, 4, 6)", x * y, "g", book="2, 8, 18")

    # The row is repeated for each row of A, without being copied.
    A, row = xpdl.asarray([[1.0, 2.0], [3.0, 4.0]]), xpdl.asarray([10.0, 20.0])
    experiment.record("((1, 2), (3, 4)) * (10, 20)", A * row, "g", book="(10, 40), (30, 80)")

    X = xpdl.asarray([[51, 55], [14, 19], [0, 4]])
    experiment.record("those of 51, 55, 14, 19, 0, 4 above 15", X[X > 15], book="51, 55, 19")

    xp = xpdl.array_module(x)
    angles = xp.arange(0, 6, 0.1, dtype=x.dtype)
    sine, cosine = xp.sin(angles), xp.cos(angles)
    experiment.record("sin² + cos² - 1, at most", abs(sine**2 + cosine**2 - 1).max(), ".1e")
    lines = {"sin": (angles, sine), "cos": (angles, cosine)}
    experiment.save(plots.curves(lines, "sin & cos", xlabel="x", ylabel="y"))


if __name__ == "__main__":
    run(main)
