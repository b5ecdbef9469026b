"""Softmax and cross entropy as a graph of small nodes, whose gradients come to y - t.

Book, section 5.6.3 and appendix A; figures A-1 to A-5. The scores are chosen so that y is the
book's (0.3, 0.2, 0.5), and the second class is the right one.
"""

import math
from collections.abc import Callable

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.losses import SoftmaxWithLoss

SCORES, TARGETS = [math.log(3), math.log(2), math.log(5)], [0, 1, 0]

# What each kind of node computes, and its slope by each input, from output and inputs.
KINDS: dict[str, tuple[Callable[..., float], Callable[..., list[float]]]] = {
    "exp": (math.exp, lambda out, x: [out]),
    "+": (lambda *x: sum(x), lambda out, *x: [1] * len(x)),
    "/": (lambda x: 1 / x, lambda out, x: [-out * out]),
    "×": (lambda x, y: x * y, lambda out, x, y: [y, x]),
    "log": (math.log, lambda out, x: [1 / x]),
    "−": (lambda x: -x, lambda out, x: [-1]),
}
# Each node's inputs, in the order of computing; a name is a kind, and what tells it from others.
GRAPH = (
    {f"exp#{i}": [f"score {i}"] for i in (1, 2, 3)}
    | {"+#S": ["exp#1", "exp#2", "exp#3"], "/": ["+#S"]}
    | {f"×#y{i}": [f"exp#{i}", "/"] for i in (1, 2, 3)}
    | {f"log#{i}": [f"×#y{i}"] for i in (1, 2, 3)}
    | {f"×#t{i}": [f"log#{i}", f"label {i}"] for i in (1, 2, 3)}
    | {"+#L": ["×#t1", "×#t2", "×#t3"], "−": ["+#L"]}
)


def forward(inputs, moved=("", ""), h=0.0):
    """Return each node's output, where what passes along the edge `moved` has h added."""
    outputs = dict(inputs)
    for node, sources in GRAPH.items():
        x = [outputs[source] + (h if (source, node) == moved else 0) for source in sources]
        outputs[node] = KINDS[node.partition("#")[0]][0](*x)
    return outputs


def backward(outputs):
    """Return the gradient along each edge: what comes back to its node, times the slope there.

    An output that goes to several nodes gets the sum of what they send back.
    """
    coming = dict.fromkeys(outputs, 0.0) | {"−": 1.0}
    along = {}
    for node, sources in reversed(GRAPH.items()):
        x = [outputs[source] for source in sources]
        slopes = KINDS[node.partition("#")[0]][1](outputs[node], *x)
        for source, slope in zip(sources, slopes, strict=True):
            along[source, node] = coming[node] * slope
            coming[source] += along[source, node]
    return along, coming


def draw(outputs, along):
    columns = {"score ": 0.0, "exp#": 1.0, "×#y": 4.6, "log#": 5.6, "×#t": 6.6}
    places = {f"{name}{i}": (x, 3.0 - i) for name, x in columns.items() for i in (1, 2, 3)}
    places |= {f"label {i}": (6.6, 2.5 - i) for i in (1, 2, 3)}
    places |= {"+#S": (2.3, 1.5), "/": (3.3, 1.5)}
    places |= {"+#L": (7.9, 1.0), "−": (8.8, 1.0), "loss": (9.7, 1.0)}
    edges = [
        plots.Edge(source, node, f"{outputs[source] + 0.0:.3g}", f"{slope + 0.0:.3g}")
        for (source, node), slope in along.items()
    ]
    edges.append(plots.Edge("−", "loss", f"{outputs['−']:.3g}", "1"))
    return plots.computational_graph(places, edges, size=(11, 4.6))


def main(experiment: Experiment) -> None:
    inputs = {f"score {i}": a for i, a in enumerate(SCORES, 1)}
    inputs |= {f"label {i}": t for i, t in enumerate(TARGETS, 1)}
    outputs = forward(inputs)
    along, coming = backward(outputs)
    gradient = [coming[f"score {i}"] for i in (1, 2, 3)]
    experiment.record("y", [outputs[f"×#y{i}"] for i in (1, 2, 3)], ".1f", book="0.3, 0.2, 0.5")
    experiment.record("gradient by the scores, y - t", gradient, ".1f", book="0.3, -0.8, 0.5")
    experiment.record("loss", outputs["−"], ".4f")

    def numerical(edge, h=1e-4):
        return (forward(inputs, edge, h)["−"] - forward(inputs, edge, -h)["−"]) / (2 * h)

    gaps = [abs(numerical(edge) - slope) for edge, slope in along.items()]
    experiment.record("edges", len(along))
    experiment.record("largest difference of one's gradient from a numerical", max(gaps), ".0e")

    layer = SoftmaxWithLoss()
    y = [outputs[f"×#y{i}"] for i in (1, 2, 3)]
    scores, targets, our_y, our_gradient = (
        xpdl.asarray([row], dtype="float64") for row in (SCORES, TARGETS, y, gradient)
    )
    experiment.record("the layer's loss", layer.forward(scores, targets), ".4f")
    for what, layers, ours in (("y", layer.y, our_y), ("gradient", layer.backward(), our_gradient)):
        experiment.record(
            f"largest difference from the layer's {what}", abs(layers - ours).max(), ".0e"
        )
    experiment.save(draw(outputs, along))


if __name__ == "__main__":
    run(main)
