"""Convolutional networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.arguments import flag, number, sizes, whole_number
from xpdl.errors import ArgumentError, shown
from xpdl.initializers import WeightInit
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    Layer,
    MaxPooling,
    ReLU,
)
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
            Convolution(
                whole_number("filters", filters),
                filter_size,
                stride,
                pad,
                weight_init=weight_init_std,
            ),
            ReLU(),
            MaxPooling(2),
            Affine(whole_number("hidden_size", hidden_size), weight_init=weight_init_std),
            ReLU(),
            Affine(whole_number("output_size", output_size), weight_init=weight_init_std),
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
        hidden_size = whole_number("hidden_size", hidden_size)
        output_size = whole_number("output_size", output_size)
        dropout_ratio = number("dropout_ratio", dropout_ratio, below=1)
        drop_scores = flag("drop_scores", drop_scores)
        layers: list[Layer] = []
        for filters, pads in ((16, (1, 1)), (32, (1, 2)), (64, (1, 1))):
            for pad in pads:
                layers += [Convolution(filters, 3, pad=pad), ReLU()]
            layers.append(MaxPooling(2, remainder=_remainder(input_shape)))
        layers += [Affine(hidden_size), ReLU(), Dropout(dropout_ratio), Affine(output_size)]
        if drop_scores:
            layers.append(Dropout(dropout_ratio))
        super().__init__(layers, input_shape, **options)


class NormalizedConvNet(Network):
    """DeepConvNet's six convolutions, wider and each batch normalised, and one affine layer.

    for each width: conv, norm, relu, conv, norm, relu, pool; then dropout, affine 10

    Not a network of the book: Figure 8-1 with the batch normalisation of its section 6.3, and as
    many filters as there is time for. With padding 1 and, in the second pair, 1 and 2, as there.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    widths : sequence of int
        The filters of the three pairs of convolutions.
    output_size : int
        How many classes.
    dropout_ratio : float
        Of what the affine layer sees; 0 leaves the dropout out.
    **options
        Of `Network`: seed, dtype, name ...

    Raises
    ------
    ArgumentError
        If there are not three widths.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (1, 28, 28),
        widths: Sequence[int] = (32, 64, 128),
        output_size: int = 10,
        *,
        dropout_ratio: float = 0.0,
        **options: Any,
    ) -> None:
        if isinstance(widths, str) or not isinstance(widths, Sequence) or len(widths) != 3:
            raise ArgumentError(f"widths must be three numbers of filters, got {shown(widths)}.")
        output_size = whole_number("output_size", output_size)
        dropout_ratio = number("dropout_ratio", dropout_ratio, below=1)
        layers: list[Layer] = []
        for filters, pads in zip(widths, ((1, 1), (1, 2), (1, 1)), strict=True):
            for pad in pads:
                filters = whole_number("a width in widths", filters)
                layers += [Convolution(filters, 3, pad=pad), BatchNormalization(), ReLU()]
            layers.append(MaxPooling(2, remainder=_remainder(input_shape)))
        if dropout_ratio:
            layers.append(Dropout(dropout_ratio))
        super().__init__([*layers, Affine(output_size)], input_shape, **options)


def _remainder(input_shape: Sequence[int]) -> str:
    """Return what poolings do with pixels left over: of 28, and of each 8 more or less, none are.

    Pictures of other sizes lose a row and a column there.
    """
    sides = sizes("input_shape", input_shape)[1:]
    return "error" if all(side % 8 == 4 for side in sides) else "drop"
