"""What reads what in a graph of layers: as it is described, by nodes or in a file, and laid out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xpdl.errors import ArgumentError, UnknownNameError, shown
from xpdl.layers.base import Layer, layer_from_config
from xpdl.layers.node import behind, named_nodes, names_of


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


class Wiring:
    """Layers and what each reads. `Graph` computes with them.

    Graphs within a graph are laid out in it, so that there is one list of `places`, in an order in
    which each reads only what stands before it.

    Attributes
    ----------
    layers : dict of str to Layer
        By name, in order; those of a graph within are in its own `layers`.
    places : tuple of Place
        All layers that are no graphs, named ``"block1.conv2"`` if within one.
    ends : tuple of str
        Which places the outputs are.
    """

    arity: int | None
    plain: ClassVar[set[type]] = set()  # the classes that do nothing but what `Graph` does

    def __init__(self, inputs: Any, outputs: Any) -> None:
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
        check_layers(layers)
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
        self.places, self._aliases, self.ends = self._laid_out(self.inputs)

    def _laid_out(
        self, sources: Sequence[str], prefix: str = "", around: tuple[Any, ...] = ()
    ) -> tuple[tuple[Place, ...], dict[str, str], tuple[str, ...]]:
        """Return all places, with those of the graphs within; whose names mean which; the ends."""
        if self in around:
            raise ArgumentError(f"{type(self).__name__} holds itself: a graph has no circles.")
        found = dict(zip(self.inputs, sources, strict=True))
        places: list[Place] = []
        aliases: dict[str, str] = {}
        for name, (layer, reads) in self.nodes.items():
            full, read = prefix + name, tuple(found[r] for r in reads)
            if type(layer) in Wiring.plain:
                layer.check_arity(len(read))
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

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Layer]]:
        for name, layer in self.layers.items():
            yield from layer.leaves(f"{prefix}.{name}" if prefix else name)

    def upto(self, name: str) -> Any:
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
        nodes = {
            place.name: {"layer": place.layer.config(), "reads": place.reads}
            for place in self.places
            if place.name in wanted
        }
        inputs = [name for name in self.inputs if name in wanted]
        outputs = {"y": known[name]}
        return layer_from_config(
            {"type": "Graph", "inputs": inputs, "nodes": nodes, "outputs": outputs}
        )

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
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


def check_layers(layers: Mapping[Any, Any]) -> None:
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
