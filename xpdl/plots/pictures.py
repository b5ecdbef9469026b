"""Grids of small pictures: digits, filters, what filters see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpdl.arguments import number, whole_number
from xpdl.errors import ArgumentError, ShapeError
from xpdl.plots.canvas import HostFloats, host, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_LONGEST_NAME = 14  # above a picture, in letters


def picture_grid(
    images: Any,
    titles: Sequence[str] = (),
    title: str = "",
    *,
    columns: int = 8,
    cmap: str = "gray_r",
    limits: tuple[float, float] | None = None,
    size: float = 1.0,
) -> Figure:
    """Draw pictures beside and below one another.

    Parameters
    ----------
    images : array (N, H, W), (N, 1, H, W) or (N, 3, H, W), or sequence of arrays (H, W)
        In a sequence each may have its own size. Three channels are red, green and blue, bytes or
        from 0 to 1.
    titles : sequence of str, optional
        What stands above each; one a picture, or none.
    columns : int
        How many stand side by side.
    limits : (float, float), optional
        What is white and what is black; by default each picture's least and greatest number.
    size : float
        Width and height of each, in inches.
    """
    pictures = _pictures(images)
    if titles and len(titles) != len(pictures):
        raise ArgumentError(f"{len(titles)} titles for {len(pictures)} images; give one each.")
    side = number("size", size, above=0)
    columns = min(whole_number("columns", columns), max(1, len(pictures)))
    rows = max(1, -(-len(pictures) // columns))
    lines = max((text.count("\n") + 1 for text in titles), default=0)
    height = side + 0.05 + 0.17 * lines
    width = max((side + 0.125) * columns, 0.1 * len(title))  # so that the title is not cut off
    figure = new_figure(width, (0.5 if title else 0.1) + height * rows, title)
    low, high = limits or (None, None)
    for i, axes in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        if i < len(pictures):
            _show(axes, pictures[i], cmap, low, high)
            axes.set_title(titles[i] if titles else "", fontsize=9)
            axes.set_anchor("N")  # so that titles stand in line over pictures of several shapes
        else:
            axes.set_axis_off()
    return figure


def _show(
    axes: Axes,
    picture: HostFloats,
    cmap: str = "gray",
    low: float | None = None,
    high: float | None = None,
) -> None:
    """Draw a picture, with a thin frame and without an axis."""
    axes.imshow(picture, cmap=cmap, interpolation="nearest", vmin=low, vmax=high)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(color="0.8", linewidth=0.5)


def _pictures(images: Any) -> list[HostFloats]:
    """Return the pictures, (H, W) or in colour (H, W, 3), in an array or a sequence."""
    if getattr(images, "ndim", 0) == 4 and images.shape[1] == 3:
        scale = 255 if images.dtype.kind in "iu" else 1
        colored = np.clip(host(images).transpose(0, 2, 3, 1) / scale, 0, 1)
        return list(colored)
    stack = host(images) if hasattr(images, "shape") else None
    if stack is not None and stack.ndim == 4 and stack.shape[1] == 1:
        stack = stack[:, 0]
    pictures = [host(image) for image in images] if stack is None else list(stack)
    if (stack is not None and stack.ndim != 3) or any(a.ndim != 2 for a in pictures):
        got = stack.shape if stack is not None else [a.shape for a in pictures]
        raise ShapeError(
            "images must be (N, H, W), (N, 1, H, W) or (N, 3, H, W), or a sequence of (H, W), "
            f"got {got}."
        )
    return pictures


def misclassified(
    images: Any,
    labels: Sequence[int],
    answers: Sequence[int],
    class_names: Sequence[str] | None = None,
    title: str = "",
    most: int = 48,
    cmap: str = "gray_r",
) -> Figure:
    """Draw pictures with their label and the network's other answer, as Figure 8-2 of the book.

    Parameters
    ----------
    images : array (N, H, W), (N, 1, H, W) or (N, 3, H, W)
    labels, answers : sequence of int, (N,)
        The right class and the answer.
    class_names : sequence of str, optional
        What the classes are called; their numbers by default.
    most : int
        How many at most; the first ones.
    cmap : str
        Of grey ones: by default 0 is white paper; "gray" is for photographs.
    """
    if not len(images) == len(labels) == len(answers):
        raise ArgumentError(
            f"images, labels and answers must be of one length, got {len(images)}, "
            f"{len(labels)} and {len(answers)}."
        )
    most_classes = 1 + max([*labels, *answers], default=0)
    names = class_names or [str(i) for i in range(most_classes)]
    if len(names) < most_classes:
        raise ArgumentError(f"class_names must be {most_classes} names at least, got {names!r}.")
    if min([*labels, *answers], default=0) < 0:
        raise ArgumentError(f"classes begin at 0, got {min([*labels, *answers])}.")
    count = min(len(images), most)
    pairs = [(_short(names[labels[i]]), _short(names[answers[i]])) for i in range(count)]
    gap = " " if all(len(label + answer) < 8 for label, answer in pairs) else "\n"
    more = f" (the first {count} of {len(images)})" if count < len(images) else ""
    return picture_grid(
        images[:count],
        [f"{label} →{gap}{answer}" for label, answer in pairs],
        f"{title}label → inference{more}" if count else f"{title}none misclassified",
        cmap=cmap,
    )


def _short(name: str) -> str:
    """Return a class's name as it fits above a picture."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"


