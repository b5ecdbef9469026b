"""ResNet: He et al. 2015 (arXiv:1512.03385); book, section 8.2.4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import flag, whole_number
from xpdl.errors import ArgumentError, shown
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    GlobalAveragePooling,
    Layer,
    MaxPooling,
    PadChannels,
    ReLU,
    Residual,
    Sequential,
)
from xpdl.network import Network

# The paper's table 1: how many blocks there are of each of four widths.
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class ResNet(Network):
    """Blocks of convolutions with a way around each, for images of ImageNet.

    conv 64@7x7 stride 2, norm, relu, pool 3x3 stride 2; four groups of blocks, of widths 64, 128,
    256 and 512, of which the last three begin with stride 2; the mean of each channel; affine.
    Up to depth 34 a block is two 3x3 convolutions, from 50 on 1x1, 3x3, 1x1 with four times the
    width at its end; stride is in the 3x3, as torchvision has it. Where a block changes the shape,
    its way around is a 1x1 convolution. ResNet-18 has 11,689,512 parameters, ResNet-50 25,557,032.

    Parameters
    ----------
    depth : {18, 34, 50, 101, 152}
        How many layers have weights, those on the ways around not counted.
    input_shape : (C, H, W)
        Of one image.
    output_size : int
        How many classes.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        depth: int = 18,
        input_shape: Sequence[int] = (3, 224, 224),
        output_size: int = 1000,
        **options: Any,
    ) -> None:
        if whole_number("depth", depth) not in DEPTHS:
            raise ArgumentError(f"depth must be 18, 34, 50, 101 or 152, got {shown(depth)}.")
        layers: list[Layer] = [*_conv(64, 7, 2), ReLU(), MaxPooling(3, 2, 1, remainder="drop")]
        channels = 64
        for group, count in enumerate(DEPTHS[depth]):
            width = 64 * 2**group
            given = width if depth < 50 else 4 * width
            for block in range(count):
                stride = 2 if group and not block else 1
                inner = _two(width, stride) if depth < 50 else _three(width, stride)
                around = Sequential(_conv(given, 1, stride)) if given != channels else None
                layers += [Residual(inner, around), ReLU()]
                channels = given
        layers += [GlobalAveragePooling(), Affine(whole_number("output_size", output_size))]
        super().__init__(layers, input_shape, **options)


class CifarResNet(Network):
    """The same idea for small images (section 4.2 of the paper): ResNet-20 to ResNet-110.

    conv 16@3x3, norm, relu; n blocks of two 3x3 convolutions of each of the widths 16, 32 and 64,
    the last two beginning with stride 2; the mean of each channel; affine: 6 n + 2 layers. Where a
    block changes the shape, its way around takes every second pixel and adds channels of zeros.
    ResNet-20 has 269,722 parameters, ResNet-56 853,018, ResNet-110 1,727,962.

    Parameters
    ----------
    depth : int
        6 n + 2: 20, 32, 44, 56, 110 in the paper.
    input_shape : (C, H, W)
        Of one image.
    output_size : int
        How many classes.
    plain : bool
        Whether the ways around are left out: plain-20, plain-56, whose depth does not pay.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        depth: int = 20,
        input_shape: Sequence[int] = (3, 32, 32),
        output_size: int = 10,
        *,
        plain: bool = False,
        **options: Any,
    ) -> None:
        if whole_number("depth", depth, least=8, most=10_000) % 6 != 2:
            raise ArgumentError(f"depth must be 6 n + 2, such as 20 or 56, got {shown(depth)}.")
        plain = flag("plain", plain)
        layers: list[Layer] = [*_conv(16, 3), ReLU()]
        for width in (16, 32, 64):
            for block in range((depth - 2) // 6):
                widens = width > 16 and not block
                inner = _two(width, 2 if widens else 1)
                around = Sequential([_every_second(), PadChannels(width // 4, width // 4)])
                layers += inner if plain else [Residual(inner, around if widens else None)]
                layers.append(ReLU())
        layers += [GlobalAveragePooling(), Affine(whole_number("output_size", output_size))]
        super().__init__(layers, input_shape, **options)


def _conv(filters: int, size: int, stride: int = 1) -> list[Layer]:
    """Return a convolution that keeps the size but for its stride, and its normalisation."""
    return [
        Convolution(filters, size, stride, size // 2, bias=False, remainder="drop"),
        BatchNormalization(epsilon=1e-5, unbiased=True),
    ]


def _two(width: int, stride: int) -> list[Layer]:
    return [*_conv(width, 3, stride), ReLU(), *_conv(width, 3)]


def _three(width: int, stride: int) -> list[Layer]:
    return [
        *(*_conv(width, 1), ReLU()),
        *(*_conv(width, 3, stride), ReLU()),
        *_conv(4 * width, 1),
    ]


def _every_second() -> MaxPooling:
    """Return what takes every second pixel: the largest number of one is that number."""
    return MaxPooling(1, 2, remainder="drop")
