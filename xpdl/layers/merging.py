"""Layers of several inputs, where the branches of a graph meet."""

from __future__ import annotations

from functools import reduce
from itertools import accumulate
from typing import Any

from xpdl.arguments import whole_number
from xpdl.backends import Array, Shape, array_module
from xpdl.errors import ShapeError, shown
from xpdl.layers.base import Layer
from xpdl.layers.kept import Kept


class Add(Layer):
    """The sum of its inputs, all of one shape: y = x1 + x2 + ...

    dL/dxi = dL/dy        (book, figure 5-9)
    """

    kind = "add"
    arity = None
    count: Any = Kept()

    def plan(self, *input_shapes: Shape) -> Shape:
        return _one_shape("Add", input_shapes)

    def expect(self, *xs: Array) -> None:
        for x in xs:
            super().expect(x)
        self.plan(*(x.shape for x in xs))

    def forward(self, *xs: Array, train: bool = False) -> Array:  # type: ignore[override]
        if train:
            self.count = len(xs)
        return reduce(_sum, xs)

    def backward(self, dout: Array) -> tuple[Array, ...]:  # type: ignore[override]
        return (dout,) * self.count


class Multiply(Layer):
    """The product of its inputs, all of one shape: y = x1 x2 ...

    dL/dxi = dL/dy times the other inputs        (book, figure 5-13)
    """

    kind = "multiply"
    arity = None
    xs: Any = Kept()

    def plan(self, *input_shapes: Shape) -> Shape:
        return _one_shape("Multiply", input_shapes)

    def expect(self, *xs: Array) -> None:
        for x in xs:
            super().expect(x)
        self.plan(*(x.shape for x in xs))

    def forward(self, *xs: Array, train: bool = False) -> Array:  # type: ignore[override]
        if train:
            self.xs = xs
        return reduce(_product, xs)

    def backward(self, dout: Array) -> tuple[Array, ...]:  # type: ignore[override]
        xs = self.xs
        return tuple(
            reduce(_product, [other for j, other in enumerate(xs) if j != i], dout)
            for i in range(len(xs))
        )


class Concatenate(Layer):
    """Its inputs side by side along an axis: y = (x1, x2, ...).

    dL/dxi = that part of dL/dy. Images (C, H, W) are laid channel by channel, as in GoogLeNet.

    Parameters
    ----------
    axis : int
        Of the batch, so that 1, the first of a sample, is that of channels or features.
    """

    kind = "concatenate"
    arity = None
    options = ("axis",)
    lengths: Any = Kept()

    def __init__(self, axis: int = 1) -> None:
        super().__init__()
        self.axis = whole_number("axis", axis)

    def plan(self, *input_shapes: Shape) -> Shape:
        first, i = input_shapes[0], self.axis - 1
        for shape in input_shapes:
            others = [s[:i] + s[i + 1 :] for s in (first, shape)]
            if len(shape) <= i or len(shape) != len(first) or others[0] != others[1]:
                raise ShapeError(
                    f"Concatenate wants inputs that differ along axis {self.axis} alone, got "
                    f"{' and '.join(map(shown, input_shapes))}."
                )
        return (*first[:i], sum(shape[i] for shape in input_shapes), *first[i + 1 :])

    def expect(self, *xs: Array) -> None:
        for x in xs:
            super().expect(x)
        self.plan(*(x.shape[1:] for x in xs))
        if len({len(x) for x in xs}) > 1:
            raise ShapeError(
                f"Concatenate wants inputs of as many samples each, got {[len(x) for x in xs]}."
            )

    def forward(self, *xs: Array, train: bool = False) -> Array:  # type: ignore[override]
        if train:
            self.lengths = [x.shape[self.axis] for x in xs]
        return array_module(*xs).concatenate(xs, axis=self.axis)

    def backward(self, dout: Array) -> tuple[Array, ...]:  # type: ignore[override]
        ends = list(accumulate(self.lengths))
        before = (slice(None),) * self.axis
        return tuple(
            dout[(*before, slice(end - length, end))]
            for end, length in zip(ends, self.lengths, strict=True)
        )


def _one_shape(layer: str, shapes: tuple[Shape, ...]) -> Shape:
    if any(shape != shapes[0] for shape in shapes):
        raise ShapeError(
            f"{layer} wants inputs of one shape, got {' and '.join(map(shown, shapes))}; a layer "
            "before it (in a Residual: shortcut=Convolution(filters, 1)) can bring them to one."
        )
    return shapes[0]


def _sum(a: Array, b: Array) -> Array:
    """Return a + b, in the memory order of a."""
    xp = array_module(a, b)
    return xp.add(a, b, out=xp.empty_like(a))


def _product(a: Array, b: Array) -> Array:
    """Return a b, in the memory order of a."""
    xp = array_module(a, b)
    return xp.multiply(a, b, out=xp.empty_like(a))
