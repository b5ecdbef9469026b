"""What the scale of the first weights makes of the activations, layer after layer.

Book, sections 6.2.2 and 6.2.3; figures 6-10, 6-11, 6-13 and 6-14. 1,000 inputs of N(0, 1) go
through five layers of 100: too large weights drive sigmoid and tanh to their ends, too small ones
make all neurons say the same, those of Xavier and He keep the spread.
"""

from typing import Any

import numpy as np

import xpdl
from xpdl import Network, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.layers import Affine, ReLU, Sigmoid, Tanh

SETTINGS = {
    Sigmoid: {"std 1": 1.0, "std 0.01": 0.01, "Xavier": "xavier"},
    Tanh: {"std 1": 1.0, "std 0.01": 0.01, "Xavier": "xavier"},
    ReLU: {"std 0.01": 0.01, "Xavier": "xavier", "He": "he"},
}
VIEW: dict[type, dict[str, Any]] = {
    Sigmoid: {"limits": (0, 1)},
    Tanh: {"limits": (-1, 1)},
    ReLU: {"limits": (0, 1), "top": 8},  # half of the numbers are 0
}
RELU_MEANS = "0.0396, 0.00290, 0.000197, 1.32e-5, 9.46e-7"


def activations(activation, weight_init, x, seed):
    """Return the outputs (1000, 100) of each activation, by its layer's name."""
    layers = {}
    for i in range(1, 6):
        layers[f"affine {i}"] = Affine(100, weight_init=weight_init)
        layers[f"layer {i}"] = activation()
    outputs = Network(layers, 100, seed=seed).activations(x)
    # Statistics of half-precision numbers would overflow.
    return {name: a.astype("float32") for name, a in outputs.items() if name.startswith("layer")}


def main(experiment: Experiment) -> None:
    inputs = np.random.default_rng(experiment.seed).standard_normal((1000, 100))
    x = xpdl.asarray(inputs, dtype="float32")
    for activation, beginnings in SETTINGS.items():
        rows = {
            name: activations(activation, weight_init, x, experiment.seed)
            for name, weight_init in beginnings.items()
        }
        for name, layers in rows.items():
            label = f"{activation.__name__}, {name}"
            means, stds = (
                [getattr(a, what)() for a in layers.values()] for what in ("mean", "std")
            )
            book = RELU_MEANS if label == "ReLU, std 0.01" else None
            experiment.record(f"{label}: means by layer", means, ".3g", book=book)
            experiment.record(f"{label}: standard deviations", stds, ".3g")
        figure = plots.layer_histograms(rows, activation.__name__, **VIEW[activation])
        experiment.save(figure, activation.__name__.lower())


if __name__ == "__main__":
    run(main)
