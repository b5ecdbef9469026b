"""All parameters of a network in one buffer.

A network owns one contiguous array of parameters and one of gradients; layers hold named, shaped
views into them. An update, a cast, a norm or a finite check is then one call, not one a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from numbers import Real
from typing import Any, TypeAlias

from xpdl.arguments import real_array
from xpdl.backends import Array, Backend, Shape, backend_of
from xpdl.errors import ArgumentError, ShapeError, UnknownParameterError, shown
from xpdl.precision import Precision

Arrays: TypeAlias = Mapping[str, Array]
"""Arrays by the names of parameters, such as ``conv1.W``."""

# Each view starts at a multiple of so many elements, which keeps it aligned for vector loads.
ALIGNMENT = 32


class Layout:
    """Where each parameter lies in a buffer: weights first, then what does not decay.

    Parameters
    ----------
    shapes : dict of str to tuple
        The shape of each parameter, in the network's order.
    decayed : set of str
        The names of those that are weights.

    Attributes
    ----------
    frozen : set of str
        The names of those that no update changes; see `freeze`.
    blocks : dict of str to slice
        What an update changes: the weights and the others, each in one piece if nothing is frozen,
        by the name of the first parameter in it.
    """

    def __init__(self, shapes: Mapping[str, Shape], decayed: frozenset[str]) -> None:
        self.shapes = dict(shapes)
        self.decayed = decayed
        self.offsets: dict[str, int] = {}
        self._ends: dict[str, int] = {}  # with the room behind
        offset = 0
        for part in (True, False):
            for name, shape in self.shapes.items():
                if (name in decayed) == part:
                    self.offsets[name] = offset
                    offset += -(-math.prod(shape) // ALIGNMENT) * ALIGNMENT
                    self._ends[name] = offset
            if part:
                self.weights_end = offset
        self.size = offset
        self.freeze(frozenset())

    def freeze(self, names: frozenset[str]) -> None:
        """Leave the parameters `names`, and no others, out of `blocks`."""
        self.frozen = names
        self.blocks = self.runs()

    def runs(self, key: Callable[[str], Hashable] | None = None) -> dict[str, slice]:
        """Return `blocks`, cut where the `key` of a parameter's name changes, too."""
        runs: dict[str, slice] = {}
        first, last = "", None
        for name, start in self.offsets.items():
            end, kind = self._ends[name], (name in self.decayed, key and key(name))
            if name in self.frozen or start == end:
                continue
            if kind != last or runs[first].stop != start:
                first, last, runs[name] = name, kind, slice(start, end)
            runs[first] = slice(runs[first].start, end)
        return runs

    def view(self, buffer: Array, name: str) -> Array:
        """Return the part of `buffer` that is the parameter `name`, in its shape.

        Filters (FN, C, FH, FW) lie in memory as images do, their channels last: so their numbers
        are in the order of a window's.
        """
        start, shape = self.offsets[name], self.shapes[name]
        part = buffer[start : start + math.prod(shape)]
        if len(shape) == 4:
            fn, c, fh, fw = shape
            return part.reshape(fn, fh, fw, c).transpose(0, 3, 1, 2)
        return part.reshape(shape)


class ArrayDict(Mapping[str, Array]):
    """The arrays of a network by name, such as ``conv1.W``: views into one buffer.

    Reads like a dictionary; ``d[name] = values`` copies into the view, a number everywhere. One
    update over a long run of the buffer does the work of many small ones.

    Attributes
    ----------
    buffer : array, (size,)
        Holds all of them.
    decayed : set of str
        The names of the weights, as opposed to biases and parameters of normalisation.
    in_compute_type : ArrayDict, optional
        The same arrays in the type that layers compute in, which an update writes in its pass.
    """

    in_compute_type: ArrayDict | None = None

    def __init__(self, layout: Layout, buffer: Array) -> None:
        self.layout = layout
        self.buffer = buffer
        self.decayed = layout.decayed
        self._views = {name: layout.view(buffer, name) for name in layout.shapes}

    def __getitem__(self, name: str) -> Array:
        try:
            return self._views[name]
        except (KeyError, TypeError):
            raise UnknownParameterError("parameter", name, self._views) from None

    def __setitem__(self, name: str, values: Array | float) -> None:
        write_into(name, self[name], values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    @property
    def frozen(self) -> frozenset[str]:
        """The names of the arrays that no update changes."""
        return self.layout.frozen

    def runs(self, key: Callable[[str], Hashable] | None = None) -> dict[str, slice]:
        """Return where in the buffer all lie but the frozen, in as few runs as can be.

        A run holds weights or others, all of one `key` (a function of the name), and is called as
        the first parameter in it.
        """
        return self.layout.blocks if key is None else self.layout.runs(key)

    @property
    def weights(self) -> Array:
        """All that decays, frozen or not, (size,)."""
        return self.buffer[: self.layout.weights_end]

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {a.shape}" for name, a in self.items()) + "}"

    def copy(self) -> ArrayDict:
        """Return a copy of all arrays, in the same layout."""
        return ArrayDict(self.layout, self.buffer.copy())

    def zeros_like(self) -> ArrayDict:
        """Return zeros in the same layout."""
        return ArrayDict(self.layout, backend_of(self.buffer).xp.zeros_like(self.buffer))


def write_into(name: str, place: Array, values: Array | float) -> None:
    """Copy `values`, an array in the shape of `place` or a number for all of it, into `place`.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, BackendMismatchError
        If they do not fit. Nothing is changed then.
    """
    if isinstance(values, list):
        try:
            values = backend_of(place).asarray(values, dtype=place.dtype)
        except ArgumentError as error:
            raise type(error)(f"{name} must be an array, got {shown(values)}.") from error
    elif not isinstance(values, Real):
        backend_of(place, real_array(name, values))
    shape = getattr(values, "shape", ())
    if shape not in ((), place.shape):
        raise ShapeError(f"{name} has the shape {place.shape}, got {shape}.")
    place[...] = values


class Parameters:
    """The buffers of one network on one backend.

    Attributes
    ----------
    values : ArrayDict
        What the optimizer updates, in the policy's parameter type.
    gradients : ArrayDict
        In the policy's accumulation type.
    compute : ArrayDict
        What layers use: `values` itself, or its copy in the compute type.
    """

    def __init__(self, layout: Layout, backend: Backend, precision: Precision) -> None:
        def zeros(dtype: Any) -> ArrayDict:
            return ArrayDict(layout, backend.xp.zeros(layout.size, dtype=dtype))

        self.layout = layout
        self.values = zeros(precision.parameters)
        self.gradients = zeros(precision.accumulate)
        self.compute = zeros(precision.compute) if precision.mixed else self.values
        if precision.mixed:
            self.values.in_compute_type = self.compute

    def refresh(self) -> None:
        """Bring the copy that layers use up to date with the values."""
        if self.compute is not self.values:
            xp = backend_of(self.values.buffer).xp
            xp.copyto(self.compute.buffer, self.values.buffer, casting="same_kind")
