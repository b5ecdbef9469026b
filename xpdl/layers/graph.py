"""A graph of layers: what a network computes, forward and back. Book, section 5.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xpdl.backends import Array, Shape, array_module
from xpdl.errors import ArgumentError, shown
from xpdl.layers.activations import ReLU
from xpdl.layers.base import Layer
from xpdl.layers.checks import expect_dx, expect_result
from xpdl.layers.convolution import Convolution
from xpdl.layers.folding import alone, fold, readers_of, way
from xpdl.layers.node import planned
from xpdl.layers.pooling import MaxPooling
from xpdl.layers.wiring import Place, Wiring


class Graph(Wiring, Layer):
    """Layers that read each other's results: forward left to right, backward right to left.

    Where a value goes to several places, their gradients add up (book, figure 5-10):
    dL/dx = sum over the readers of x of what each sends back.

    Parameters
    ----------
    inputs, outputs : Node, sequence of Node or mapping of str to Node
        Where it begins and ends; without names they are called x, or x1, x2 ..., and y.

    Attributes
    ----------
    shapes : dict of str to tuple
        Of what each place gives, without the batch axis, once planned.
    """

    kind = "graph"
    looks_first = False

    def _lay(self, inputs: Any, nodes: Any, outputs: Any) -> None:
        super()._lay(inputs, nodes, outputs)
        self.shapes: dict[str, Shape] = {}
        # In training, and not: places, and what need not be kept after each.
        self._ways = dict.fromkeys((True, False), way(self.places, self.ends))
        self._flows = dict.fromkeys([*self.inputs, *(p.name for p in self.places)], True)

    # ---- planning -------------------------------------------------------------------------------

    def plan(self, *input_shapes: Shape) -> Any:
        """Return the output's shape, or one an output; a layer that does not fit is named."""
        self.check_arity(len(input_shapes))
        shapes = dict(zip(self.inputs, input_shapes, strict=True))
        for place in self.places:
            taken = [shapes[name] for name in place.reads]
            shapes[place.name] = planned(place.layer, place.name, taken)
        self.shapes = shapes | {name: shapes[slot] for name, slot in self._aliases.items()}
        self._join_relus()
        ends = tuple(shapes[end] for end in self.ends)
        return ends[0] if len(ends) == 1 else ends

    def _join_relus(self) -> None:
        """Let a product compute the ReLU that alone reads it, while its result is still at hand.

        The product's y is then the ReLU's, which hands it on, and so the gradient on the way back.
        Max pooling that alone reads the ReLU takes its gradient with its own, and sums it for the
        product's b; a convolution computes the pooling, too, if it can. A layer derived from these
        may do something else, and is left alone.
        """
        self._part_relus()  # layers may have stood elsewhere before
        readers = readers_of(self.places, self.ends)
        for place in self.places:
            relu = alone(readers, place.name, ReLU)
            if relu is None or not vars(type(place.layer)).get("takes_relu"):
                continue
            place.layer.relu = relu.layer.computed_before = True
            pooling = alone(readers, relu.name, MaxPooling)
            if pooling is not None:
                pooling.layer.product, place.layer.pooled = place.layer, pooling.layer
                if type(place.layer) is Convolution:
                    pooling.layer.computed_before = place.layer.can_pool()
        self._ways[False] = way(fold(self.places, readers), self.ends)

    def _part_relus(self) -> None:
        """Let each layer compute what is its own."""
        for place in self.places:
            for told in ("relu", "pooled", "computed_before", "product"):
                vars(place.layer).pop(told, None)  # no layer does so by itself

    def want_gradient(self, wanted: bool) -> bool:
        passes = super().want_gradient(wanted)
        if type(self) in Graph.plain:  # another may do something else, and has its layers make all
            flows = dict.fromkeys(self.inputs, wanted)
            for place in self.places:
                flows[place.name] = place.layer.want_gradient(any(flows[r] for r in place.reads))
            self._flows = flows
        return passes

    # ---- computing ------------------------------------------------------------------------------

    def forward(self, *xs: Array, train: bool = False) -> Any:  # type: ignore[override]
        """Return the output, or a tuple of them, for the inputs xs."""
        self.check_arity(len(xs))
        values = self._values(xs, train, *self._ways[bool(train)])
        ends = tuple(values[name] for name in self.ends)
        return ends[0] if len(ends) == 1 else ends

    def _values(
        self,
        xs: Sequence[Array],
        train: bool,
        places: Sequence[Place],
        last: Mapping[str, Sequence[str]],
    ) -> dict[str, Array]:
        """Return what each of `places` makes of xs, but for what nobody reads after the `last`."""
        values = dict(zip(self.inputs, xs, strict=True))
        for place in places:
            forward: Any = place.layer.forward
            y = forward(*[values[name] for name in place.reads], train=train)
            if place.foreign and self.shapes:
                shape = self.shapes[place.name]
                expect_result(place.name, place.layer, y, shape, values[place.reads[0]])
            values[place.name] = y
            for name in last.get(place.name, ()):
                del values[name]
        return values

    def backward(self, *douts: Array | None) -> Any:
        """Return dL/dx for the input, or a tuple; None stands for an output that counts nothing."""
        if len(douts) != len(self.ends) or all(dout is None for dout in douts):
            wanted = f"{len(self.ends)} arrays, or None for some" if len(self.ends) > 1 else "one"
            raise ArgumentError(f"dout must be {wanted}, got {', '.join(map(shown, douts))}.")
        gradients: dict[str, Array] = {}
        for name, dout in zip(self.ends, douts, strict=True):
            _add_up(gradients, name, dout)
        for place in reversed(self.places):
            dout = gradients.pop(place.name, None)
            if not place.layer.needs_backward:
                continue
            if dout is None:
                place.layer.clear_gradients()
                continue
            dxs: Any = place.layer.backward(dout)
            dxs = dxs if isinstance(dxs, tuple) else (dxs,)
            for name, dx in zip(place.reads, dxs, strict=True):
                if place.foreign and dx is not None and self.shapes:
                    expect_dx(place.name, place.layer, dx, self.shapes[name], dout)
                if self._flows[name]:
                    _add_up(gradients, name, dx)
        back = tuple(gradients.get(name) for name in self.inputs)
        return back[0] if len(back) == 1 else back

    def activations(self, *xs: Array) -> dict[str, Array]:
        """Return what each place makes of xs, by name, in order; graphs within by their names."""
        self._part_relus()
        try:
            values = self._values(xs, False, self.places, {})
        finally:
            if self.shapes:
                self._join_relus()
        found: dict[str, Array] = {}
        for place in self.places:
            names = [alias for alias, end in self._aliases.items() if end == place.name]
            found |= dict.fromkeys([place.name, *names], values[place.name])
        return found


Graph.plain.add(Graph)


def _add_up(gradients: dict[str, Array], name: str, dx: Array | None) -> None:
    """Add dx, if it is one, to what has come back to `name` so far; into no array of others."""
    if dx is None:
        return
    before = gradients.get(name)
    if before is None:
        gradients[name] = dx
        return
    xp = array_module(before, dx)
    gradients[name] = xp.add(before, dx, out=xp.empty_like(before))
