"""The gradient of f = x0² + x1²: all partial derivatives, and arrows to where f falls.

Book, sections 4.3.3 and 4.4; figures 4-8 and 4-9.
"""

import xpdl
from xpdl import numerical_gradient, plots
from xpdl.cli.experiment import Experiment, run


def f(x):
    """Return the sum of squares; equation 4.6."""
    return (x * x).sum()


def main(experiment: Experiment) -> None:
    for place, book in (((3, 4), "6, 8"), ((0, 2), "0, 4"), ((3, 0), "6, 0")):
        gradient = numerical_gradient(f, xpdl.asarray(place, dtype="float64"))
        experiment.record(f"gradient at {place}", gradient, ".4f", book=book)

    steps = [i / 4 for i in range(-8, 10)]
    places = xpdl.asarray([(x0, x1) for x1 in steps for x0 in steps], dtype="float64")
    # f adds up over all places, so the gradient by a place is that of its own two numbers.
    downhill = -numerical_gradient(f, places)
    (x0, x1), (u, v) = places.T, downhill.T
    experiment.save(plots.surface(lambda x, y: x**2 + y**2, (-3, 3), (-3, 3), "x0² + x1²"))
    figure = plots.gradient_field(x0, x1, u, v, "the gradient, with its sign turned")
    experiment.save(figure, "arrows")


if __name__ == "__main__":
    run(main)
