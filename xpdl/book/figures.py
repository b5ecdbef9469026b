"""Figures and pictures that a script shows, kept as files where there is no screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from xpdl.files import replacing


@contextmanager
def saving_figures(folder: Path, name: str) -> Iterator[None]:
    """For a block, let what Matplotlib and Pillow would show become ``folder/name-1.png``, ....

    Figures that are shown are then closed, as if their windows had been.
    """
    import matplotlib
    from matplotlib import pyplot
    from PIL import Image

    numbers = count(1)

    def next_file() -> Path:
        return folder / f"{name}-{next(numbers)}.png"

    def show_figures(*arguments: Any, **options: Any) -> None:
        for number in pyplot.get_fignums():
            with replacing(next_file()) as file:
                pyplot.figure(number).savefig(file, format="png")
        if options.get("block") is not False:
            pyplot.close("all")

    def show_picture(picture: Any, *arguments: Any, **options: Any) -> None:
        if picture.mode in ("F", "CMYK", "YCbCr", "LAB", "HSV"):  # which PNG has not
            picture = picture.convert(Image.getmodebase(picture.mode))
        with replacing(next_file()) as file:
            picture.save(file, format="png")

    before = matplotlib.get_backend(), pyplot.show, Image.Image.show
    matplotlib.use("agg")
    pyplot.show, Image.Image.show = show_figures, show_picture  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        pyplot.close("all")
        pyplot.show, Image.Image.show = before[1:]  # type: ignore[method-assign]
        matplotlib.use(before[0])
