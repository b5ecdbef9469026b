"""LeNet: LeCun et al. 1998; book, section 7.6.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import whole_number
from xpdl.layers import Affine, Convolution, Layer, MaxPooling, ReLU
from xpdl.network import Network


class LeNet(Network):
    """LeNet-5 as it is used today: ReLU for its sigmoids, max pooling for its means.

    conv 6@5x5 (padding 2), relu, pool, conv 16@5x5, relu, pool, affine 120, relu, affine 84, relu,
    affine 10; 61,706 parameters on 28x28 images, which count as the 32x32 of the paper.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    output_size : int
        How many classes.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self, input_shape: Sequence[int] = (1, 28, 28), output_size: int = 10, **options: Any
    ) -> None:
        layers: list[Layer] = [Convolution(6, 5, pad=2), ReLU(), MaxPooling(2)]
        layers += [Convolution(16, 5), ReLU(), MaxPooling(2)]
        layers += [Affine(120), ReLU(), Affine(84), ReLU()]
        layers.append(Affine(whole_number("output_size", output_size)))
        super().__init__(layers, input_shape, **options)
