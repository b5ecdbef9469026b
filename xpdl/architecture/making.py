"""How a network is built: layers are planned, and get their arrays in one buffer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from xpdl.architecture.random_numbers import WEIGHT_STREAM, RandomNumbers
from xpdl.architecture.reading import (
    check_class_names,
    normalizing,
    read_class_names,
    warn_of_two_softmaxes,
)
from xpdl.arguments import flag, number, whole_number
from xpdl.backends import Array, Backend, Shape, backend_of, get_backend
from xpdl.errors import ArgumentError, DeviceMemoryError, shown
from xpdl.layers import Graph
from xpdl.layers.arrays import Arrays
from xpdl.losses import Loss
from xpdl.parameters import Layout, Parameters
from xpdl.precision import Precision, get_precision


class Making(RandomNumbers):
    """A network that is made; see `Network` for what from."""

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
        class_names: Any = None,
    ) -> None:
        """Plan the layers, make their arrays and draw first values."""
        self.name = type(self).__name__ if name is None or name == "" else name
        if not isinstance(self.name, str):
            raise ArgumentError(f"name must be a str, got {shown(name)}.")
        seed, initialize = whole_number("seed", seed, least=0), flag("initialize", initialize)
        precision, class_names = get_precision(dtype), read_class_names(class_names)
        self.weight_decay = number("weight_decay", weight_decay)
        self.body, self.input_shapes = body, dict(input_shapes)
        self.losses, self.loss_weights = dict(losses), dict(loss_weights)
        planned = body.plan(*self.input_shapes.values())
        shapes = (planned,) if len(body.outputs) == 1 else planned
        self.output_shapes = dict(zip(body.outputs, shapes, strict=True))
        for output, loss in self.losses.items():
            loss.plan(self.output_shapes[output])
            loss.owned = True
        warn_of_two_softmaxes(body, self.losses.values())
        self.class_names = class_names
        check_class_names(class_names, self.loss_layer, next(iter(self.output_shapes.values())))
        self._leaves = dict(body.leaves())
        self._normalize = normalizing(body)
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
                full = f"{name}.{key}"
                master = self.params[full] if precision.mixed else None
                leaf.params.place(key, self.parameters.compute[full], other=master)
                leaf.grads.place(key, self.grads[full])
            for key, array in leaf.state.items():
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
