"""The nodes of a computational graph: shapes that layers are called on, without any arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

from xpdl.arguments import sizes
from xpdl.backends import Shape
from xpdl.errors import ArgumentError, ShapeError, shown

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


def made_by(layer: Any, nodes: tuple[Any, ...], name: str | None) -> Node:
    """Return the node that a layer is when it reads `nodes`; see `Layer.__call__`."""
    kind = type(layer).__name__
    for node in nodes:
        if not isinstance(node, Node):
            raise ArgumentError(
                f"{kind} was called on {shown(node)}; call it on nodes, such as "
                "xpdl.Input((3, 32, 32)), to describe a graph, and layer.forward(x) to compute."
            )
    return Node(planned(layer, f"{name or layer!r}", [n.shape for n in nodes]), layer, nodes, name)


def planned(layer: Any, name: str, shapes: Sequence[Shape]) -> Any:
    """Return the shape of what a layer makes of inputs of these shapes; errors say its `name`.

    Raises
    ------
    ArgumentError
        If it belongs to a network, or takes more inputs, or fewer.
    ShapeError
        If the shapes do not fit it.
    """
    if layer.owned:
        raise ArgumentError(f"{name} already belongs to a network; make a new layer.")
    layer.check_arity(len(shapes))
    try:
        return layer.plan(*shapes)
    except ShapeError as error:
        told = f"input{'s' if len(shapes) > 1 else ''} {' and '.join(map(str, shapes))}"
        raise ShapeError(f"{name}, with {told}: {error}") from error


def behind(ends: Iterable[Node]) -> list[Node]:
    """Return all nodes that `ends` are computed from, and these, in the order of their birth."""
    found: set[Node] = set()
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += node.reads
    return sorted(found, key=lambda node: node.born)


def named_nodes(argument: str, given: Any, name: str) -> dict[str, Node]:
    """Return the nodes `given`, by their names."""
    if isinstance(given, Node):
        return {given.name or name if isinstance(given, Input) else name: given}
    if isinstance(given, list | tuple):
        nodes = given
        given = {getattr(n, "name", None) or f"{name}{i}": n for i, n in enumerate(nodes, 1)}
        if len(given) < len(nodes):
            raise ArgumentError(f"{argument}: two nodes have one name; give them their own.")
    if not isinstance(given, Mapping) or not given:
        raise ArgumentError(f"{argument} must be a node, or several by name, got {shown(given)}.")
    for key, node in given.items():
        wanted = Input if argument == "inputs" else Node
        if not isinstance(key, str) or not key or not isinstance(node, wanted):
            kind = "an Input(shape)" if argument == "inputs" else "a node"
            raise ArgumentError(f"{argument}: {shown(key)} must name {kind}, got {shown(node)}.")
    return dict(given)


def names_of(nodes: Sequence[Node]) -> list[str]:
    """Return each node's name: the one it was given, or its layer's kind and number."""
    return list(numbered([(node.name, node.layer) for node in nodes]))


def numbered(layers: Iterable[tuple[str | None, Any]]) -> Iterator[str]:
    """Yield a name for each (name or None, layer): conv1, relu1, conv2 ..."""
    count: Counter[str] = Counter()
    for name, layer in layers:
        kind = getattr(layer, "kind", "layer")
        if name is None:
            count[kind] += 1
        yield name or f"{kind}{count[kind]}"
