"""What every picture begins with: an empty figure, and numbers that Matplotlib can take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from xpdl.backends import backend_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES = 0.085  # of a letter, at most, on the average

HostFloats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def new_figure(width: float, height: float, title: str = "") -> Figure:
    """Return an empty figure of that many inches, whose parts make room for each other."""
    # Matplotlib is slow to load, and not wanted where nothing is drawn.
    from xpdl.plots.shown import ShownFigure

    figure = ShownFigure(figsize=(width, height), layout="constrained")
    if title:
        figure.suptitle(title, fontsize="large")
    return figure


def legend_below(figure: Figure) -> None:
    """Name a figure's lines below it, where the names cover nothing; one alone needs no name."""
    names = [name for axes in figure.axes for name in axes.get_legend_handles_labels()[1]]
    if len(names) < 2:
        return
    wide = _INCHES * (max(map(len, names)) + 6)  # with the line before it
    columns = max(1, min(len(names), int(figure.get_figwidth() / wide)))
    figure.legend(loc="outside lower center", ncols=columns, fontsize="small")


def host(values: Any) -> HostFloats:
    """Return numbers, on any device or in a list, as float64 on the host; None becomes NaN."""
    if hasattr(values, "dtype") and hasattr(values, "shape") and values.shape:
        values = backend_of(values).to_numpy(values)
    return np.asarray(values, dtype=np.float64)
