"""What every layer is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from xpdl.arguments import random_numbers, real_array, sizes
from xpdl.backends import Array, Backend, Shape, accumulation_dtype, backend_of, get_backend
from xpdl.configs import Configurable, look_at_options, made_from
from xpdl.distributed.share import Share
from xpdl.errors import ArgumentError, ShapeError
from xpdl.initializers import Initializer
from xpdl.layers.arrays import Arrays, ParameterSpec
from xpdl.layers.checks import expect_floats
from xpdl.layers.door import look_first
from xpdl.layers.kept import Kept
from xpdl.layers.node import Node, made_by
from xpdl.precision import get_precision


class Layer(Configurable):
    """Base of the layers: an array in, an array out, and the gradient back.

    A subclass writes `plan` (shapes and parameters), `forward` and `backward`, and names in
    `options` the arguments that it was made with, so that a file can say how to make it again.

    Attributes
    ----------
    params, grads : dict of str to array
        Parameters such as ``{"W": ..., "b": ...}``, and their gradients after `backward`.
    state : dict of str to array
        What is saved but not trained, such as running statistics.
    frozen : bool
        Whether parameters and statistics stay as they are in training; see `Network.freeze`.
    share : Share, optional
        Which rows of the batch x is, within a training step of several ranks.
    """

    kind: ClassVar[str] = "layer"
    family = "layer"
    share: Share | None = None
    looks_first: ClassVar[bool] = True  # at what it is given; a graph leaves that to its layers
    arity: int | None = 1  # how many inputs; None for two or more
    # Whether `forward` can compute a ReLU in the same pass, and `backward` then its gradient.
    takes_relu: ClassVar[bool] = False
    classes: ClassVar[dict[str, type]] = {}

    params: Arrays
    grads: Arrays
    state: Arrays
    specs: dict[str, ParameterSpec]
    state_specs: dict[str, tuple[Shape, float]]
    frozen: bool = False
    input_gradient: bool = True  # where nothing before it learns, a layer need not make dx
    needs_backward: bool = True  # nor be asked for it, if it does not learn either
    relu: bool = False  # whether the ReLU behind it is computed here; see `Graph.plan`
    pooled: Any = None  # the max pooling, if any, that takes its own and that ReLU's gradient
    owned: bool = False  # whether a network holds this layer's arrays
    made: Any = Kept()  # the shape and the backend of what a layer used alone gave last

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if cls.__module__.startswith("xpdl.") and cls.looks_first:
            look_first(cls)
        if "__init__" in vars(cls) and not cls.__module__.startswith("xpdl."):
            look_at_options(cls)

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Make what every layer has, whether or not a subclass calls ``super().__init__()``."""
        self = super().__new__(cls)
        self.params, self.grads, self.state = (Arrays(cls.__name__) for _ in range(3))
        self.specs, self.state_specs = {}, {}
        return self

    def __init__(self) -> None:
        """Nothing is left to do; a subclass may call it as any other class's."""

    def __call__(self, *nodes: Node, name: str | None = None) -> Node:
        """Return the node that this layer is when it reads `nodes`; see `Input`.

        Raises
        ------
        ArgumentError, ShapeError
            If they are no nodes, too many or too few, or of shapes that do not fit.
        """
        return made_by(self, nodes, name)

    def check_arity(self, count: int) -> None:
        """See that the layer takes so many inputs.

        Raises
        ------
        ArgumentError
            If it takes more or fewer.
        """
        if count != self.arity if self.arity is not None else count < 2:
            wanted = "two inputs or more" if self.arity is None else f"{self.arity} input"
            wanted += "s" if self.arity is not None and self.arity > 1 else ""
            raise ArgumentError(f"{type(self).__name__} wants {wanted}, got {count}.")

    # ---- for a subclass to write ----------------------------------------------------------

    def plan(self, input_shape: Shape) -> Shape:
        """Return the output's shape, and say with `parameter` and `statistic` what is needed.

        Shapes are without the batch axis. A layer of several inputs takes a shape for each.
        """
        return input_shape

    def forward(self, x: Array, train: bool = False) -> Array:
        """Return the output for a batch x; keep what `backward` needs only if `train`.

        What is kept may be x and the output themselves: neither may change until `backward`. A
        layer of several inputs writes ``forward(self, *xs, train=False)``.
        """
        raise NotImplementedError

    def backward(self, dout: Array) -> Array:
        """Return dL/dx for dout = dL/dy and fill `grads`; dout is left as it is.

        A layer of several inputs returns a tuple, a dL/dx for each.
        """
        raise NotImplementedError

    def reseed(self, seed: Sequence[int]) -> None:
        """Start the layer's random numbers, if it has any, from `seed`."""

    def random_state(self, backend: Backend) -> Any:
        """Return where the layer's random numbers on `backend` are, as JSON can hold it.

        None if it has none. A layer of your own that draws numbers tells it here and takes it in
        `set_random_state`, so that a training that is interrupted in an epoch draws the same ones.
        """
        return None

    def set_random_state(self, backend: Backend, state: Any) -> None:
        """Go on, with the seed of then, where `random_state` found the random numbers to be."""

    def expect(self, x: Array, /) -> None:
        """See that what a layer that is used alone is given fits; here, that it is floats.

        Raises
        ------
        DTypeError, ShapeError
            If it does not.
        """
        expect_floats(type(self).__name__, x)

    # ---- for a subclass to use --------------------------------------------------------------

    def parameter(
        self,
        name: str,
        shape: Shape,
        initializer: Initializer,
        *,
        fan_in: int = 1,
        fan_out: int = 1,
        decay: bool = False,
    ) -> None:
        """Ask for a parameter; one that was given when the layer was made must have `shape`."""
        if name in self.params and self.params[name].shape != shape:
            raise ShapeError(
                f"{name} has the shape {self.params[name].shape}, its input wants {shape}."
            )
        self.specs[name] = ParameterSpec(shape, initializer, fan_in, fan_out, decay)

    def statistic(self, name: str, shape: Shape, value: float) -> None:
        """Ask for an array that is saved but not trained, `value` at first."""
        self.state_specs[name] = (shape, value)

    def given(self, **arrays: Array | None) -> None:
        """Take parameters that the caller made; None is left out."""
        for name, array in arrays.items():
            if array is not None:
                backend_of(real_array(name, array, "f"), *self.params.values())
                self.params[name] = array

    def set_gradient(self, name: str, value: Array) -> None:
        """Put `value` where the gradient of a parameter belongs, unless the layer is frozen."""
        place = self.gradient_place(name)
        if place is not None:
            place[...] = value

    def clear_gradients(self) -> None:
        """Make all gradients 0, as where nothing behind the layer counts."""
        for _, leaf in self.leaves():
            for name in leaf.grads:
                leaf.grads[name][...] = 0

    def gradient_place(self, name: str) -> Array | None:
        """Return where the gradient of a parameter is to be written.

        None where the layer has no such parameter, or is frozen.
        """
        if self.frozen or name not in self.params:
            return None
        if name not in self.grads:
            p = self.params[name]
            wide = accumulation_dtype(p.dtype)
            self.grads[name] = backend_of(p).xp.empty_like(p, dtype=wide)
        return self.grads[name]

    # ---- for a caller -----------------------------------------------------------------------

    def build(self, input_shape: Shape, rng: np.random.Generator, dtype: Any = None) -> Shape:
        """Make the parameters of a layer used on its own; a `Network` does this for its layers.

        Parameters
        ----------
        input_shape : tuple of int
            Without the batch axis.
        rng : numpy.random.Generator
            Draws the first values, on the host.
        dtype : str or dtype, optional
            A float policy; ``XPDL_DTYPE`` by default.

        Returns
        -------
        tuple of int
            The output's shape, without the batch axis.
        """
        if self.owned:
            raise ArgumentError(f"this {type(self).__name__} belongs to a network, which built it.")
        rng = random_numbers("rng", rng)
        backend, compute = get_backend(), get_precision(dtype).compute
        output_shape = self.plan(sizes("input_shape", input_shape, axes=0))
        for _, leaf in self.leaves():
            for name, spec in leaf.specs.items():
                if name not in leaf.params:
                    leaf.params[name] = backend.asarray(spec.draw(rng), dtype=compute)
            leaf.make_state(backend.xp, accumulation_dtype(compute))
            leaf.reseed([int(rng.integers(2**63))])
        return output_shape

    def make_state(self, xp: Any, dtype: Any) -> None:
        """Make the arrays of `state`."""
        for name, (shape, value) in self.state_specs.items():
            self.state.place(name, xp.full(shape, value, dtype=dtype), self.owned)

    def want_gradient(self, wanted: bool) -> bool:
        """Take note of whether dL/dx is wanted; return whether it then is of the layer behind.

        A network arranges its backward pass so: what lies before all that learns has no part in it.
        """
        learns = any(leaf.specs and not leaf.frozen for _, leaf in self.leaves())
        self.input_gradient, self.needs_backward = wanted, wanted or learns
        return self.needs_backward

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        """Yield (name, layer) for each layer that is no container; here, the layer itself."""
        yield prefix, self


def layer_from_config(config: Mapping[str, Any]) -> Layer:
    """Make the layer that ``config["type"]`` names, with the options beside it.

    Raises
    ------
    UnknownNameError
        If there is no such layer; one of your own must be imported first.
    ArgumentError
        If the options are not that layer's.
    """
    return made_from(config, Layer)
