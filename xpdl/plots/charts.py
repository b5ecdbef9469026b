"""Charts: how numbers are distributed, and what takes how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpdl.errors import ArgumentError
from xpdl.plots.canvas import host, legend_below, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def layer_histograms(
    rows: Mapping[str, Mapping[str, Any]],
    title: str = "",
    *,
    bins: int = 30,
    limits: tuple[float, float] = (0.0, 1.0),
    top: float | None = None,
    xlabel: str = "activation",
) -> Figure:
    """Draw a histogram of each layer's numbers, a row for each setting. Book, figures 6-10 to 6-14.

    Parameters
    ----------
    rows : mapping of str to (mapping of str to array)
        For each setting, such as a standard deviation of the weights, the layers' arrays by name.
    limits : (float, float)
        The range of each histogram. The share of numbers in a bin is drawn; what lies outside
        counts in the whole, but has no bin.
    top : float, optional
        Where the scale of shares ends, in %. A higher bar is cut off there, such as that of the
        zeros which ReLU leaves; by default the highest of a row fits.
    """
    if not rows or not all(rows.values()):
        raise ArgumentError("rows is empty, or one of them is; give a layer's array at least.")
    columns = max(len(layers) for layers in rows.values())
    figure = new_figure(1.0 + 1.7 * columns, 0.8 + 1.5 * len(rows), title)
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex=True, sharey="row")
    above: list[str] = []
    for line, (setting, layers) in zip(grid, rows.items(), strict=True):
        for axes, (name, array) in zip(line, layers.items(), strict=False):
            values = host(array).ravel()
            if not values.size:
                raise ArgumentError(f"rows: {name!r} of {setting!r} is empty.")
            share = np.full(values.size, 100 / values.size)
            axes.hist(values, bins=bins, range=limits, weights=share, color="C0")
            if list(layers) != above:  # else the names stand there already
                axes.set_title(name, fontsize="small")
            axes.tick_params(labelsize="small")
        for axes in line[len(layers) :]:
            axes.set_axis_off()
        line[0].set_ylabel(f"{setting}\n% of numbers", fontsize="small")
        line[0].set_ylim(0, top)
        above = list(layers)
    figure.supxlabel(xlabel, fontsize="medium")
    return figure


def confusion_matrix(
    labels: Any, answers: Any, class_names: Sequence[str] | None = None, title: str = ""
) -> Figure:
    """Draw how often each class (row) was taken for each (column).

    Right answers, on the diagonal, are far more than all others: only errors are shaded.

    Parameters
    ----------
    labels, answers : array or sequence of int, (N,)
        The right class and the answer.
    class_names : sequence of str, optional
        What the classes are called; their numbers by default.
    """
    given = host(labels), host(answers)
    truth, guess = (numbers.astype(np.int64) for numbers in given)
    for name, numbers, whole in zip(("labels", "answers"), given, (truth, guess), strict=True):
        if (numbers != whole).any():
            raise ArgumentError(
                f"{name} must be whole numbers, the classes, got {numbers[numbers != whole][0]}."
            )
    if truth.shape != guess.shape or truth.ndim != 1 or not truth.size:
        raise ArgumentError(
            f"labels and answers must be (N,) and of one length, got {truth.shape} and "
            f"{guess.shape}."
        )
    least = int(max(truth.max(), guess.max())) + 1
    names = list(class_names) if class_names else [str(i) for i in range(least)]
    if len(names) < least or min(truth.min(), guess.min()) < 0:
        raise ArgumentError(
            f"classes must be from 0 to {len(names) - 1}, got from "
            f"{min(truth.min(), guess.min())} to {least - 1}."
        )
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(counts, (truth, guess), 1)
    errors = np.where(np.eye(len(names), dtype=bool), 0, counts)
    side = min(30, max(6, 0.3 * len(names)))  # inches, so that the names do not overlap
    figure = new_figure(side, 0.9 * side, title)
    axes = figure.subplots()
    axes.imshow(errors, cmap="Oranges", vmin=0, vmax=max(1, int(errors.max())))
    for (row, column), count in np.ndenumerate(counts):
        if count:
            bold = "bold" if row == column else "normal"
            colour = "white" if errors[row, column] > 0.6 * errors.max() else "black"
            axes.text(
                column,
                row,
                f"{count}",
                ha="center",
                va="center",
                fontsize=8,
                weight=bold,
                color=colour,
            )
    long = max(map(len, names)) > 2
    axes.set_xticks(range(len(names)), names, rotation=60 if long else 0, fontsize="small")
    axes.set_yticks(range(len(names)), names, fontsize="small")
    axes.set(xlabel="answer", ylabel="label")
    return figure


def layer_times(
    names: Sequence[str], forward: Sequence[float], backward: Sequence[float], title: str = ""
) -> Figure:
    """Draw the time of each part of a step, forward and backward, in seconds. Book, figure 8-14.

    The share of the whole is written beside each bar.
    """
    if not len(names) == len(forward) == len(backward):
        raise ArgumentError("names, forward and backward must be equally many.")
    figure = new_figure(7, 0.9 + 0.24 * len(names))
    axes = figure.subplots()
    ahead, back = (1000 * np.asarray(times, dtype=float) for times in (forward, backward))
    places = np.arange(len(names))
    axes.barh(places, ahead, color="C0", label="forward")
    axes.barh(places, back, left=ahead, color="C1", label="backward")
    total = (ahead + back).sum() or 1.0
    for place, time in zip(places, ahead + back, strict=True):
        axes.annotate(f" {100 * time / total:.1f} %", (time, place), va="center", fontsize="small")
    axes.set_yticks(places, names, fontsize="small")
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.set(xlabel="ms")
    legend_below(figure)
    axes.grid(axis="x", alpha=0.3)
    if title:
        axes.set_title(title, fontsize="medium")
    return figure
