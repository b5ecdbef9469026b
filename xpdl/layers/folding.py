"""Who reads what in a graph, and batch normalisation folded into convolutions at inference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from xpdl.backends import Array
from xpdl.layers.activations import ReLU
from xpdl.layers.convolution import Convolution
from xpdl.layers.normalization import BatchNormalization
from xpdl.layers.wiring import Place


def readers_of(places: Sequence[Place], ends: Sequence[str]) -> dict[str, list[Any]]:
    """Return the places that read each place or input, by its name; None for who has an output."""
    readers: dict[str, list[Any]] = defaultdict(list)
    for place in places:
        for name in place.reads:
            readers[name].append(place)
    for name in ends:
        readers[name].append(None)
    return readers


def fold(places: Sequence[Place], readers: Mapping[str, Sequence[Any]]) -> tuple[Place, ...]:
    """Return places at inference, of those in training, and of what reads each by name.

    A convolution computes the normalisation that alone reads it, and a ReLU that alone reads that:
    all three stand as one, under the last one's name. A layer derived from these may do something
    else, and is left alone.
    """
    folded = {place.name: place for place in places}
    for place in places:
        norm = alone(readers, place.name, BatchNormalization)
        if type(place.layer) is not Convolution or norm is None:
            continue
        relu = alone(readers, norm.name, ReLU)
        last = relu or norm
        layer: Any = _Folded(place.layer, norm.layer, relu is not None)
        folded[last.name] = replace(last, layer=layer, reads=place.reads)
        for gone in {place.name, norm.name} - {last.name}:
            del folded[gone]
    return tuple(folded.values())


def alone(readers: Mapping[str, Sequence[Any]], name: str, kind: type) -> Any:
    """Return the place that alone reads `name`, if its layer is of that very kind; or None."""
    reader = readers[name][0] if len(readers[name]) == 1 else None
    return reader if reader is not None and type(reader.layer) is kind else None


def way(places: Sequence[Place], ends: Sequence[str]) -> tuple[Sequence[Place], Any]:
    """Return places and, by the one that reads it last, what need not be kept after that."""
    last = {name: place.name for place in places for name in place.reads}
    done: dict[str, list[str]] = {}
    for name, reader in last.items():
        if name not in ends:
            done.setdefault(reader, []).append(name)
    return places, done


class _Folded:
    """A convolution, what normalises its results, and perhaps a ReLU.

    Parameters may have changed since the last call, and are taken as they are now.
    """

    def __init__(self, convolution: Convolution, norm: BatchNormalization, relu: bool) -> None:
        self.convolution, self.norm, self.relu = convolution, norm, relu

    def forward(self, x: Array, train: bool = False) -> Array:
        return self.convolution.normalized(x, self.norm.as_it_is(), self.relu)
