"""A network drawn as the graph that it is: its layers, and the shapes that pass between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from xpdl.arguments import expect_network, flag
from xpdl.plots.graphs import Edge, computational_graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, COLUMN, LETTER = 0.62, 2.0, 0.085
"""Inches from a layer to the next, down; across at least; and of a letter of its name."""


def network_graph(network: Any, title: str = "", *, blocks: bool = False) -> Figure:
    """Draw a network from its inputs, above, to its outputs: layers by name, shapes beside them.

    Branches stand side by side; where they meet, a layer reads several.

    Parameters
    ----------
    network : Network
        Of any graph. More than 60 layers are hard to read.
    title : str
        The network's name by default.
    blocks : bool
        Whether a block of layers, such as a `Residual`, is drawn as one node.

    Raises
    ------
    ArgumentError
        If it is no network.
    """
    expect_network("network", network)
    nodes = _blocks(network) if flag("blocks", blocks) else _layers(network)
    reads = {name: node.reads for name, node in nodes.items()}
    labels = {name: f"{name}  {node.kind}".strip() for name, node in nodes.items()}
    inputs = list(network.input_shapes)
    depth, lane = _layout(inputs, {n: sources for n, sources in reads.items() if n not in inputs})
    middle, wide = _columns(labels, lane)
    places = {labels[name]: (middle[lane[name]], -float(depth[name])) for name in labels}
    edges = [
        Edge(
            labels[source],
            labels[name],
            " x ".join(map(str, nodes[source].shape)),
            # Of lines that part, near their ends, and of lines that meet, where they begin.
            at=0.5 + 0.3 * ((lane[name] > lane[source]) - (lane[name] < lane[source])),
        )
        for name, sources in reads.items()
        for source in sources
    ]
    size = max(wide, 3.2), ROW * (2 + max(depth.values()))
    return computational_graph(places, edges, title or network.name, size=size)


class _Node(NamedTuple):
    """A layer or a block: what class it is of, which nodes it reads, and what comes out of it."""

    kind: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]


def _layers(network: Any) -> dict[str, _Node]:
    """Return all layers by name, behind the inputs."""
    nodes = {name: _Node("", (), shape) for name, shape in network.input_shapes.items()}
    for place in network.body.places:
        kind, shape = type(place.layer).__name__, network.body.shapes[place.name]
        nodes[place.name] = _Node(kind, place.reads, shape)
    return nodes


def _blocks(network: Any) -> dict[str, _Node]:
    """Return the layers and blocks by name, behind the inputs; what is in a block is not told."""
    nodes: dict[str, _Node] = {}
    for place, node in _layers(network).items():
        name = place.partition(".")[0]
        reads = dict.fromkeys(source.partition(".")[0] for source in node.reads)
        before = nodes[name].reads if name in nodes else ()
        outside = dict.fromkeys([*before, *(source for source in reads if source != name)])
        kind = "" if name in network.input_shapes else type(network.body.layers[name]).__name__
        nodes[name] = _Node(kind, tuple(outside), node.shape)  # in the end that of its last layer
    return nodes


def _columns(labels: dict[str, str], lane: dict[str, int]) -> tuple[list[float], float]:
    """Return where the middle of each lane is, and how wide all are, in inches."""
    widths = [COLUMN] * (1 + max(lane.values()))
    for name, label in labels.items():
        widths[lane[name]] = max(widths[lane[name]], LETTER * len(label) + 0.6)
    middles = [sum(widths[:i]) + width / 2 for i, width in enumerate(widths)]
    return middles, sum(widths)


def _layout(
    inputs: list[str], reads: dict[str, tuple[str, ...]]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return how deep each node lies, and in which lane: its own where another is there already."""
    depth = dict.fromkeys(inputs, 0)
    lane = {name: i for i, name in enumerate(inputs)}
    taken = {(depth[name], lane[name]) for name in inputs}
    for name, sources in reads.items():
        depth[name] = 1 + max(depth[source] for source in sources)
        wanted = min(lane[source] for source in sources)
        # A way around others needs a lane that is free all the way.
        while any((row, wanted) in taken for row in range(depth[sources[0]] + 1, depth[name] + 1)):
            wanted += 1
        lane[name] = wanted
        taken.add((depth[name], wanted))
    return depth, lane
