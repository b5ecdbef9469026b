"""A graph of layers: what a network computes, forward and back. Book, section 5.1."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpdl.backends import Array, Shape, array_module, backend_of
from xpdl.errors import ArgumentError, ShapeError, UnknownNameError, shown
from xpdl.layers.activations import ReLU
from xpdl.layers.base import Layer, layer_from_config
from xpdl.layers.node import behind, named_nodes, names_of
from xpdl.layers.pooling import MaxPooling


@dataclass(frozen=True)
class Place:
    """Where a layer stands in a graph, and what it reads: names of places, or of inputs."""

    name: str
    layer: Layer
    reads: tuple[str, ...]

    @property
    def foreign(self) -> bool:
        """Whether the layer is not one of ours, so that what it returns is looked at."""
        return not type(self.layer).__module__.startswith("xpdl.")


class Graph(Layer):
    """Layers that read each other's results: forward left to right, backward right to left.

    Where a value goes to several places, their gradients add up (book, figure 5-10):
    dL/dx = sum over the readers of x of what each sends back.

    Graphs within a graph are laid out in it, so that there is one list of `places`, in an order in
    which each reads only what stands before it.

    Parameters
    ----------
    inputs, outputs : Node, sequence of Node or mapping of str to Node
        Where it begins and ends; without names they are called x, or x1, x2 ..., and y.

    Attributes
    ----------
    layers : dict of str to Layer
        By name, in order; those of a graph within are in its own `layers`.
    places : tuple of Place
        All layers that are no graphs, named ``"block1.conv2"`` if within one.
    shapes : dict of str to tuple
        Of what each place gives, without the batch axis, once planned.
    ends : tuple of str
        Which places the outputs are.
    """

    kind = "graph"
    looks_first = False
    plain: ClassVar[set[type]] = set()  # the classes that do nothing but what is written here

    def __init__(self, inputs: Any, outputs: Any) -> None:
        super().__init__()
        ends, starts = named_nodes("outputs", outputs, "y"), named_nodes("inputs", inputs, "x")
        nodes = behind(ends.values())
        self.starts = starts
        names = {node: name for name, node in starts.items()}
        for node in nodes:
            if node.layer is None and node not in names:
                raise ArgumentError(
                    f"an output reads an Input of shape {node.shape} that is not among inputs; "
                    "name all of them."
                )
        idle = [name for name, node in starts.items() if node not in nodes]
        if idle:
            raise ArgumentError(f"no output depends on the input {', '.join(map(repr, idle))}.")
        inner = [node for node in nodes if node.layer is not None]
        for node, name in zip(inner, names_of(inner), strict=True):
            names[node] = name
        twice = [name for name, count in Counter(names.values()).items() if count > 1]
        if twice:
            raise ArgumentError(f"two nodes are called {twice[0]!r}; give them names of their own.")
        self._lay(
            tuple(starts),
            {
                names[node]: (node.layer, tuple(names[read] for read in node.reads))
                for node in inner
            },
            {name: names[node] for name, node in ends.items()},
        )

    def _lay(
        self,
        inputs: Sequence[str],
        nodes: Mapping[str, tuple[Any, tuple[str, ...]]],
        outputs: Mapping[str, str],
    ) -> None:
        """Keep what reads what, by names; lay out the graphs within."""
        layers = {name: layer for name, (layer, _) in nodes.items()}
        _check_layers(layers)
        known = set(inputs)
        for name, (_, reads) in nodes.items():
            missing = [read for read in reads if read not in known]
            if missing:
                raise ArgumentError(
                    f"{name} reads {missing[0]}, which does not stand before it: a graph has no "
                    "circles."
                )
            known.add(name)
        for name in outputs.values():
            if name not in known:
                raise UnknownNameError("node", name, known)
        self.inputs, self.nodes, self.outputs = tuple(inputs), dict(nodes), dict(outputs)
        self.arity = len(self.inputs)
        self.layers: dict[str, Layer] = layers
        self.shapes: dict[str, Shape] = {}
        self.places, self._aliases, self.ends = self._laid_out(self.inputs)
        self._last = _last_readers(self.places, self.ends)
        self._flows = dict.fromkeys([*self.inputs, *(p.name for p in self.places)], True)

    def _laid_out(
        self, sources: Sequence[str], prefix: str = "", around: tuple[Layer, ...] = ()
    ) -> tuple[tuple[Place, ...], dict[str, str], tuple[str, ...]]:
        """Return all places, with those of the graphs within; whose names mean which; the ends."""
        if self in around:
            raise ArgumentError(f"{type(self).__name__} holds itself: a graph has no circles.")
        self.check_arity(len(sources))
        found = dict(zip(self.inputs, sources, strict=True))
        places: list[Place] = []
        aliases: dict[str, str] = {}
        for name, (layer, reads) in self.nodes.items():
            full, read = prefix + name, tuple(found[r] for r in reads)
            if type(layer) in Graph.plain:
                within, more, ends = layer._laid_out(read, f"{full}.", (*around, self))
                places += within
                found[name] = aliases[full] = ends[0]
                aliases |= more
            else:
                places.append(Place(full, layer, read))
                found[name] = full
        if around and len(self.outputs) != 1:
            raise ArgumentError("a graph within a graph must have one output.")
        return tuple(places), aliases, tuple(found[name] for name in self.outputs.values())

    # ---- planning -------------------------------------------------------------------------------

    def plan(self, *input_shapes: Shape) -> Any:
        """Return the output's shape, or one an output; a layer that does not fit is named."""
        self.check_arity(len(input_shapes))
        shapes = dict(zip(self.inputs, input_shapes, strict=True))
        for name, layer, reads in ((p.name, p.layer, p.reads) for p in self.places):
            if layer.owned:
                raise ArgumentError(f"{name} already belongs to a network; make a new layer.")
            taken = [shapes[read] for read in reads]
            layer.check_arity(len(taken))
            try:
                shapes[name] = layer.plan(*taken)
            except ShapeError as error:
                told = " and ".join(map(str, taken))
                raise ShapeError(
                    f"{name}, with input{'s' if len(taken) > 1 else ''} {told}: {error}"
                ) from error
        self.shapes = shapes | {name: shapes[slot] for name, slot in self._aliases.items()}
        self._join_relus()
        ends = tuple(shapes[end] for end in self.ends)
        return ends[0] if len(ends) == 1 else ends

    def _join_relus(self) -> None:
        """Let a product compute the ReLU that alone reads it, while its result is still at hand.

        The product's y is then the ReLU's, which hands it on, and so the gradient on the way back.
        Max pooling that alone reads the ReLU takes its gradient with its own, and sums it for the
        product's b. A layer derived from these may do something else, and is left alone.
        """
        for place in self.places:  # what may have stood elsewhere before
            place.layer.relu = place.layer.pooled = False
            if isinstance(place.layer, ReLU):
                place.layer.computed_before = False
            if isinstance(place.layer, MaxPooling):
                place.layer.product = None
        read = Counter(name for place in self.places for name in place.reads)
        read.update(self.ends)
        by_name = {place.name: place for place in self.places}
        for place in self.places:
            relu = by_name.get(place.reads[0])
            if relu is not None and type(relu.layer) is ReLU and type(place.layer) is MaxPooling:
                pooling = place.layer if read[relu.name] == 1 else None
            elif type(place.layer) is ReLU:
                relu, pooling = place, None
            else:
                continue
            before = by_name.get(relu.reads[0])
            if before and read[before.name] == 1 and vars(type(before.layer)).get("takes_relu"):
                before.layer.relu = relu.layer.computed_before = True  # type: ignore[attr-defined]
                if pooling is not None:
                    pooling.product, before.layer.pooled = before.layer, True

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
        values, last = dict(zip(self.inputs, xs, strict=True)), self._last
        for place in self.places:
            forward: Any = place.layer.forward
            y = forward(*[values[name] for name in place.reads], train=train)
            if place.foreign and self.shapes:
                _check_result(place, y, self.shapes[place.name], values[place.reads[0]])
            values[place.name] = y
            for name in last.get(place.name, ()):  # what nobody will read any more need not stay
                del values[name]
        ends = tuple(values[name] for name in self.ends)
        return ends[0] if len(ends) == 1 else ends

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
                    _check_gradient(place, dx, self.shapes[name], dout)
                if self._flows[name]:
                    _add_up(gradients, name, dx)
        back = tuple(gradients.get(name) for name in self.inputs)
        return back[0] if len(back) == 1 else back

    def activations(self, *xs: Array) -> dict[str, Array]:
        """Return what each place makes of xs, by name, in order; graphs within by their names."""
        values, ends = dict(zip(self.inputs, xs, strict=True)), defaultdict(list)
        for alias, slot in self._aliases.items():
            ends[slot].append(alias)
        found: dict[str, Array] = {}
        joined = [place.layer for place in self.places if place.layer.relu]
        handing = [p.layer for p in self.places if getattr(p.layer, "computed_before", False)]
        try:
            for layer in joined:
                layer.relu = False
            for layer in handing:
                layer.computed_before = False  # type: ignore[attr-defined]
            for place in self.places:
                forward: Any = place.layer.forward
                y = forward(*[values[name] for name in place.reads])
                values[place.name] = found[place.name] = y
                found |= dict.fromkeys(ends[place.name], y)
        finally:
            for layer in joined:
                layer.relu = True
            for layer in handing:
                layer.computed_before = True  # type: ignore[attr-defined]
        return found

    # ---- its parts ------------------------------------------------------------------------------

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        for name, layer in self.layers.items():
            yield from layer.leaves(f"{prefix}.{name}" if prefix else name)

    def upto(self, name: str) -> Graph:
        """Return the part that computes what the place, or the graph within, `name` gives.

        Its layers are new ones, without parameters.

        Raises
        ------
        UnknownNameError
            If there is none of that name.
        """
        known = {place.name: place.name for place in self.places} | self._aliases
        if not isinstance(name, str) or name not in known:
            raise UnknownNameError("layer", name, known)
        wanted = {known[name]}
        for place in reversed(self.places):
            if place.name in wanted:
                wanted |= set(place.reads)
        part = Graph.__new__(Graph)
        part._lay(
            [name for name in self.inputs if name in wanted],
            {
                place.name: (layer_from_config(place.layer.config()), place.reads)
                for place in self.places
                if place.name in wanted
            },
            {"y": known[name]},
        )
        return part

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Graph:
        graph = cls.__new__(cls)
        nodes = {
            name: (layer_from_config(node["layer"]), tuple(node["reads"]))
            for name, node in config["nodes"].items()
        }
        graph._lay(list(config["inputs"]), nodes, dict(config["outputs"]))
        return graph

    def config(self) -> dict[str, Any]:
        return {
            "type": type(self).__name__,
            "inputs": list(self.inputs),
            "nodes": {
                name: {"layer": layer.config(), "reads": list(reads)}
                for name, (layer, reads) in self.nodes.items()
            },
            "outputs": dict(self.outputs),
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.inputs)} -> {', '.join(self.outputs)})"


