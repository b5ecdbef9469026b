"""Convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.initializers import WeightInit
from xpdl.layers import Affine, Convolution, Dropout, Layer, MaxPooling, ReLU
from xpdl.network import Network


class SimpleConvNet(Network):
    """Convolution 30@5x5, ReLU, 2x2 pooling, affine 100, ReLU, affine 10. Book, section 7.5.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    filters, filter_size, pad, stride : int
        Of the convolution.
    hidden_size, output_size : int
        Of the two affine layers.
    weight_init_std : str, float or Initializer
        How weights start.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        filters: int = 30,
        filter_size: int = 5,
        pad: int = 0,
        stride: int = 1,
        hidden_size: int = 100,
        output_size: int = 10,
        *,
        weight_init_std: WeightInit = 0.01,
        **options: Any,
    ) -> None:
        layers = [
            Convolution(filters, filter_size, stride, pad, weight_init=weight_init_std),
            ReLU(),
            MaxPooling(2),
            Affine(hidden_size, weight_init=weight_init_std),
            ReLU(),
            Affine(output_size, weight_init=weight_init_std),
        ]
        super().__init__(layers, input_shape, **options)


class DeepConvNet(Network):
    """Six 3x3 convolutions in three pairs, each pair pooled, and two affine layers. Figure 8-1.

    conv 16, relu, conv 16, relu, pool, conv 32, relu, conv 32 (padding 2), relu, pool,
    conv 64, relu, conv 64, relu, pool, affine 50, relu, dropout, affine 10, dropout

    The book reports 99.38 % on MNIST. Its last layer, after the scores, is dropout too; that is
    the book's network exactly, and `drop_scores=False` is the same without it.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    hidden_size, output_size : int
        Of the two affine layers.
    dropout_ratio : float
        Of both dropouts, which scale at inference, as the book's.
    drop_scores : bool
        Whether the second dropout, on the scores, is there.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        hidden_size: int = 50,
        output_size: int = 10,
        *,
        dropout_ratio: float = 0.5,
        drop_scores: bool = True,
        **options: Any,
    ) -> None:
        layers: list[Layer] = []
        for filters, pads in ((16, (1, 1)), (32, (1, 2)), (64, (1, 1))):
            for pad in pads:
                layers += [Convolution(filters, 3, pad=pad), ReLU()]
            layers.append(MaxPooling(2))
        layers += [Affine(hidden_size), ReLU(), Dropout(dropout_ratio), Affine(output_size)]
        if drop_scores:
            layers.append(Dropout(dropout_ratio))
        super().__init__(layers, input_shape, **options)
