"""Batch normalisation folded into the convolution before it, at inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from xpdl.backends import Array
from xpdl.layers.activations import ReLU
from xpdl.layers.convolution import Convolution
from xpdl.layers.normalization import BatchNormalization
from xpdl.layers.wiring import Place


def fold(places: Sequence[Place], readers: Mapping[str | None, Sequence[Any]]) -> tuple[Place, ...]:
    """Return places at inference, of those in training, and of what reads each by name.

    A convolution computes the normalisation that alone reads it, and a ReLU that alone reads that:
    all three stand as one, under the last one's name. A layer derived from these may do something
    else, and is left alone.
    """
    folded = {place.name: place for place in places}
    for place in places:
        norm = _alone(readers, place.name, BatchNormalization)
        if type(place.layer) is not Convolution or norm is None:
            continue
        relu = _alone(readers, norm.name, ReLU)
        last = relu or norm
        layer: Any = _Folded(place.layer, norm.layer, relu is not None)
        folded[last.name] = replace(last, layer=layer, reads=place.reads)
        for gone in {place.name, norm.name} - {last.name}:
            del folded[gone]
    return tuple(folded.values())


def _alone(readers: Mapping[str | None, Sequence[Any]], name: str, kind: type) -> Any:
    """Return the place that alone reads `name`, if its layer is of that very kind; or None."""
    alone = readers[name][0] if len(readers[name]) == 1 else None
    return alone if alone is not None and type(alone.layer) is kind else None


class _Folded:
    """A convolution, what normalises its results, and perhaps a ReLU.

    Parameters may have changed since the last call, and are taken as they are now.
    """

    def __init__(self, convolution: Convolution, norm: BatchNormalization, relu: bool) -> None:
        self.convolution, self.norm, self.relu = convolution, norm, relu

    def forward(self, x: Array, train: bool = False) -> Array:
        return self.convolution.normalized(x, self.norm.as_it_is(), self.relu)
