"""VGG: Simonyan and Zisserman 2015 (arXiv:1409.1556); book, section 8.2.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import flag, number, whole_number
from xpdl.errors import ArgumentError, shown
from xpdl.layers import (
    AdaptiveAveragePooling,
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Layer,
    MaxPooling,
    ReLU,
)
from xpdl.network import Network

# How many 3x3 convolutions stand before each of the five poolings; their filters: the paper's
# table 1, columns A, B, D and E.
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FILTERS = (64, 128, 256, 512, 512)


class VGG(Network):
    """Nothing but 3x3 convolutions, pooled to half five times, and three affine layers.

    VGG16, Figure 8-9 of the book: conv 64 twice, pool, conv 128 twice, pool, conv 256 three times,
    pool, conv 512 three times, pool, conv 512 three times, pool, affine 4096, 4096, 1000, each but
    the last with a relu; 138,357,544 parameters.

    Parameters
    ----------
    depth : {11, 13, 16, 19}
        How many layers have weights.
    input_shape : (C, H, W)
        Of one image; what is left of it is averaged to 7x7, which it is at 224x224.
    output_size : int
        How many classes.
    normalized : bool
        Whether each convolution is followed by batch normalisation, as torchvision's ``vgg16_bn``.
    hidden_size : int
        Of the first two affine layers.
    dropout_ratio : float
        Of what the first two affine layers give; it scales in training.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        depth: int = 16,
        input_shape: Sequence[int] = (3, 224, 224),
        output_size: int = 1000,
        *,
        normalized: bool = False,
        hidden_size: int = 4096,
        dropout_ratio: float = 0.5,
        **options: Any,
    ) -> None:
        if whole_number("depth", depth) not in DEPTHS:
            raise ArgumentError(f"depth must be 11, 13, 16 or 19, got {shown(depth)}.")
        normalized = flag("normalized", normalized)
        hidden_size = whole_number("hidden_size", hidden_size)
        output_size = whole_number("output_size", output_size)
        dropout_ratio = number("dropout_ratio", dropout_ratio, below=1)
        layers: list[Layer] = []
        for filters, count in zip(FILTERS, DEPTHS[depth], strict=True):
            for _ in range(count):
                layers.append(Convolution(filters, 3, pad=1))
                if normalized:
                    layers.append(BatchNormalization(epsilon=1e-5, unbiased=True))
                layers.append(ReLU())
            layers.append(MaxPooling(2, remainder="drop"))
        layers.append(AdaptiveAveragePooling(7))
        for _ in range(2):
            layers += [Affine(hidden_size), ReLU(), Dropout(dropout_ratio, scale_at="training")]
        super().__init__([*layers, Affine(output_size)], input_shape, **options)
