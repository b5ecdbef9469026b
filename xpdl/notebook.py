"""A bar in a notebook's cell, which needs nothing but the notebook itself."""

from __future__ import annotations

import sys
from html import escape
from importlib import import_module
from typing import Any


def in_notebook() -> bool:
    """Say whether what is displayed lands in a cell: in Jupyter, VS Code, Colab ..."""
    return getattr(_shell(), "kernel", None) is not None


def _shell() -> Any:
    """Return IPython's shell, if this runs in one."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()


class CellBar:
    """A bar in the output of the cell that runs, drawn anew in its place."""

    def __init__(self) -> None:
        self._cell, self._handle = None, None

    def show(self, share: float, text: str) -> None:
        """Show how much is done, of 1, and a text beside it."""
        bar = f'<progress value="{share:.4f}" max="1" style="vertical-align: middle"></progress>'
        self._update(
            {
                "text/html": f"{bar} <span>{share:.0%} {escape(text)}</span>",
                "text/plain": f"{share:.0%} {text}",
            }
        )

    def clear(self) -> None:
        """Leave the place empty, for another time."""
        if self._handle is not None:
            self._update({"text/html": "", "text/plain": ""})

    def _update(self, shown: dict[str, str]) -> None:
        cell = _shell().execution_count
        if self._handle is None or cell != self._cell:
            display = import_module("IPython.display").display
            self._cell, self._handle = cell, display(shown, raw=True, display_id=True)
        else:
            self._handle.update(shown, raw=True)
