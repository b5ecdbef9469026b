"""The pictures beside the figures in ``bench/results``."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _figure(width: float, height: float) -> Figure:
    """Return a figure, in inches; what is measured without a picture needs no Matplotlib."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def bars(path: Path, rows: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Draw medians as bars, with the spread from 10 % to 90 %."""
    medians = {name: row["median_ms"] for name, row in rows.items()}
    below = [max(0.0, row["median_ms"] - row["from_ms"]) for row in rows.values()]
    above = [max(0.0, row["to_ms"] - row["median_ms"]) for row in rows.values()]
    label = "ms (bar: median, line: 10 % to 90 %)"
    _bars(path, medians, title, label, xerr=[below, above], ecolor="0.3", capsize=3)


def memory(path: Path, rows: Mapping[str, Mapping[str, float]], title: str) -> None:
    """Draw the memory over the data."""
    _bars(path, {name: row["over_data_mib"] for name, row in rows.items()}, title, "MiB")


def _bars(path: Path, values: Mapping[str, float], title: str, label: str, **options: Any) -> None:
    """Draw a bar a program, ours in colour."""
    figure = _figure(7, 0.9 + 0.34 * len(values))
    axes = figure.subplots()
    colors = ["C0" if name.startswith("xpdl") else "0.65" for name in values]
    axes.barh(list(values), list(values.values()), color=colors, **options)
    axes.invert_yaxis()
    axes.set(xlabel=label)
    axes.set_title(title, fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    save(figure, path)


def curves(path: Path, results: Mapping[str, Mapping[str, Any]], title: str) -> None:
    """Draw each curve of `bench.scaling`, on logarithmic axes."""
    figure = _figure(2.6 * len(results), 2.9)
    for axes, (name, curve) in zip(figure.subplots(1, len(results)), results.items(), strict=True):
        axes.loglog(curve["values"], curve["step_ms"], "o-", markersize=4, label="ms a step")
        if "arrays_mib" in curve:
            axes.loglog(curve["values"], curve["arrays_mib"], "s--", markersize=4, label="MiB")
        axes.set_xticks(curve["values"], [str(value) for value in curve["values"]])
        axes.minorticks_off()
        axes.set(xlabel=name)
        axes.set_title(f"time ~ work^{curve['time_exponent']:.2f}", fontsize="small")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.suptitle(title, fontsize="medium")
    save(figure, path)


def accuracy_over_time(
    path: Path,
    points: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    book: float | None = None,
) -> None:
    """Draw a dot (seconds, accuracy) a training, and the mean of each program; ours in colour.

    `book` is an accuracy to be drawn as a line.
    """
    figure = _figure(7, 3.8)
    axes = figure.subplots()
    for (name, pairs), marker in zip(points.items(), cycle("osD^v"), strict=False):
        seconds, percent = [s for s, _ in pairs], [100 * a for _, a in pairs]
        color = "C0" if name.startswith("xpdl") else "0.5"
        mean = statistics.mean(seconds), statistics.mean(percent)
        axes.scatter(seconds, percent, s=26, c=color, alpha=0.5, marker=marker, linewidths=0)
        label = f"{name}: mean of {len(pairs)}, {mean[1]:.2f}% in {mean[0]:.0f} s"
        axes.scatter(
            *mean, s=110, c=color, marker=marker, edgecolors="black", zorder=3, label=label
        )
    axes.margins(0.12)
    axes.set(xlabel="seconds, the whole process")
    _finish_accuracies(figure, axes, title, book, columns=2)
    save(figure, path)


def accuracy_by_epoch(
    path: Path,
    accuracies: Sequence[float],
    epochs: int,
    answer: float,
    title: str,
    book: float | None = None,
) -> None:
    """Draw how accurate a network, or each of an ensemble, was after each of so many epochs.

    `answer` is what it came to in the end, together or over shifts; `book` is as in
    `accuracy_over_time`.
    """
    figure = _figure(7, 3.8)
    axes = figure.subplots()
    members = [accuracies[i : i + epochs] for i in range(0, len(accuracies), epochs)]
    for i, (member, marker) in enumerate(zip(members, cycle("osD^v"), strict=False), 1):
        label = f"member {i}" if len(members) > 1 else "after each epoch"
        percent = [100 * accuracy for accuracy in member]
        places = range(1, len(member) + 1)
        axes.plot(places, percent, f"{marker}-", markersize=4, linewidth=1, label=label)
    axes.axhline(100 * answer, color="black", linewidth=1, label=f"in the end {answer:.2%}")
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="epoch")
    _finish_accuracies(figure, axes, title, book, columns=5)
    save(figure, path)


def _finish_accuracies(
    figure: Figure, axes: Axes, title: str, book: float | None, columns: int
) -> None:
    """Give a picture of accuracies the book's line, its title and a legend of so many columns."""
    if book is not None:
        label = f"the book's {book:.2%}"
        axes.axhline(100 * book, color="C3", linewidth=1, linestyle="--", label=label)
    axes.ticklabel_format(useOffset=False)
    axes.set(ylabel="test accuracy (%)")
    axes.set_title(textwrap.fill(title, 78), fontsize="medium")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small", ncols=columns)


def speed_ups(path: Path, results: Mapping[str, Any]) -> None:
    """Draw how many times as fast n ranks are, by the model, beside what others have measured."""
    figure = _figure(10, 4.2)
    ranks = results["ranks"]
    for axes, kind in zip(figure.subplots(1, 2), ("weak", "strong"), strict=True):
        axes.loglog(ranks, ranks, "--", color="0.7", label="n times")
        styles: dict[str, str] = {}
        for name, values in results["plan"].items():
            network, *link, scaling = name.split(", ")
            if scaling == kind:
                color = styles.setdefault(network, f"C{len(styles)}")
                line = "-" if link[0].startswith("NVLink") else ":"
                axes.loglog(ranks, values, line, color=color, label=f"{network}, {link[0]}")
        if kind == "weak":
            for (name, (n, times)), mark in zip(results["points"].items(), "*s^", strict=True):
                axes.plot(n, times, mark, color="k", label=name)
        axes.set_title(
            "as many rows for each rank" if kind == "weak" else "64 times as many rows, dealt out",
            fontsize="medium",
        )
        axes.set(xlabel="ranks", ylabel="times as fast as one", xlim=(1, 1000), ylim=(0.7, 1200))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a picture, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"  {path}")
