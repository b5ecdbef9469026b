"""SqueezeNet 1.1: Iandola et al. 2016 (arXiv:1602.07360)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.architecture.reading import behind_normalize
from xpdl.arguments import number, whole_number
from xpdl.layers import (
    Concatenate,
    Convolution,
    Dropout,
    GlobalAveragePooling,
    Input,
    MaxPooling,
    Node,
    Normalize,
    ReLU,
)
from xpdl.network import Network

# Of each fire module, the filters of its squeeze and of each of its two expansions; None pools.
FIRES = (
    *((16, 64), (16, 64), None, (32, 128), (32, 128), None),
    *((48, 192), (48, 192), (64, 256), (64, 256)),
)


class SqueezeNet(Network):
    """Fire modules: few 1x1 filters, then 1x1 and 3x3 filters side by side; no affine layer.

    conv 64@3x3 stride 2, pool, eight modules with two poolings between, dropout, conv 1x1 of as
    many filters as there are classes, and the mean of each channel. Release 1.1 of its authors,
    1,235,496 parameters. Its poolings keep windows that hang over.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    output_size : int
        How many classes.
    dropout_ratio : float
        Of what the last convolution sees; it scales in training.
    normalize : Normalize, optional
        What the numbers of an image mean.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        output_size: int = 1000,
        *,
        dropout_ratio: float = 0.5,
        normalize: Normalize | None = None,
        **options: Any,
    ) -> None:
        dropout = Dropout(number("dropout_ratio", dropout_ratio, below=1), scale_at="training")
        output_size = whole_number("output_size", output_size)
        x = Input(input_shape)
        pixels = behind_normalize(x, normalize)
        y = _pool(ReLU()(Convolution(64, 3, 2, remainder="drop")(pixels)))
        for filters in FIRES:
            y = _pool(y) if filters is None else _fire(y, *filters)
        scores = ReLU()(Convolution(output_size, 1)(dropout(y)))
        super().__init__(x, GlobalAveragePooling()(scores), **options)


def _fire(x: Node, squeezed: int, expanded: int) -> Node:
    few = ReLU()(Convolution(squeezed, 1)(x))
    narrow = ReLU()(Convolution(expanded, 1)(few))
    wide = ReLU()(Convolution(expanded, 3, pad=1)(few))
    return Concatenate()(narrow, wide)


def _pool(x: Node) -> Node:
    return MaxPooling(3, 2, remainder="keep")(x)
