"""Pictures, one function a kind; each returns a Matplotlib figure, drawn without a window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpdl.errors import ArgumentError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(
    losses: Sequence[float],
    train_accuracy: Sequence[float | None] = (),
    test_accuracy: Sequence[float | None] = (),
    title: str = "",
) -> Figure:
    """Draw the loss by step, and the accuracies by epoch (in [0, 1]) beside it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    loss_axes.plot(np.arange(1, len(losses) + 1), losses, color="0.8", linewidth=0.6, label="step")
    smooth = _smoothed(np.asarray(losses, dtype=float))
    loss_axes.plot(np.arange(1, len(losses) + 1), smooth, color="C0", label="smoothed")
    loss_axes.set(xlabel="step", ylabel="loss", yscale="log")
    loss_axes.legend()
    for values, label, style in (
        (train_accuracy, "training (mean over the epoch)", "o--"),
        (test_accuracy, "test", "s-"),
    ):
        known = [(i + 1, 100 * v) for i, v in enumerate(values) if v is not None]
        if known:
            accuracy_axes.plot(*zip(*known, strict=True), style, label=label, markersize=4)
    accuracy_axes.set(xlabel="epoch", ylabel="accuracy (%)")
    accuracy_axes.xaxis.get_major_locator().set_params(integer=True)
    if accuracy_axes.lines:
        accuracy_axes.legend()
    for axes in (loss_axes, accuracy_axes):
        axes.grid(alpha=0.3)
    if title:
        figure.suptitle(title)
    return figure


def layer_times(
    names: Sequence[str], forward: Sequence[float], backward: Sequence[float], title: str = ""
) -> Figure:
    """Draw the time of each part of a step, forward and backward, in seconds. Book, figure 8-14.

    The share of the whole is written beside each bar.
    """
    from matplotlib.figure import Figure

    if not len(names) == len(forward) == len(backward):
        raise ArgumentError("names, forward and backward must be equally many.")
    figure = Figure(figsize=(7, 0.9 + 0.24 * len(names)), layout="constrained")
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
    axes.legend(loc="lower right")
    axes.grid(axis="x", alpha=0.3)
    if title:
        axes.set_title(title, fontsize="medium")
    return figure


def _smoothed(values: np.ndarray[Any, np.dtype[np.float64]], window: int = 50) -> Any:
    """Return the mean of the last `window` values at each place."""
    if not len(values):
        return values
    total = np.concatenate([[0.0], np.cumsum(values)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - window, 0)
    return (total[end] - total[start]) / (end - start)


def misclassified(
    images: Any,
    labels: Sequence[int],
    answers: Sequence[int],
    class_names: Sequence[str] | None = None,
    title: str = "",
    most: int = 48,
) -> Figure:
    """Draw pictures with their label and the network's other answer, as Figure 8-2 of the book.

    Parameters
    ----------
    images : host array (N, H, W)
        Grey, 0 for white paper.
    labels, answers : sequence of int, (N,)
        The right class and the answer.
    class_names : sequence of str, optional
        What the classes are called; their numbers by default.
    most : int
        How many at most; the first ones.
    """
    from matplotlib.figure import Figure

    if not len(images) == len(labels) == len(answers):
        raise ArgumentError(
            f"images, labels and answers must be of one length, got {len(images)}, "
            f"{len(labels)} and {len(answers)}."
        )
    names = class_names or [str(i) for i in range(1 + max([*labels, *answers], default=0))]
    count = min(len(images), most)
    columns = 8
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(9, 0.7 + 1.35 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        axes.set_axis_off()
        if i < count:
            axes.imshow(images[i], cmap="gray_r", interpolation="nearest")
            label, answer = names[labels[i]], names[answers[i]]
            gap = " " if len(label + answer) < 8 else "\n"
            axes.set_title(f"{label} →{gap}{answer}", fontsize=9)
    more = f" (the first {count} of {len(images)})" if count < len(images) else ""
    figure.suptitle(f"{title}label → inference{more}" if count else f"{title}none misclassified")
    return figure
