"""MobileNetV2: Sandler et al. 2018 (arXiv:1801.04381)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import number, whole_number
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    GlobalAveragePooling,
    Layer,
    ReLU6,
    Residual,
    Sequential,
)
from xpdl.network import Network

# The paper's table 2: how much wider a block is inside, its filters, how many there are of it, and
# the stride of the first.
BLOCKS = (
    *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)


class MobileNetV2(Network):
    """Blocks that are narrow at their ends and wide, but depthwise, in between.

    conv 32@3x3 stride 2; 17 blocks: conv 1x1 to six times the channels, depthwise conv 3x3, conv
    1x1 to few channels, without a relu, and a way around where the shape stays; conv 1280@1x1; the
    mean of each channel; dropout; affine. Each convolution is normalised, and each but the last of
    a block followed by ReLU6. 3,504,872 parameters.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    output_size : int
        How many classes.
    dropout_ratio : float
        Of what the affine layer sees; it scales in training.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 224, 224),
        output_size: int = 1000,
        *,
        dropout_ratio: float = 0.2,
        **options: Any,
    ) -> None:
        dropout = Dropout(number("dropout_ratio", dropout_ratio, below=1), scale_at="training")
        layers: list[Layer] = [*_conv(32, 3, 2), ReLU6()]
        channels = 32
        for wider, filters, count, first_stride in BLOCKS:
            for block in range(count):
                stride = 1 if block else first_stride
                inner = _inside(channels, wider * channels, filters, stride)
                stays = stride == 1 and filters == channels
                layers.append(Residual(inner) if stays else Sequential(inner))
                channels = filters
        layers += [*_conv(1280, 1), ReLU6(), GlobalAveragePooling(), dropout]
        layers.append(Affine(whole_number("output_size", output_size)))
        super().__init__(layers, input_shape, **options)


def _inside(channels: int, wide: int, filters: int, stride: int) -> list[Layer]:
    """Return the layers of a block, of so many channels before it, in it, and after it."""
    layers: list[Layer] = [] if wide == channels else [*_conv(wide, 1), ReLU6()]
    layers += [*_conv(wide, 3, stride, groups=wide), ReLU6()]
    return [*layers, *_conv(filters, 1)]


def _conv(filters: int, size: int, stride: int = 1, groups: int = 1) -> list[Layer]:
    return [
        Convolution(
            *(filters, size, stride, size // 2), bias=False, groups=groups, remainder="drop"
        ),
        BatchNormalization(epsilon=1e-5, unbiased=True),
    ]