def filters(weights: Mapping[str, Any], title: str = "", *, columns: int = 10) -> Figure:
    """Draw a convolution's filters, a block for each entry. Book, figure 7-24.

    Parameters
    ----------
    weights : mapping of str to array (FN, C, FH, FW)
        Such as those before and after training; the first channel is drawn. In each block the
        least number is black and the greatest white.
    """
    blocks = {name: host(w) for name, w in weights.items()}
    for name, w in blocks.items():
        if w.ndim != 4 or not w.size:
            raise ShapeError(f"the filters {name!r} must be (FN, C, FH, FW), got {w.shape}.")
    if not blocks:
        raise ArgumentError("weights is empty; give the filters of one layer at least.")
    columns = whole_number("columns", columns)
    rows = [-(-len(w) // columns) for w in blocks.values()]
    figure = new_figure(0.6 * columns, 0.6 * sum(rows) + 0.5 * len(rows), title)
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=rows)
    for part, count, (name, w) in zip(parts.flat, rows, blocks.items(), strict=True):
        part.suptitle(name, fontsize="medium")
        low, high = w[:, 0].min(), w[:, 0].max()
        for i, axes in enumerate(part.subplots(count, columns, squeeze=False).flat):
            if i < len(w):
                _show(axes, w[i, 0], "gray", low, high)
            else:
                axes.set_axis_off()
    return figure


def feature_maps(
    image: Any, weights: Any, maps: Any, names: Sequence[str] = (), title: str = ""
) -> Figure:
    """Draw a picture, some filters, and what each makes of the picture. Book, figure 7-25.

    Parameters
    ----------
    image : array (H, W)
    weights : array (K, FH, FW)
        The filters.
    maps : array (K, OH, OW)
        Their outputs.
    names : sequence of str, optional
        What the filters are called.
    """
    picture, kernels, results = host(image), host(weights), host(maps)
    if picture.ndim != 2 or kernels.ndim != 3 or results.ndim != 3 or len(kernels) != len(results):
        raise ShapeError(
            "image, weights and maps must be (H, W), (K, FH, FW) and (K, OH, OW), got "
            f"{picture.shape}, {kernels.shape} and {results.shape}."
        )
    if names and len(names) != len(kernels):
        raise ArgumentError(f"{len(names)} names for {len(kernels)} filters; give one each.")
    figure = new_figure(6, 0.5 + 1.8 * len(kernels), title)
    grid = figure.subplots(len(kernels), 3, squeeze=False, width_ratios=(1, 0.5, 1))
    for i, (left, middle, right) in enumerate(grid):
        for axes, array, label in (
            (left, picture, "input"),
            (middle, kernels[i], names[i] if names else f"filter {i + 1}"),
            (right, results[i], "output"),
        ):
            _show(axes, array)
            axes.set_title(label, fontsize=9)
    return figure
