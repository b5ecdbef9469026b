"""Curves: numbers along an axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from xpdl.arguments import whole_number
from xpdl.errors import ArgumentError
from xpdl.plots.canvas import HostFloats, host, legend_below, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (4, 1, 1, 1, 1, 1)))


def curves(
    lines: Mapping[str, Any],
    title: str = "",
    *,
    xlabel: str = "",
    ylabel: str = "",
    smooth: int = 1,
    **settings: Any,
) -> Figure:
    """Draw lines over one another, each with its name.

    Parameters
    ----------
    lines : mapping of str to array (n,), or to a pair of arrays (x, y)
        Values y, at 0, 1, 2 ... or at x.
    smooth : int
        Each point is the mean of this many values up to it.
    **settings
        Of Matplotlib's axes: ``yscale="log"``, ``ylim=(0, 1)`` ...
    """
    figure = new_figure(6, 4, title)
    axes = figure.subplots()
    _draw_lines(axes, lines, smooth)
    legend_below(figure)
    axes.set(xlabel=xlabel, ylabel=ylabel, **settings)
    return figure


def curve_grid(
    panels: Mapping[str, Mapping[str, Any]],
    title: str = "",
    *,
    columns: int = 4,
    xlabel: str = "",
    ylabel: str = "",
    smooth: int = 1,
    ended: str = "",
    **settings: Any,
) -> Figure:
    """Draw a panel of `curves` for each entry, on common axes; the names of lines stand once.

    The book's figures 6-19 (batch normalisation at 16 scales) and 6-24 (the best trials of a
    search) are such grids. Where a line ends before others of its panel there is a cross, of which
    `ended` says why: "the loss overflowed".
    """
    if not panels:
        raise ArgumentError("panels is empty; give one at least.")
    from matplotlib.lines import Line2D

    columns = min(whole_number("columns", columns), len(panels))
    rows = -(-len(panels) // columns)
    width = max(2.1, 6.0 / columns)  # of a panel, in inches
    figure = new_figure(1.2 + width * columns, 1.0 + min(2.6, 0.83 * width) * rows, title)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, (name, lines) in zip(grid.flat, panels.items(), strict=False):
        _draw_lines(axes, lines, smooth)
        if ended:
            _cross_early_ends(axes)
        axes.set(**settings)
        axes.set_title(name, fontsize="small")
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes in grid.flat[max(0, len(panels) - columns) : len(panels)]:  # the lowest of columns
        axes.tick_params(labelbottom=True)
        axes.set_xlabel(xlabel)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    for name, axes in zip(panels, grid.flat, strict=False):
        if (own := axes.get_legend_handles_labels()[1]) != labels:
            raise ArgumentError(
                f"the panels must have lines of the same names in the same order, got {labels!r} "
                f"in the first and {own!r} in {name!r}."
            )
    if ended:
        cross = Line2D([], [], marker="x", color="0.4", linestyle="")
        handles, labels = [*handles, cross], [*labels, ended]
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    figure.supylabel(ylabel, fontsize="medium")
    return figure


def _draw_lines(axes: Axes, lines: Mapping[str, Any], smooth: int) -> None:
    window = whole_number("smooth", smooth)
    counted = True  # whether all places are whole numbers, such as steps; then the ticks are too
    for i, (name, line) in enumerate(lines.items()):
        x, y = line if _is_pair(line) else (None, line)
        heights = host(y)
        places = np.arange(heights.size) if x is None else host(x)
        if places.shape != heights.shape or heights.ndim != 1:
            raise ArgumentError(
                f"the line {name!r} must be values (n,) or a pair of such, got shapes "
                f"{places.shape} and {heights.shape}."
            )
        counted = counted and bool((places == places.round()).all())
        style = STYLES[i % len(STYLES)]
        axes.plot(places, _smoothed(heights, window), linestyle=style, label=name)
    if counted:
        _number_whole(axes)
    axes.grid(alpha=0.3)


def _cross_early_ends(axes: Axes) -> None:
    """Mark the last point of each line that ends before the longest does."""
    drawn = [
        np.stack((x, y), axis=1)[np.isfinite(y)]
        for x, y in ((host(line.get_xdata()), host(line.get_ydata())) for line in axes.lines)
    ]
    last = max((points[-1, 0] for points in drawn if len(points)), default=0.0)
    for line, points in zip(list(axes.lines), drawn, strict=True):
        if len(points) and points[-1, 0] < last:
            axes.plot(*points[-1], "x", color=line.get_color())


def _number_whole(axes: Axes) -> None:
    """Let the numbers below the axes be whole."""
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 2.5, 5, 10]  # 250 and 25 are whole; 2.5 will be left out
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=steps, min_n_ticks=1))


def _is_pair(line: Any) -> bool:
    """Tell whether a line is (x, y), as opposed to a tuple of two numbers."""
    return isinstance(line, tuple) and len(line) == 2 and all(hasattr(a, "__len__") for a in line)


@runtime_checkable
class Trained(Protocol):
    """What a training tells of itself: `xpdl.History`."""

    losses: list[float]
    epochs: list[Any]


def learning_curves(
    losses: Trained | Sequence[float],
    train_accuracy: Sequence[float | None] = (),
    test_accuracy: Sequence[float | None] = (),
    title: str = "",
) -> Figure:
    """Draw the loss by step, and the accuracies by epoch (in [0, 1]) beside it.

    The smoothed loss is the mean of the last 50 steps, or of a tenth of a shorter training.

    Parameters
    ----------
    losses : History, or sequence of float (steps,)
        Of a history, the measures of its epochs are drawn: the accuracy on training, validation
        and test data, or what else the loss is judged by; and the loss on validation data.
    train_accuracy, test_accuracy : sequence of float (epochs,)
        Without a history.
    """
    measure = "accuracy"
    lines: Mapping[str, Sequence[float | None]] = {"train": train_accuracy, "test": test_accuracy}
    validated: list[float | None] = []
    if isinstance(losses, Trained):
        if len(train_accuracy) or len(test_accuracy):
            raise ArgumentError("losses is a history, which has the accuracies; leave them out.")
        measure, lines = _measured(losses.epochs)
        validated = [(epoch.validation or {}).get("loss") for epoch in losses.epochs]
        losses = losses.losses
    figure = new_figure(9, 3.6, title)
    loss_axes, axes = figure.subplots(1, 2)
    loss_axes.plot(np.arange(1, len(losses) + 1), losses, color="0.8", linewidth=0.6, label="step")
    smooth = _smoothed(host(losses), max(1, min(50, len(losses) // 10)))
    loss_axes.plot(np.arange(1, len(losses) + 1), smooth, color="C0", label="smoothed")
    ends = [(i + 1) * len(losses) / len(validated) for i in range(len(validated))]
    found = [(end, loss) for end, loss in zip(ends, validated, strict=True) if loss is not None]
    if found:  # epochs are drawn as if they were of equal length
        (line,) = loss_axes.plot(*zip(*found, strict=True), "^-", color="C2", label="validation")
        line.set_markersize(4)
    loss_axes.set(xlabel="step", ylabel="loss", yscale="log")
    scale, unit = (100, " (%)") if measure == "accuracy" else (1, "")
    for part, values in lines.items():
        label, style = _PARTS[part]
        known = [(i + 1, scale * v) for i, v in enumerate(values) if v is not None]
        if known:
            axes.plot(*zip(*known, strict=True), style, label=label, markersize=4)
    epochs = max(map(len, lines.values()), default=0)
    axes.set(xlabel="epoch", ylabel=f"{measure}{unit}", xlim=(0.5, max(1, epochs) + 0.5))
    legend_below(figure)
    for panel in (loss_axes, axes):
        _number_whole(panel)
        panel.grid(alpha=0.3)
    return figure


_PARTS = {
    "train": ("training (mean over the epoch)", "o--"),
    "validation": ("validation", "^-"),
    "test": ("test", "s-"),
}


def _measured(epochs: Sequence[Any]) -> tuple[str, dict[str, list[float | None]]]:
    """Return the name of the first measure of epochs, and its values for each part."""
    names = [name for epoch in epochs for name in epoch.train or {} if name != "loss"]
    measure = names[0] if names else "accuracy"
    return measure, {
        part: [(getattr(epoch, part) or {}).get(measure) for epoch in epochs] for part in _PARTS
    }


def rate_curve(
    rates: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    suggestion: float | None = None,
    title: str = "",
) -> Figure:
    """Draw the loss by the learning rate, on a logarithmic scale of rates.

    Parameters
    ----------
    rates, losses, smoothed : array or sequence of float, (n,)
        Of each step of a training whose rate rises, such as `xpdl.tuning.find_learning_rate`
        makes. The axis fits the smoothed losses; single ones beyond it are cut off.
    suggestion : float, optional
        A rate to mark.
    """
    x, y, means = (host(values) for values in (rates, losses, smoothed))
    if not x.shape == y.shape == means.shape or x.ndim != 1 or not x.size or x.min() <= 0:
        raise ArgumentError(
            "rates, losses and smoothed must be (n,), of one length and not empty, and rates "
            f"above 0; got shapes {x.shape}, {y.shape} and {means.shape}."
        )
    figure = new_figure(6, 4, title)
    axes = figure.subplots()
    axes.plot(x, y, color="0.8", linewidth=0.6, label="step")
    axes.plot(x, means, color="C0", label="smoothed")
    if suggestion is not None:
        label = f"suggestion: {suggestion:.2g}"
        axes.axvline(suggestion, color="C1", linestyle="--", label=label)
    low, high = float(means.min()), float(means.max())
    room = 0.1 * (high - low or abs(high) or 1.0)
    axes.set(xscale="log", xlabel="learning rate", ylabel="loss", ylim=(low - room, high + room))
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def _smoothed(values: HostFloats, window: int) -> HostFloats:
    """Return the mean of the last `window` values at each place.

    Where a value is not finite there is none, NaN, and it counts in no other mean.
    """
    if len(values) == 0:
        return values
    missing = ~np.isfinite(values)
    # Each sum by itself: a difference of running sums would lose what is small beside the others.
    total, count = (
        np.convolve(numbers, np.ones(min(window, len(values))))[: len(values)]
        for numbers in (np.where(missing, 0.0, values), ~missing)
    )
    return np.where(missing, np.nan, total / np.maximum(count, 1))
