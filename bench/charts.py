"""The pictures beside the figures in ``bench/results``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure


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
    figure = Figure(figsize=(7, 0.9 + 0.34 * len(values)), layout="constrained")
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
    figure = Figure(figsize=(2.6 * len(results), 2.9), layout="constrained")
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


def save(figure: Figure, path: Path) -> None:
    """Write a picture, and say where."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    print(f"  {path}")
