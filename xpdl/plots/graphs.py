"""Computational graphs, as chapter 5 of the book draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.plots.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Place: TypeAlias = tuple[float, float]

# Lengths in points, 1/72 inch.
NODE_FONT, EDGE_FONT = 11, 9
RADIUS = 13.0  # of an operation's circle
GAP = 2.5  # between the two arrows of an edge, on either side of its line


@dataclass(frozen=True)
class Edge:
    """A line of a graph from one node to another, and what passes along it.

    Attributes
    ----------
    start, end : str
        Names of nodes.
    value : str
        What goes forward; it stands above the line, or left of it.
    gradient : str
        The derivative that comes back, by an arrow of its own; it stands below.
    at : float
        How far along the line the numbers stand, from 0 to 1.
    """

    start: str
    end: str
    value: str = ""
    gradient: str = ""
    at: float = 0.5


def computational_graph(
    nodes: Mapping[str, Place],
    edges: Sequence[Edge],
    title: str = "",
    *,
    size: Place = (9, 4),
) -> Figure:
    r"""Draw nodes and the values and derivatives between them. Book, figures 5-2 to 5-17.

    Parameters
    ----------
    nodes : mapping of str to (x, y)
        Where each node stands. What follows a ``#`` in a name is not shown, so that two nodes may
        look alike: ``"×#1"`` and ``"×#2"``. One of at most three signs is an operation, and has a
        circle; others are inputs and outputs.
    edges : sequence of Edge
    size : (float, float)
        In inches. The outermost nodes stand at the figure's edges, whatever the unit of x and y.

    Raises
    ------
    UnknownNameError
        If an edge begins or ends in no node.
    ArgumentError
        If there are no nodes, or an edge's two stand at one place.
    """
    if not nodes:
        raise ArgumentError("nodes is empty; give one at least.")
    for edge in edges:
        for name in (edge.start, edge.end):
            if name not in nodes:
                raise UnknownNameError("node", name, nodes)
        if nodes[edge.start] == nodes[edge.end]:
            raise ArgumentError(
                f"{edge.start!r} and {edge.end!r} stand at one place, {nodes[edge.end]}; "
                "an edge needs two."
            )
    figure = new_figure(*size, title)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_axis_off()
    width, height = 72 * size[0], 72 * size[1]
    if title:
        figure.suptitle(title, y=1 - 15 / height, va="center")  # also above a tall graph
    axes.set(xlim=(0, width), ylim=(0, height))  # a unit is a point, so that lengths are lengths
    halves = {name: _half_size(_shown(name)) for name in nodes}
    below = _draw_legend(axes) if any(edge.gradient for edge in edges) else 0.0
    places = _spread(nodes, halves, width, height - below - (30 if title else 0))
    places = {name: (x, y + below) for name, (x, y) in places.items()}
    for name, place in places.items():
        _draw_node(axes, _shown(name), place)
    for edge in edges:
        ends = [(places[name], halves[name]) for name in (edge.start, edge.end)]
        _draw_edge(axes, edge, *ends)
    return figure


def _draw_legend(axes: Axes) -> float:
    """Say below the graph what its colours mean, and return the height that this takes."""
    x = float(EDGE_FONT)
    for text, color in (("→ values, forward", "C0"), ("← derivatives, backward", "C3")):
        axes.text(x, EDGE_FONT / 2, text, fontsize=EDGE_FONT, color=color)
        x += _text_size(text, EDGE_FONT)[0] + 2 * EDGE_FONT
    return 2.0 * EDGE_FONT


def _shown(name: str) -> str:
    return name.partition("#")[0]


def _is_operation(shown: str) -> bool:
    return len(shown) <= 3


def _text_size(text: str, fontsize: float) -> Place:
    """Return the width and height of a text, in points."""
    from matplotlib.textpath import TextPath

    return TextPath((0, 0), text, size=fontsize).get_extents().width if text else 0.0, fontsize


def _half_size(shown: str) -> Place:
    """Return half the width and half the height of a node with room around it."""
    if _is_operation(shown):
        return RADIUS, RADIUS
    width, height = _text_size(shown, NODE_FONT)
    return width / 2 + 6, height / 2 + 5


def _spread(
    nodes: Mapping[str, Place], halves: Mapping[str, Place], width: float, height: float
) -> dict[str, Place]:
    """Return the nodes' places in points: the first and the last of each axis at the edges."""
    axes = []
    for axis, length in enumerate((width, height)):
        along = [place[axis] for place in nodes.values()]
        low, high = min(along), max(along)
        first, last = (
            max(halves[name][axis] for name in nodes if nodes[name][axis] == end) + 8
            for end in (low, high)
        )
        if low == high:
            axes.append([length / 2] * len(along))
        else:
            unit = (length - first - last) / (high - low)
            axes.append([first + unit * (value - low) for value in along])
    return dict(zip(nodes, zip(*axes, strict=True), strict=True))


def _draw_node(axes: Axes, shown: str, place: Place) -> None:
    from matplotlib.patches import Circle

    box: dict[str, Any] | None = {"boxstyle": "round,pad=0.35", "facecolor": "0.93", "lw": 0}
    if _is_operation(shown):
        axes.add_patch(Circle(place, RADIUS, facecolor="white", edgecolor="black", zorder=2))
        box = None
    axes.text(
        *place, shown, ha="center", va="center_baseline", fontsize=NODE_FONT, zorder=3, bbox=box
    )


def _draw_edge(
    axes: Axes, edge: Edge, start: tuple[Place, Place], end: tuple[Place, Place]
) -> None:
    """Draw an arrow forward and, if there is a derivative, one back beside it."""
    (x0, y0), (x1, y1) = start[0], end[0]
    length = math.hypot(x1 - x0, y1 - y0)
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    nx, ny = (-dy, dx) if dx > 0 or (dx == 0 and dy > 0) else (dy, -dx)  # up, across the edge
    first, last = _reach(start[1], dx, dy) + 3, length - _reach(end[1], dx, dy) - 3

    def at(along: float, across: float) -> Place:
        return x0 + along * dx + across * nx, y0 + along * dy + across * ny

    for text, colour, sign in ((edge.value, "C0", 1), (edge.gradient, "C3", -1)):
        lane = sign * GAP if edge.gradient else 0.0
        if sign > 0 or text:
            tail, head = (first, last) if sign > 0 else (last, first)
            arrow = {"arrowstyle": "->", "color": colour, "shrinkA": 0, "shrinkB": 0, "lw": 0.9}
            axes.annotate("", xy=at(head, lane), xytext=at(tail, lane), arrowprops=arrow)
        if text:
            w, h = _text_size(text, EDGE_FONT)
            beside = lane + sign * (4 + abs(nx) * w / 2 + abs(ny) * h / 2)
            place = at(first + edge.at * (last - first), beside)
            options: dict[str, Any] = {"ha": "center", "va": "center_baseline", "zorder": 4}
            options["bbox"] = {"facecolor": "white", "lw": 0, "pad": 0.5}  # over other lines
            axes.text(*place, text, fontsize=EDGE_FONT, color=colour, **options)


def _reach(half: Place, dx: float, dy: float) -> float:
    """Return how far a node of this half size reaches in the direction (dx, dy)."""
    if half == (RADIUS, RADIUS):
        return RADIUS
    return min(half[0] / abs(dx) if dx else math.inf, half[1] / abs(dy) if dy else math.inf)
