"""What a network is made of, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from xpdl.backends import Backend, Shape
from xpdl.layers import Graph, Layer, Normalize, forget
from xpdl.layers.arrays import Arrays
from xpdl.losses import Loss
from xpdl.parameters import ArrayDict, Parameters
from xpdl.precision import Precision


class Architecture:
    """A graph of layers, a loss for each output, and all parameters; see `Network`."""

    name: str
    body: Graph
    input_shapes: dict[str, Shape]
    output_shapes: dict[str, Shape]
    losses: dict[str, Loss]
    loss_weights: dict[str, float]
    weight_decay: float
    class_names: tuple[str, ...] | None
    backend: Backend
    precision: Precision
    parameters: Parameters
    state: Arrays
    _leaves: dict[str, Layer]
    _normalize: dict[str, Normalize]
    _input_gradient: bool

    @property
    def input_shape(self) -> Any:
        """The shape of one sample; of several inputs, a dictionary of shapes."""
        return one_or_all(self.input_shapes)

    @property
    def output_shape(self) -> Any:
        """The shape of one sample's scores; of several outputs, a dictionary of shapes."""
        return one_or_all(self.output_shapes)

    @property
    def loss_layer(self) -> Loss:
        """The loss of the first output, which decides accuracy."""
        return next(iter(self.losses.values()))

    @property
    def normalize(self) -> Normalize | None:
        """The layer that says what the first input's numbers mean, if there is one."""
        return next(iter(self._normalize.values()), None)

    @property
    def params(self) -> ArrayDict:
        """The parameters by name, in the network's order: what an optimizer updates."""
        return self.parameters.values

    @property
    def grads(self) -> ArrayDict:
        """The gradients by name, as the last backward pass left them; 0 of what is frozen."""
        return self.parameters.gradients

    @property
    def layers(self) -> NoReturn:
        """What the book's networks have, so that its name leads to ours."""
        raise AttributeError(
            f"{self.name} has no layers of its own: the book's net.layers['Affine1'] is "
            "net.body.layers['affine1'] here, and net.params has all parameters by name."
        )

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


def one_or_all(values: Mapping[str, Any]) -> Any:
    """Return what there is of each input or output, by name; of one, that itself."""
    return next(iter(values.values())) if len(values) == 1 else dict(values)
