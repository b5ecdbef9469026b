"""Gradient descent on f = x0² + x1², with a learning rate that fits, is too large, too small.

Book, section 4.4.1; figure 4-10. In float64, as there.
"""

import xpdl
from xpdl import numerical_gradient, plots
from xpdl.cli.experiment import Experiment, run

BOOK = {
    0.1: "-6.1e-10, 8.1e-10",
    10.0: "-2.58983747e+13, -1.29524862e+12",
    1e-10: "-2.99999994, 3.99999992",
}


def f(x):
    return x[0] ** 2 + x[1] ** 2


def gradient_descent(f, start, learning_rate, steps=100):
    """Return the places (steps + 1, 2) that x <- x - lr df/dx comes by; equation 4.7."""
    x = start.copy()
    path = [x.copy()]
    for _ in range(steps):
        x -= learning_rate * numerical_gradient(f, x)
        path.append(x.copy())
    return xpdl.array_module(x).stack(path)


def main(experiment: Experiment) -> None:
    start = xpdl.asarray([-3.0, 4.0], dtype="float64")
    paths = {}
    for rate, book in BOOK.items():
        path = gradient_descent(f, start, rate)
        paths[f"learning rate {rate:g}"] = path if rate < 1 else path[:2]  # the next are far off
        experiment.record(f"after 100 steps at {rate:g}", path[-1], ".8e", book=book)
    square = ((-4.5, 4.5), (-4.5, 4.5))
    experiment.save(plots.optimizer_paths(lambda x, y: x**2 + y**2, paths, *square))


if __name__ == "__main__":
    run(main)
