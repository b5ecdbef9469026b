"""Computational graphs, as chapter 5 of the book draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xpdl.errors import UnknownNameError
from xpdl.plots.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Edge:
    """A line of a graph from one node to another, and what passes along it.

    Attributes
    ----------
    start, end : str
        Names of nodes.
    value : str
        What goes forward; it stands above the line.
    gradient : str
        The derivative that comes back; it stands below.
    """

    start: str
    end: str
    value: str = ""
    gradient: str = ""


def computational_graph(
    nodes: Mapping[str, tuple[float, float]],
    edges: Sequence[Edge],
    title: str = "",
    *,
    size: tuple[float, float] = (9, 4),
) -> Figure:
    r"""Draw nodes and the values and derivatives between them. Book, figures 5-2 to 5-17.

    Parameters
    ----------
    nodes : mapping of str to (x, y)
        Where each node stands. What follows a ``#`` in a name is not shown, so that two nodes may
        look alike: ``"×#1"`` and ``"×#2"``. One of at most three signs is an operation, and has a
        circle; others are inputs and outputs.
    edges : sequence of Edge

    Raises
    ------
    UnknownNameError
        If an edge begins or ends in no node.
    """
    figure = new_figure(*size, title)
    axes = figure.subplots()
    axes.set_axis_off()
    for edge in edges:
        for name in (edge.start, edge.end):
            if name not in nodes:
                raise UnknownNameError("node", name, nodes)
        _draw_edge(axes, nodes[edge.start], nodes[edge.end], edge)
    for name, (x, y) in nodes.items():
        shown = name.partition("#")[0]
        operation = len(shown) <= 3
        axes.text(
            x,
            y,
            shown,
            ha="center",
            va="center",
            fontsize=11,
            zorder=3,
            bbox={
                "boxstyle": "circle,pad=0.4" if operation else "round,pad=0.3",
                "facecolor": "white" if operation else "0.93",
                "edgecolor": "black" if operation else "none",
            },
        )
    places = list(nodes.values())
    for axis, low, high in (
        ("x", min(x for x, _ in places), max(x for x, _ in places)),
        ("y", min(y for _, y in places), max(y for _, y in places)),
    ):
        axes.set(**{f"{axis}lim": (low - 0.5, high + 0.5)})
    return figure


def _draw_edge(
    axes: object, start: tuple[float, float], end: tuple[float, float], edge: Edge
) -> None:
    (x0, y0), (x1, y1) = start, end
    axes.annotate(  # type: ignore[attr-defined]
        "",
        xy=end,
        xytext=start,
        arrowprops={"arrowstyle": "->", "color": "0.5", "shrinkA": 16, "shrinkB": 16},
    )
    for text, colour, above in ((edge.value, "C0", True), (edge.gradient, "C3", False)):
        axes.annotate(  # type: ignore[attr-defined]
            text,
            xy=((x0 + x1) / 2, (y0 + y1) / 2),
            xytext=(0, 3 if above else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=9,
            color=colour,
            zorder=4,
        )
