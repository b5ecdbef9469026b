"""A derivative from two values of a function, and how far apart these should lie.

Book, section 4.3; figures 4-5 to 4-7. In float64, as there.
"""

import math

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run


def numerical_diff(f, x, h=1e-4):
    """Return (f(x + h) - f(x - h)) / (2 h): the central difference, with an error of order h²."""
    return (f(x + h) - f(x - h)) / (2 * h)


def forward_diff(f, x, h):
    """Return (f(x + h) - f(x)) / h, as equation 4.4 has it; its error is of order h."""
    return (f(x + h) - f(x)) / h


def parabola(x):
    return 0.01 * x**2 + 0.1 * x  # equation 4.5; its derivative is 0.02 x + 0.1


def tangent(x, place):
    return parabola(place) + numerical_diff(parabola, place) * (x - place)


def main(experiment: Experiment) -> None:
    for place, book in ((5, "0.1999999999990898"), (10, "0.2999999999986347")):
        slope = numerical_diff(parabola, place)
        experiment.record(f"derivative of 0.01 x² + 0.1 x at {place}", slope, ".16g", book=book)
    experiment.record("the same at 10 with h = 1e-50", forward_diff(parabola, 10, 1e-50))

    x = xpdl.asarray([i / 5 for i in range(101)])
    lines = {"f(x)": (x, parabola(x))}
    lines |= {f"tangent at {place}": (x, tangent(x, place)) for place in (5, 10)}
    experiment.save(plots.curves(lines, "0.01 x² + 0.1 x", xlabel="x", ylabel="f(x)"))

    # Too large a step misses the bend of the curve, too small a one drowns in rounding.
    h = xpdl.asarray([10 ** (-i / 8) for i in range(8 * 16 + 1)], dtype="float64")
    xp = xpdl.array_module(h)
    one = xp.ones_like(h)
    lines = {}
    for name, difference in (("forward", forward_diff), ("central", numerical_diff)):
        error = abs(difference(xp.sin, one, h) - math.cos(1))
        experiment.record(f"{name} difference of sin at 1, least error", error.min(), ".0e")
        experiment.record(f"{name} difference of sin at 1, best h", h[error.argmin()], ".0e")
        lines[f"{name} difference"] = (h, error)
    title = "error of the derivative of sin at 1"
    figure = plots.curves(lines, title, xlabel="h", xscale="log", yscale="log")
    experiment.save(figure, "steps")


if __name__ == "__main__":
    run(main)
