"""What a network is made of: layers in a graph, their arrays in one buffer, random numbers."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from xpdl.arguments import flag, number, sizes, whole_number
from xpdl.backends import Array, Backend, Shape, backend_of, get_backend
from xpdl.errors import ArgumentError, DeviceMemoryError, ShapeError, UnknownNameError, shown
from xpdl.layers import Graph, Layer, Node, Normalize, Sequential, Softmax, forget
from xpdl.layers.arrays import Arrays
from xpdl.losses import Loss, SoftmaxWithLoss
from xpdl.parameters import ArrayDict, Layout, Parameters
from xpdl.precision import Precision, get_precision

# Keep the random numbers of one seed apart: first values of weights, and dropout masks.
WEIGHT_STREAM, MASK_STREAM = 1, 2


class Parts:
    """A graph of layers, a loss for each output, and all parameters; see `Network`."""

    def _build(
        self,
        body: Graph,
        input_shapes: Mapping[str, Shape],
        *,
        losses: Mapping[str, Loss],
        loss_weights: Mapping[str, float],
        seed: int = 0,
        dtype: Any = None,
        weight_decay: float = 0.0,
        name: str | None = None,
        initialize: bool = True,
        class_names: Sequence[str] | None = None,
    ) -> None:
        """Plan the layers, make their arrays and draw first values."""
        self.name = type(self).__name__ if name is None or name == "" else name
        if not isinstance(self.name, str):
            raise ArgumentError(f"name must be a str, got {shown(name)}.")
        seed, initialize = whole_number("seed", seed, least=0), flag("initialize", initialize)
        precision, class_names = get_precision(dtype), _class_names(class_names)
        self.weight_decay = number("weight_decay", weight_decay)
        self.body, self.input_shapes = body, dict(input_shapes)
        self.losses, self.loss_weights = dict(losses), dict(loss_weights)
        planned = body.plan(*self.input_shapes.values())
        shapes = (planned,) if len(body.outputs) == 1 else planned
        self.output_shapes: dict[str, Shape] = dict(zip(body.outputs, shapes, strict=True))
        for output, loss in self.losses.items():
            loss.plan(self.output_shapes[output])
        self._warn_of_two_softmaxes()
        self.class_names = class_names
        self._check_class_names()
        self._leaves = dict(body.leaves())
        self._normalize = _normalizing(body)
        given, counted = (
            {
                f"{name}.{key}": backend_of(array).to_numpy(array)
                for name, leaf in self._leaves.items()
                for key, array in getattr(leaf, kind).items()
            }
            for kind in ("params", "state")
        )
        self._place(get_backend(), precision)
        self.reseed(seed)
        if initialize:
            self._draw(np.random.default_rng([WEIGHT_STREAM, seed]), given)
            for name, values in counted.items():
                self.state[name][...] = self.backend.asarray(values, dtype=precision.accumulate)

    def _check_class_names(self) -> None:
        """See that there is a name for each class."""
        names, wanted = self.class_names, next(iter(self.output_shapes.values()))
        if names is not None and self.loss_layer.classifies and len(names) not in wanted:
            raise ShapeError(f"class_names has {len(names)} names, the network ends in {wanted}.")

    def _warn_of_two_softmaxes(self) -> None:
        """Say where scores go through softmax twice, which learns badly."""
        for end, loss in zip(self.body.ends, self.losses.values(), strict=True):
            layer = next((p.layer for p in self.body.places if p.name == end), None)
            if isinstance(loss, SoftmaxWithLoss) and isinstance(layer, Softmax):
                warnings.warn(
                    f"{end} is a Softmax before a SoftmaxWithLoss, which has one of its own: the "
                    "network would learn slowly. Leave it out; functions.softmax(scores) gives "
                    "probabilities.",
                    stacklevel=4,
                )

    @property
    def input_shape(self) -> Any:
        """The shape of one sample; of several inputs, a dictionary of shapes."""
        return _one(self.input_shapes)

    @property
    def output_shape(self) -> Any:
        """The shape of one sample's scores; of several outputs, a dictionary of shapes."""
        return _one(self.output_shapes)

    @property
    def loss_layer(self) -> Loss:
        """The loss of the first output, which decides accuracy."""
        return next(iter(self.losses.values()))

    @property
    def normalize(self) -> Normalize | None:
        """The layer that says what the first input's numbers mean, if there is one."""
        return next(iter(self._normalize.values()), None)

    # ---- parameters -------------------------------------------------------------------------

    def _place(self, backend: Backend, precision: Precision) -> None:
        """Make the buffers on `backend` and give each layer its views."""
        specs = {
            f"{name}.{key}": spec
            for name, leaf in self._leaves.items()
            for key, spec in leaf.specs.items()
        }
        layout = Layout(
            {name: spec.shape for name, spec in specs.items()},
            frozenset(name for name, spec in specs.items() if spec.decay),
        )
        try:
            parameters = Parameters(layout, backend, precision)
        except MemoryError as error:
            raise DeviceMemoryError(
                f"{self.name} has {layout.size:,} parameters, which {backend.name} has no memory "
                "for; use a smaller input_shape or fewer units."
            ) from error
        self.backend, self.precision, self.parameters = backend, precision, parameters
        self.state = Arrays(self.name)
        for layer in self._normalize.values():
            layer.dtype = precision.compute
        for name, leaf in self._leaves.items():
            leaf.owned = True
            leaf.make_state(backend.xp, precision.accumulate)
            for key in leaf.specs:
                full, mixed = f"{name}.{key}", precision.mixed
                master = self.params[full] if mixed else None
                leaf.params.place(key, self.parameters.compute[full], other=master)
                leaf.grads.place(key, self.grads[f"{name}.{key}"])
            for key, array in leaf.state.items():
                leaf.state.place(key, array)
                self.state.place(f"{name}.{key}", array)
        self._arrange()

    def _arrange(self, input_gradient: bool = False) -> None:
        """See that backward passes, and updates change, what is not frozen, and no more."""
        self.parameters.layout.freeze(
            frozenset(
                f"{name}.{key}"
                for name, leaf in self._leaves.items()
                if leaf.frozen
                for key in leaf.specs
            )
        )
        self._input_gradient = input_gradient
        self.body.want_gradient(input_gradient)

    def _draw(self, rng: np.random.Generator, given: Mapping[str, Array]) -> None:
        """Fill the parameters with what the caller gave, or else with first values."""
        for name, leaf in self._leaves.items():
            for key, spec in leaf.specs.items():
                full_name = f"{name}.{key}"
                values = given[full_name] if full_name in given else spec.draw(rng)
                self.params[full_name] = self.backend.asarray(
                    values, dtype=self.precision.parameters
                )

    @property
    def params(self) -> ArrayDict:
        """The parameters by name, in the network's order: what an optimizer updates."""
        return self.parameters.values

    @property
    def grads(self) -> ArrayDict:
        """The gradients by name, as the last backward pass left them; 0 of what is frozen."""
        return self.parameters.gradients

    def leaves(self) -> dict[str, Layer]:
        """Return all layers that are no graphs, by name, in order."""
        return dict(self._leaves)

    def settings(self) -> tuple[Any, ...]:
        """Return what a step depends on beside its arrays: what is frozen, and all options."""
        owners: tuple[Any, ...] = (*self._leaves.values(), *self.losses.values())
        options = tuple(getattr(owner, name) for owner in owners for name in owner.options)
        frozen = tuple(leaf.frozen for leaf in self._leaves.values())
        return frozen, options, self.weight_decay, *self.loss_weights.values()

    def forget(self) -> None:
        """Let go of what the last training step kept for its backward pass."""
        for owner in (*self._leaves.values(), *self.losses.values()):
            forget(owner)

    # ---- random numbers ---------------------------------------------------------------------

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Start the random numbers of all layers (dropout masks) from `seed`."""
        given = seed if isinstance(seed, Sequence) and seed else (seed,)
        seeds = [whole_number("seed", number, least=0) for number in given]
        drawing = [leaf for leaf in self._leaves.values() if not isinstance(leaf, Normalize)]
        for i, leaf in enumerate(drawing):
            leaf.reseed([MASK_STREAM, *seeds, i])

    def random_state(self) -> dict[str, Any]:
        """Return where the random numbers of each layer that has some are, as JSON can hold it."""
        states = {name: leaf.random_state(self.backend) for name, leaf in self._leaves.items()}
        return {name: state for name, state in states.items() if state is not None}

    def set_random_state(self, states: Mapping[str, Any]) -> None:
        """Go on, with the seed of then, where `random_state` found the random numbers to be.

        Raises
        ------
        ArgumentError
            If the states are not those of the network's layers.
        """
        self.check_random_state(states)
        for name, state in states.items():
            self._leaves[name].set_random_state(self.backend, state)

    def check_random_state(self, states: Mapping[str, Any]) -> None:
        """See that `set_random_state` will take `states`, and change nothing.

        Raises
        ------
        ArgumentError
            If it will not.
        """
        if not isinstance(states, Mapping) or states.keys() != self.random_state().keys():
            raise ArgumentError(f"the random states are not those of {self.name}: {shown(states)}.")
        for name, state in states.items():
            twin = copy.copy(self._leaves[name])
            twin.reseed([0])  # so that it has random numbers of its own
            twin.set_random_state(self.backend, state)


def described(
    layers: Any, shape: Any, normalize: Normalize | None = None
) -> tuple[Graph, dict[str, Shape]]:
    """Return the graph, and its inputs' shapes, that the first two arguments of `Network` say.

    Raises
    ------
    ArgumentError
        If they say none.
    """
    if normalize is not None and not isinstance(normalize, Normalize):
        raise ArgumentError(f"normalize must be a Normalize(...), got {shown(normalize)}.")
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


def _are_nodes(layers: Any) -> bool:
    if isinstance(layers, Node):
        return True
    several = list(layers.values()) if isinstance(layers, Mapping) else layers
    return isinstance(several, list | tuple) and any(isinstance(n, Node) for n in several)


def _normalizing(body: Graph) -> dict[str, Normalize]:
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


def _class_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed:
        raise ArgumentError(f"class_names must be a list of str, got {shown(names)}.")
    return tuple(names)


def _one(shapes: Mapping[str, Any]) -> Any:
    return next(iter(shapes.values())) if len(shapes) == 1 else dict(shapes)
