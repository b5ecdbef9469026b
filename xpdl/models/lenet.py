"""LeNet: LeCun et al. 1998; book, section 7.6.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import one_of, whole_number
from xpdl.layers import (
    Affine,
    Convolution,
    Layer,
    MaxPooling,
    PartialConvolution,
    ReLU,
    ScaledTanh,
    Subsampling,
)
from xpdl.network import Network

# The paper's table I: which of the six maps of S2 each of the sixteen of C3 sees.
CONNECTIONS = (
    *(tuple(sorted((i + k) % 6 for k in range(3))) for i in range(6)),
    *(tuple(sorted((i + k) % 6 for k in range(4))) for i in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class LeNet(Network):
    """LeNet-5 as it is used today, or as its paper has it.

    Of today, with ReLU and max pooling: conv 6@5x5 (padding 2), relu, pool, conv 16@5x5, relu,
    pool, affine 120, relu, affine 84, relu, affine 10; 61,706 parameters on 28x28 images, which
    count as the 32x32 of the paper.

    Of 1998: C1 conv 6@5x5 (156 parameters), S2 subsampling (12), C3 conv 16@5x5 in which a map sees
    three, four or all of six (1,516), S4 subsampling (32), C5 conv 120@5x5 (48,120), F6 affine 84
    (10,164), each followed by a scaled tanh: 60,000 parameters. The paper ends in distances to ten
    pictures of 7x12 pixels that somebody drew; here it is an affine layer, 850 more, as is common.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image; that of 1998 wants 28x28 pixels.
    output_size : int
        How many classes.
    form : {"today", "1998"}
        Which of the two.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        output_size: int = 10,
        *,
        form: str = "today",
        **options: Any,
    ) -> None:
        of_1998 = one_of("form", form, ("today", "1998")) == "1998"
        layers = _of_1998() if of_1998 else _of_today()
        layers.append(Affine(whole_number("output_size", output_size)))
        super().__init__(layers, input_shape, **options)


def _of_today() -> list[Layer]:
    layers: list[Layer] = [Convolution(6, 5, pad=2), ReLU(), MaxPooling(2)]
    layers += [Convolution(16, 5), ReLU(), MaxPooling(2)]
    return [*layers, Affine(120), ReLU(), Affine(84), ReLU()]


def _of_1998() -> list[Layer]:
    learning = [
        *(Convolution(6, 5, pad=2, weight_init="xavier"), Subsampling(2)),
        *(PartialConvolution(CONNECTIONS, 5), Subsampling(2)),
        *(Convolution(120, 5, weight_init="xavier"), Affine(84, weight_init="xavier")),
    ]
    return [layer for one in learning for layer in (one, ScaledTanh())]
