"""AlexNet: Krizhevsky, Sutskever and Hinton 2012; book, section 8.2.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import number, one_of, whole_number
from xpdl.layers import (
    AdaptiveAveragePooling,
    Affine,
    Convolution,
    Dropout,
    Layer,
    LocalResponseNormalization,
    MaxPooling,
    ReLU,
)
from xpdl.network import Network


class AlexNet(Network):
    """Five convolutions and three affine layers, with ReLU and dropout: the winner of 2012.

    Of 2012, with two halves that were on a GPU each, which two groups of channels stand for:
    conv 96@11x11 stride 4, response, pool, conv 256@5x5 (2 groups), response, pool, conv 384@3x3,
    conv 384@3x3 (2 groups), conv 256@3x3 (2 groups), pool, affine 4096, 4096, 1000, each but the
    last with a relu; on 227x227 images, 60,965,224 parameters.

    Of 2014 ("One weird trick", arXiv:1404.5997), without halves and response normalisation, as
    torchvision has it: conv 64@11x11 stride 4, pool, conv 192@5x5, pool, conv 384@3x3,
    conv 256@3x3, conv 256@3x3, pool, the same affine layers; 61,100,840 parameters.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image; torchvision's is used with 224x224.
    output_size : int
        How many classes.
    form : {"2012", "2014"}
        Which of the two.
    hidden_size : int
        Of the first two affine layers.
    dropout_ratio : float
        Of what the first two affine layers give (2012), or see (2014); it scales in training.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 227, 227),
        output_size: int = 1000,
        *,
        form: str = "2012",
        hidden_size: int = 4096,
        dropout_ratio: float = 0.5,
        **options: Any,
    ) -> None:
        of_2012 = one_of("form", form, ("2012", "2014")) == "2012"
        hidden_size = whole_number("hidden_size", hidden_size)
        output_size = whole_number("output_size", output_size)
        dropout_ratio = number("dropout_ratio", dropout_ratio, below=1)

        def dropout() -> Dropout:
            return Dropout(dropout_ratio, scale_at="training")

        head: list[Layer] = []
        for _ in range(2):
            affine = [Affine(hidden_size), ReLU()]
            head += [*affine, dropout()] if of_2012 else [dropout(), *affine]
        layers = [*(_of_2012() if of_2012 else _of_2014()), *head, Affine(output_size)]
        super().__init__(layers, input_shape, **options)


def _of_2012() -> list[Layer]:
    layers: list[Layer] = [Convolution(96, 11, 4, remainder="drop"), ReLU()]
    layers += [LocalResponseNormalization(), _pool()]
    layers += [Convolution(256, 5, pad=2, groups=2), ReLU(), LocalResponseNormalization(), _pool()]
    for filters, groups in ((384, 1), (384, 2), (256, 2)):
        layers += [Convolution(filters, 3, pad=1, groups=groups), ReLU()]
    return [*layers, _pool()]


def _of_2014() -> list[Layer]:
    layers: list[Layer] = [Convolution(64, 11, 4, 2, remainder="drop"), ReLU(), _pool()]
    layers += [Convolution(192, 5, pad=2), ReLU(), _pool()]
    for filters in (384, 256, 256):
        layers += [Convolution(filters, 3, pad=1), ReLU()]
    return [*layers, _pool(), AdaptiveAveragePooling(6)]


def _pool() -> MaxPooling:
    return MaxPooling(3, 2, remainder="drop")
