"""A network of three layers computed by hand, signal by signal, and the same as a `Network`.

Book, section 3.4. In float64, as there.
"""

from functools import partial

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.functions import identity_function, sigmoid
from xpdl.layers import Affine, Sigmoid

array = partial(xpdl.asarray, dtype="float64")


def main(experiment: Experiment) -> None:
    W1, b1 = array([[0.1, 0.3, 0.5], [0.2, 0.4, 0.6]]), array([0.1, 0.2, 0.3])
    W2, b2 = array([[0.1, 0.4], [0.2, 0.5], [0.3, 0.6]]), array([0.1, 0.2])
    W3, b3 = array([[0.1, 0.3], [0.2, 0.4]]), array([0.1, 0.2])
    x = array([1.0, 0.5])

    a1 = x @ W1 + b1
    z1 = sigmoid(a1)
    a2 = z1 @ W2 + b2
    z2 = sigmoid(a2)
    a3 = z2 @ W3 + b3
    y = identity_function(a3)
    experiment.record("sums of layer 1", a1, ".1f", book="0.3, 0.7, 1.1")
    experiment.record("outputs of layer 1", z1, ".8f", book="0.57444252, 0.66818777, 0.75026011")
    experiment.record("outputs of layer 2", z2, ".8f", book="0.62624937, 0.7710107")
    experiment.record("outputs of the network", y, ".8f", book="0.31682708, 0.69627909")

    layers = [Affine(W1, b1), Sigmoid(), Affine(W2, b2), Sigmoid(), Affine(W3, b3)]
    network = xpdl.Network(layers, input_shape=2, dtype="float64")
    scores = network.predict(x.reshape(1, 2))
    experiment.record("a Network's differ by", abs(scores[0] - y).max(), ".1e")
    experiment.save(drawing([x, z1, z2, y], [W1, W2, W3]))


def drawing(columns, weights):
    """Draw each layer's outputs as a column of nodes, and the weights on the lines between."""
    layers = [
        [f"{'xzzy'[i]}{j} = {value:.4f}#{i}" for j, value in enumerate(numbers(column), start=1)]
        for i, column in enumerate(columns)
    ]
    nodes = {
        name: (i, (len(names) - 1) / 2 - j)
        for i, names in enumerate(layers)
        for j, name in enumerate(names)
    }
    edges = [
        plots.Edge(start, end, f"{weight:.1f}", at=0.25)
        for starts, ends, w in zip(layers, layers[1:], weights, strict=False)
        for start, row in zip(starts, numbers(w), strict=True)
        for end, weight in zip(ends, row, strict=True)
    ]
    return plots.computational_graph(nodes, edges, "outputs, and the weights between them")


def numbers(a):
    return xpdl.to_numpy(a).tolist()


if __name__ == "__main__":
    run(main)
