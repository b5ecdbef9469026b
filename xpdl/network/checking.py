"""What a network looks at before it takes it: inputs, targets, weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpdl.architecture.base import Architecture
from xpdl.architecture.shapes import advice
from xpdl.arguments import array_or_list, check_finite
from xpdl.backends import Array, Shape, backend_of
from xpdl.errors import ArgumentError, BackendMismatchError, DTypeError, ShapeError, shown
from xpdl.loss_checks import check_weights

Arrays = tuple[Array, ...]


class Checking(Architecture):
    """A network that says what does not fit it."""

    _samples: int | None = None  # in the last batch that `forward` kept something of

    def inputs(self, x: Any) -> Arrays:
        """Return x as a tuple, an array an input, seen to fit.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError, NonFiniteError, BackendMismatchError
            If it does not.
        """
        given = self._several("x", x, self.input_shapes)
        xs = tuple(self._input(name, a) for name, a in given.items())
        if any(len(a) != len(xs[0]) for a in xs):
            raise ShapeError(f"x must hold as many samples each, got {[len(a) for a in xs]}.")
        return xs

    def batch(self, x: Any, t: Any, weights: Any = None) -> tuple[Arrays, Arrays, Array | None]:
        """Return x, t and weights as arrays, one an input, one an output and (N,), seen to fit.

        Raises
        ------
        ShapeError, DTypeError, ArgumentError, NonFiniteError, BackendMismatchError
            If they do not.
        """
        xs, ts = self.inputs(x), []
        given = self._several("t", t, self.output_shapes)
        for name, array in given.items():
            array = self.asarray("t" if len(given) == 1 else f"t of {name}", array)
            ts.append(self.losses[name].target(array, len(xs[0]), self.output_shapes[name]))
        if weights is not None:
            weights = self.asarray("weights", weights)
            check_weights(weights, len(xs[0]))
        return xs, tuple(ts), weights

    def _input(self, name: str, x: Any) -> Array:
        x, shape = self.asarray(name, x), self.input_shapes[name]
        if x.shape[1:] != shape:
            wanted = ", ".join(map(str, shape))
            raise ShapeError(f"{name} must be (N, {wanted}), got {x.shape}.{advice(x, shape)}")
        if not len(x):
            raise ArgumentError(f"{name} is empty: its shape is {x.shape}.")
        check_finite(name, x)
        return x

    def _gradient(self, name: str, dout: Any) -> Array:
        dout, shape = self.asarray("dout", dout), self.output_shapes[name]
        if not dout.ndim or dout.shape != (self._samples or len(dout), *shape):
            wanted = ", ".join(map(str, (self._samples or "N", *shape)))
            raise ShapeError(f"dout must be ({wanted}) for {name}, got {dout.shape}.")
        return dout.astype(self.precision.compute, copy=False)

    def _several(self, argument: str, given: Any, names: Mapping[str, Shape]) -> Mapping[str, Any]:
        """Return what was given for each of `names`."""
        if len(names) == 1 and not isinstance(given, Mapping):
            return dict.fromkeys(names, given) if argument == "t" else {next(iter(names)): given}
        if not isinstance(given, Mapping) or given.keys() != names.keys():
            raise ArgumentError(
                f"{argument} must be a dictionary of {', '.join(names)}, got {shown(given)}."
            )
        return {name: given[name] for name in names}

    def asarray(self, argument: str, a: Any) -> Array:
        """Return `a` as an array of the network's backend; an array of another is refused.

        Raises
        ------
        BackendMismatchError, DTypeError, ArgumentError
            If it lives on another one, or holds no real numbers; the message names `argument`.
        """
        a = array_or_list(argument, a, self.backend.asarray)
        try:
            backend_of(a, self.params.buffer)
        except (BackendMismatchError, DTypeError) as error:
            raise type(error)(f"{argument} and the network {self.name}: {error}") from error
        if a.dtype.kind not in "biuf":
            raise DTypeError(f"{argument} must hold real numbers, got dtype {a.dtype}.")
        return a
