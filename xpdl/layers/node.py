"""The nodes of a computational graph: shapes that layers are called on, without any arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from xpdl.arguments import sizes
from xpdl.backends import Shape
from xpdl.errors import ArgumentError, shown

_born = count()


class Node:
    """What a layer makes of other nodes, in a network that is being described.

    Attributes
    ----------
    shape : tuple of int
        Of one sample, without the batch axis.
    layer : Layer or None
        What computes it; None for an `Input`.
    reads : tuple of Node
        What it is computed from.
    name : str or None
        What it is to be called in the network; by default its layer's kind and a number.
    """

    def __init__(
        self,
        shape: Shape,
        layer: Any = None,
        reads: tuple[Node, ...] = (),
        name: str | None = None,
    ) -> None:
        if name is not None and (not isinstance(name, str) or not name or "." in name):
            raise ArgumentError(f"name must be a text without dots, got {shown(name)}.")
        self.shape, self.layer, self.reads, self.name = shape, layer, reads, name
        self.born = next(_born)  # what it reads was born before it

    def __repr__(self) -> str:
        return f"<{self.name or self.layer or 'Input'}: {self.shape}>"


class Input(Node):
    """Where a graph begins: a place for samples of one shape.

    >>> x = Input((3, 32, 32))
    >>> y = ReLU()(Convolution(3, 3, pad=1)(x))
    >>> network = Network(x, Affine(10)(Add()(x, y)))

    Parameters
    ----------
    shape : int or tuple of int
        Of one sample, without the batch axis.
    name : str, optional
        Its name, for a network of several inputs.
    """

    def __init__(self, shape: int | Sequence[int], name: str | None = None) -> None:
        super().__init__(sizes("shape", shape), name=name)
