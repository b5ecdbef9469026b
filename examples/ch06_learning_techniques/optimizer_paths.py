"""The ways of the update rules down a long, narrow valley, f = x²/20 + y².

Book, section 6.1; figures 6-1 to 6-3 and 6-5 to 6-8. The gradient does not point at the lowest
place, so SGD goes to and fro across the valley; the other rules even it out. The book names RMSProp
without a figure.
"""

import numpy as np

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.optimizers import SGD, AdaGrad, Adam, Momentum, RMSProp


def f(x, y):
    return x**2 / 20 + y**2


def gradient(x, y):
    return x / 10, 2 * y


def walk(optimizer, start=(-7.0, 2.0), steps=30):
    """Return the places (steps + 1, 2) on the way of an optimizer."""
    xp = xpdl.get_backend().xp
    params = {name: xpdl.asarray([value]) for name, value in zip("xy", start, strict=True)}
    places = [xp.concatenate([params["x"], params["y"]])]
    for _ in range(steps):
        dx, dy = gradient(params["x"], params["y"])
        optimizer.update(params, {"x": dx, "y": dy})
        places.append(xp.concatenate([params["x"], params["y"]]))
    return xp.stack(places)


def main(experiment: Experiment) -> None:
    optimizers = {
        "SGD": SGD(0.95),
        "Momentum": Momentum(0.1),
        "AdaGrad": AdaGrad(1.5),
        "RMSProp": RMSProp(0.15),
        "Adam": Adam(0.3),
    }
    paths = {name: walk(optimizer) for name, optimizer in optimizers.items()}
    for name, path in paths.items():
        experiment.record(f"{name} after 30 steps", path[-1], ".3f")
        experiment.record(f"{name}, how often it crosses the valley", crossings(path[:, 1]), ".0f")

    x, y = np.meshgrid(np.linspace(-10, 10, 17), np.linspace(-5, 5, 11))
    dx, dy = gradient(x, y)
    experiment.save(plots.surface(f, (-10, 10), (-10, 10)), "surface")
    experiment.save(plots.gradient_field(x, y, -dx, -dy), "field")
    experiment.save(plots.optimizer_paths(f, paths, (-8, 3), (-3, 3)))


def crossings(y):
    """Return how often y changes its sign."""
    return (y[1:] * y[:-1] < 0).sum()


if __name__ == "__main__":
    run(main)
