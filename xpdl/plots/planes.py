"""Functions of two numbers: surfaces, contours with paths on them, arrows, regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xpdl.arguments import whole_number
from xpdl.backends import get_backend
from xpdl.errors import ArgumentError, ShapeError
from xpdl.plots.canvas import host, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Limits: TypeAlias = tuple[float, float]


def surface(
    f: Callable[[Any, Any], Any], xlim: Limits, ylim: Limits, title: str = "", *, steps: int = 30
) -> Figure:
    """Draw the graph of f(x, y) in three dimensions. Book, figures 4-8 and 6-1.

    f takes two host arrays of one shape and returns a third.
    """
    x, y = _grid(xlim, ylim, steps)
    figure = new_figure(5.5, 4.5, title)
    axes: Any = figure.add_subplot(projection="3d")
    axes.plot_wireframe(x, y, host(f(x, y)), rstride=1, cstride=1, color="C0", linewidth=0.5)
    axes.set(xlabel="x", ylabel="y", zlabel="f(x, y)")
    axes.locator_params(nbins=5)  # more numbers would touch
    axes.set_box_aspect(None, zoom=0.9)  # or the label of the third axis is cut off
    return figure


def gradient_field(x: Any, y: Any, u: Any, v: Any, title: str = "") -> Figure:
    """Draw an arrow (u, v) at each place (x, y). Book, figures 4-9 and 6-2.

    All four are arrays of one shape. The arrows point where a function falls if u and v are its
    gradient with the sign turned.
    """
    places = [host(a) for a in (x, y, u, v)]
    if len({a.shape for a in places}) != 1:
        raise ShapeError(f"x, y, u and v must be of one shape, got {[a.shape for a in places]}.")
    figure = new_figure(5.5, 4.5, title)
    axes = figure.subplots()
    axes.quiver(*places, angles="xy", color="0.4")
    axes.set(xlabel="x", ylabel="y")
    axes.grid(alpha=0.3)
    return figure


def optimizer_paths(
    f: Callable[[Any, Any], Any],
    paths: Mapping[str, Any],
    xlim: Limits,
    ylim: Limits,
    title: str = "",
    *,
    columns: int = 3,
) -> Figure:
    """Draw the way of each optimizer over the contours of f(x, y). Book, figures 6-3 to 6-8, 4-10.

    Parameters
    ----------
    f : callable
        Takes two host arrays of one shape and returns a third; its least value in the picture has
        a cross.
    paths : mapping of str to array (steps, 2)
        The places, from the start on.
    """
    if not paths:
        raise ArgumentError("paths is empty; give one at least.")
    columns = min(whole_number("columns", columns), len(paths))
    rows = -(-len(paths) // columns)
    figure = new_figure(3.3 * columns + 0.6, 2.7 * rows + 0.6, title)
    x, y = _grid(xlim, ylim, 201)
    heights = host(f(x, y))
    lowest = np.unravel_index(heights.argmin(), heights.shape)
    # Levels lie denser near the bottom, as the function is flatter there.
    if heights.min() == heights.max():
        raise ArgumentError(f"f has no contours: it is {heights.min():g} everywhere.")
    levels = heights.min() + (heights.max() - heights.min()) * np.linspace(0.02, 1, 14) ** 2
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (name, path) in zip(grid.flat, paths.items(), strict=False):
        way = host(path)
        if way.ndim != 2 or way.shape[1] != 2:
            raise ShapeError(f"the path {name!r} must be (steps, 2), got {way.shape}.")
        axes.contour(x, y, heights, levels, colors="0.75", linewidths=0.7)
        axes.plot(way[:, 0], way[:, 1], "o-", color="C3", markersize=2.5, linewidth=1)
        axes.plot(x[lowest], y[lowest], "+", color="black", markersize=9)
        axes.set(xlim=xlim, ylim=ylim)
        axes.set_title(name, fontsize="medium")
    for axes in grid.flat[len(paths) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(paths) - columns) : len(paths)]:
        axes.tick_params(labelbottom=True)  # also above an empty place
    figure.supxlabel("x", fontsize="medium")
    figure.supylabel("y", fontsize="medium")
    return figure


def decision_regions(
    panels: Mapping[str, Callable[[Any], Any]],
    points: Any,
    classes: Mapping[str, Sequence[int]],
    title: str = "",
    *,
    xlim: Limits = (-0.5, 1.5),
    ylim: Limits = (-0.5, 1.5),
    steps: int = 201,
) -> Figure:
    """Draw which of two classes each place belongs to, a panel a classifier. Book, 2-6 to 2-8.

    Parameters
    ----------
    panels : mapping of str to callable
        Each takes places (n, 2), on the active backend, and returns their classes (n,), 0 or 1.
    points : array (N, 2)
        The examples; they are drawn over the regions, a shape for each class.
    classes : mapping of str to sequence of int, (N,)
        The right classes of the examples, 0 or 1, by the name of the panel.
    """
    from matplotlib.patches import Patch

    if not panels or panels.keys() != classes.keys():
        raise ArgumentError(
            f"panels and classes must have the same names, got {list(panels)} and {list(classes)}."
        )
    x, y = _grid(xlim, ylim, steps)
    plane = get_backend().asarray(np.stack([x.ravel(), y.ravel()], axis=1))
    examples = host(points)
    figure = new_figure(max(2.5 * len(panels) + 0.5, 3.8), 3.6, title)  # wide enough for the key
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
    shades = ["white", "C0"]
    for axes, (name, classify) in zip(grid.flat, panels.items(), strict=True):
        answers = host(classify(plane))
        if answers.shape != (x.size,):
            raise ShapeError(f"{name!r} must return ({x.size},) classes, got {answers.shape}.")
        regions = answers.reshape(x.shape)
        axes.contourf(x, y, regions, levels=(-0.5, 0.5, 1.5), colors=shades, alpha=0.35)
        for kind, marker in ((0, "o"), (1, "^")):
            chosen = examples[host(classes[name]) == kind]
            label = f"should be {kind}"
            axes.plot(*chosen.T, marker, color="black", markersize=8, label=label)
        axes.set(xlabel="x1", xlim=xlim, ylim=ylim, aspect="equal")
        axes.set_title(name, fontsize="medium")
    grid.flat[0].set_ylabel("x2")
    shade = Patch(facecolor=shades[1], alpha=0.35, label="answer 1")
    key = [*grid.flat[0].lines, shade]
    figure.legend(
        handles=key, loc="outside lower center", ncols=3, columnspacing=1, fontsize="small"
    )
    return figure


def _grid(xlim: Limits, ylim: Limits, steps: int) -> tuple[Any, Any]:
    """Return the places of a grid over the plane, x and y (steps, steps) each."""
    steps = whole_number("steps", steps, least=2)
    for name, (low, high) in (("xlim", xlim), ("ylim", ylim)):
        if not low < high:
            raise ArgumentError(f"{name} must be (low, high) with low < high, got {(low, high)}.")
    x, y = np.meshgrid(np.linspace(*xlim, steps), np.linspace(*ylim, steps))
    return x, y
