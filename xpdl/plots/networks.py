"""A network drawn as the graph that it is: its layers, and the shapes that pass between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpdl.errors import ArgumentError, shown
from xpdl.plots.graphs import Edge, computational_graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW, COLUMN = 0.62, 2.6
"""Inches from a layer to the next, down and across."""


def network_graph(network: Any, title: str = "") -> Figure:
    """Draw a network from its inputs, above, to its outputs: layers by name, shapes beside them.

    Branches stand side by side; where they meet, a layer reads several.

    Parameters
    ----------
    network : Network
        Of any graph. More than 60 layers are hard to read.
    title : str
        The network's name by default.

    Raises
    ------
    ArgumentError
        If it is no network.
    """
    if not hasattr(network, "body") or not hasattr(network, "input_shapes"):
        raise ArgumentError(f"network must be a Network, got {shown(network)}.")
    reads = {place.name: place.reads for place in network.body.places}
    labels = {name: name for name in network.input_shapes}
    for place in network.body.places:
        labels[place.name] = f"{place.name}  {type(place.layer).__name__}"
    depth, lane = _layout(list(network.input_shapes), reads)
    nodes = {labels[name]: (float(lane[name]), -float(depth[name])) for name in labels}
    edges = [
        Edge(
            labels[source],
            labels[name],
            " x ".join(map(str, network.body.shapes[source])),
            at=0.5 if lane[source] == lane[name] else 0.22,  # beside where it begins
        )
        for name, sources in reads.items()
        for source in sources
    ]
    wide = COLUMN * (1 + max(lane.values()))
    size = max(wide, 3.2), ROW * (2 + max(depth.values()))
    return computational_graph(nodes, edges, title or network.name, size=size)


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
