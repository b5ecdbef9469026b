"""What the arguments of `Network` say: a graph, its losses, its class names."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from xpdl.arguments import number, sizes
from xpdl.backends import Shape
from xpdl.errors import ArgumentError, ShapeError, UnknownNameError, shown
from xpdl.layers import Graph, Node, Normalize, Sequential, Softmax
from xpdl.losses import Loss, SoftmaxWithLoss


def described(
    layers: Any, shape: Any, normalize: Normalize | None = None
) -> tuple[Graph, dict[str, Shape]]:
    """Return the graph, and its inputs' shapes, that the first two arguments of `Network` say.

    Raises
    ------
    ArgumentError
        If they say none.
    """
    _expect_normalize(normalize)
    if _are_nodes(layers):
        if normalize is not None:
            raise ArgumentError("in a graph, put Normalize(...) behind the Input itself.")
        if shape is None:
            raise ArgumentError("the outputs are missing: Network(x, Affine(10)(x)).")
        graph = Graph(layers, shape)
        return graph, {name: node.shape for name, node in graph.starts.items()}
    body = layers if isinstance(layers, Graph) else Sequential(layers)
    if normalize is not None:
        body = Sequential({"normalize": normalize, **body.layers})
    if len(body.inputs) > 1 or isinstance(shape, Mapping):
        given = shape if isinstance(shape, Mapping) else {}
        if given.keys() != set(body.inputs):
            raise ArgumentError(
                f"input_shape must be a dictionary of {', '.join(body.inputs)}, got {shown(shape)}."
            )
        return body, {name: sizes(name, given[name]) for name in body.inputs}
    return body, {body.inputs[0]: sizes("input_shape", shape)}


def behind_normalize(x: Node, normalize: Normalize | None) -> Node:
    """Return x, or what a `Normalize` makes of it, if there is one.

    Raises
    ------
    ArgumentError
        If `normalize` is none.
    """
    _expect_normalize(normalize)
    return x if normalize is None else normalize(x)


def _expect_normalize(normalize: Any) -> None:
    if normalize is not None and not isinstance(normalize, Normalize):
        raise ArgumentError(f"normalize must be a Normalize(...), got {shown(normalize)}.")


def losses_of(
    outputs: Iterable[str], loss: Any, weights: Mapping[str, float] | None
) -> tuple[dict[str, Loss], dict[str, float]]:
    """Return a loss for each output, and what it counts, as the arguments of `Network` say.

    Raises
    ------
    ArgumentError
        If they do not fit the outputs.
    """
    names = list(outputs)
    if isinstance(loss, Mapping):
        losses = dict(loss)
    elif loss is None or len(names) == 1:
        losses = {name: SoftmaxWithLoss() if loss is None else loss for name in names}
    else:
        raise ArgumentError(f"loss must be a dictionary of {', '.join(names)}, got {shown(loss)}.")
    for name, one in losses.items():
        if name not in names:
            raise UnknownNameError("output in loss,", name, names)
        if not isinstance(one, Loss):
            raise ArgumentError(f"loss must be a Loss such as SoftmaxWithLoss(), got {shown(one)}.")
    lacking = [name for name in names if name not in losses]
    if lacking:
        raise ArgumentError(f"loss lacks the output {', '.join(lacking)}.")
    weights = {} if weights is None else weights
    if not isinstance(weights, Mapping):
        raise ArgumentError(f"loss_weights must be a dictionary, got {shown(weights)}.")
    for name in weights:
        if name not in names:
            raise UnknownNameError("output in loss_weights,", name, names)
    return (
        {name: losses[name] for name in names},
        {name: number(f"the weight of {name}", weights.get(name, 1.0)) for name in names},
    )


def normalizing(body: Graph) -> dict[str, Normalize]:
    """Return the layers that say what inputs mean, by the input's name."""
    found = {}
    for place in body.places:
        if isinstance(place.layer, Normalize):
            if place.reads[0] not in body.inputs:
                raise ArgumentError(
                    f"{place.name} reads {place.reads[0]}: Normalize says what an input means, and "
                    "stands first."
                )
            found[place.reads[0]] = place.layer
    return found


def read_class_names(names: Any) -> tuple[str, ...] | None:
    """Return what the classes are called, as a tuple."""
    if names is None:
        return None
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed:
        raise ArgumentError(f"class_names must be a list of str, got {shown(names)}.")
    return tuple(names)


def check_class_names(names: tuple[str, ...] | None, loss: Loss, shape: Shape) -> None:
    """See that there is a name for each class of the first output."""
    if names is not None and loss.classifies and len(names) not in shape:
        raise ShapeError(f"class_names has {len(names)} names, the network ends in {shape}.")


def warn_of_two_softmaxes(body: Graph, losses: Iterable[Loss]) -> None:
    """Say where scores go through softmax twice, which learns badly."""
    for end, loss in zip(body.ends, losses, strict=True):
        layer = next((p.layer for p in body.places if p.name == end), None)
        if isinstance(loss, SoftmaxWithLoss) and isinstance(layer, Softmax):
            warnings.warn(
                f"{end} is a Softmax before a SoftmaxWithLoss, which has one of its own: the "
                "network would learn slowly. Leave it out; functions.softmax(scores) gives "
                "probabilities.",
                stacklevel=4,
            )


def _are_nodes(layers: Any) -> bool:
    if isinstance(layers, Node):
        return True
    several = list(layers.values()) if isinstance(layers, Mapping) else layers
    return isinstance(several, list | tuple) and any(isinstance(n, Node) for n in several)
