"""How much lies around an image before windows slide over it: as much on each side, or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from xpdl.backends import Array, Backend, Pads, Pair, Shape, spread
from xpdl.errors import ArgumentError, shown
from xpdl.layers.base import pair

Padding: TypeAlias = Pair | Pads | str
"""(down, across); or ((above, below), (left, right)); or "same"."""


def padding(argument: str, value: int | str | Sequence[int] | Sequence[Sequence[int]]) -> Padding:
    """Return `value` in one of the three ways to say it: equal sides, unequal ones, or "same"."""
    if isinstance(value, str) and value == "same":
        return "same"
    if not isinstance(value, tuple | list) or not any(isinstance(v, tuple | list) for v in value):
        try:
            return pair(argument, value, least=0)  # type: ignore[arg-type]
        except ArgumentError as error:
            hint = ' Or "same", or ((above, below), (left, right)).'
            raise ArgumentError(f"{error}{hint}") from None
    if len(value) != 2:
        raise ArgumentError(
            f"{argument} must be ((above, below), (left, right)) where its sides differ, "
            f"got {shown(value)}."
        )
    down, across = (pair(argument, axis, least=0) for axis in value)
    return (down[0], across[0]) if _even((down, across)) else (down, across)


def sides(pad: Padding, image: Sequence[int], size: Pair, stride: Pair, dilation: Pair) -> Pads:
    """Return the rows and columns around an image (H, W) that a padding comes to.

    "same" gives as many windows as there are steps in the image, OH = ceil(H / stride), with the
    odd row below and the odd column on the right, as TensorFlow and (at stride 1) PyTorch do.
    """
    if isinstance(pad, str):
        both = []
        for length, window, step, apart in zip(image, size, stride, dilation, strict=True):
            total = max(0, (-(-length // step) - 1) * step + spread(window, apart) - length)
            both.append((total // 2, total - total // 2))
        return both[0], both[1]
    down, across = pad
    if isinstance(down, tuple) and isinstance(across, tuple):
        return down, across
    return (down, down), (across, across)  # type: ignore[return-value]


def kept(pads: Pads, image: Sequence[int], size: Pair, stride: Pair) -> Pads:
    """Return `pads` with what must follow an image (H, W) for its last pixels to be seen, too.

    Windows go on until none is left over, as long as they begin in the image or before it; as
    PyTorch (``ceil_mode``) and Caffe have it.
    """
    axes = []
    for (before, after), length, window, step in zip(pads, image, size, stride, strict=True):
        steps = max(0, -(-(before + length + after - window) // step))
        if steps * step >= before + length:
            steps -= 1
        axes.append((before, max(0, steps * step + window - before - length)))
    return axes[0], axes[1]


def equal_part(pads: Pads) -> Pair:
    """Return the padding that primitives are told of; where sides differ, it is put around before.

    See `put_around`.
    """
    return (pads[0][0], pads[1][0]) if _even(pads) else (0, 0)


def put_around(backend: Backend, x: Array, pads: Pads, value: float = 0.0) -> Array:
    """Return images with `pads` of `value` around them, if its sides differ; else as they are.

    Primitives know equal padding, and add it themselves.
    """
    return x if _even(pads) else backend.surround(x, pads, value)


def shape_around(shape: Shape, pads: Pads) -> Shape:
    """Return the shape of what `put_around` makes of images (N, C, H, W)."""
    if _even(pads):
        return shape
    (n, c, h, w), (down, across) = shape, pads
    return n, c, h + sum(down), w + sum(across)


def take_off(dx: Array, pads: Pads, image: Sequence[int]) -> Array:
    """Return the gradient of an image (H, W) from that of what `put_around` made of it."""
    if _even(pads):
        return dx
    (above, _), (left, _) = pads
    return dx[:, :, above : above + image[0], left : left + image[1]]


def _even(pads: Pads) -> bool:
    return all(before == after for before, after in pads)
