"""A figure that a notebook shows as it is."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """A figure of Matplotlib's that is a picture, though nobody said ``%matplotlib inline``."""

    def _repr_png_(self) -> bytes:
        """Return it as a PNG, which notebooks ask for."""
        stream = io.BytesIO()
        self.savefig(stream, format="png")
        return stream.getvalue()
