"""Drawings that are blank, for tests that leave many and look at few: not a test itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.figure import Figure

from xpdl import plots

DRAW = {
    name: getattr(plots, name)
    for name in ("misclassified", "confusion_matrix", "learning_curves", "curves")
}


def draw_blank(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let pictures be blank, which is quicker; return what they are of, by the function's name."""
    drawn: dict[str, Any] = {}

    def blank(name: str) -> Callable[..., Figure]:
        def keep(*given: Any, **_: Any) -> Figure:
            drawn[name] = given
            figure = Figure(figsize=(1, 1))
            figure.subplots().plot([0, 1])
            return figure

        return keep

    for name in DRAW:
        monkeypatch.setattr(plots, name, blank(name))
    return drawn