Graph.plain.add(Graph)


def _check_layers(layers: Mapping[Any, Any]) -> None:
    """See that these are layers, each once, by names that a file can hold."""
    if not layers:
        raise ArgumentError("layers is empty; give one at least.")
    for name, layer in layers.items():
        if not isinstance(layer, Layer):
            hint = " (give an instance, such as ReLU())" if isinstance(layer, type) else ""
            raise ArgumentError(f"layers: {name} must be a Layer, got {shown(layer)}{hint}.")
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"layers: a name must be a text, got {shown(name)}.")
    if len({id(layer) for layer in layers.values()}) < len(layers):
        raise ArgumentError(
            "layers: one layer stands there twice, and keeps for its way back only what it saw "
            "last; make a new one each time."
        )


def _last_readers(places: Sequence[Place], ends: Sequence[str]) -> dict[str, list[str]]:
    """Return, by the place that reads it last, what need not be kept after that."""
    last = {name: place.name for place in places for name in place.reads}
    done: dict[str, list[str]] = {}
    for name, reader in last.items():
        if name not in ends:
            done.setdefault(reader, []).append(name)
    return done


def _check_result(place: Place, y: Any, shape: Shape, x: Array) -> None:
    """See that a layer that is not ours gives what it said it would."""
    kind = type(place.layer).__name__
    if getattr(getattr(y, "dtype", None), "kind", "") != "f" or not hasattr(y, "shape"):
        raise ArgumentError(f"{place.name}: {kind}.forward must return floats, got {shown(y)}.")
    backend_of(x, y)
    if y.shape != (len(x), *shape):
        raise ShapeError(
            f"{place.name}: {kind}.plan promised {shape} for each of {len(x)} samples, and forward "
            f"returned {y.shape}."
        )
    if x.dtype.kind == "f" and y.dtype != x.dtype:
        raise ArgumentError(
            f"{place.name}: {kind}.forward made {y.dtype} of {x.dtype}; keep the type, as by "
            "y.astype(x.dtype, copy=False)."
        )


def _check_gradient(place: Place, dx: Any, shape: Shape, dout: Array) -> None:
    kind = type(place.layer).__name__
    if getattr(dx, "shape", None) != (len(dout), *shape):
        raise ShapeError(
            f"{place.name}: {kind}.backward must return dx of shape {(len(dout), *shape)}, got "
            f"{getattr(dx, 'shape', shown(dx))}."
        )
    backend_of(dx, dout)


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
