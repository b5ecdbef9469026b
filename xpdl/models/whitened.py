"""A network for small photographs that learns CIFAR-10 in a few epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpdl.arguments import sizes, whole_number
from xpdl.backends import Array, backend_of
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.layers import Affine, BatchNormalization, Convolution, Layer, MaxPooling, ReLU
from xpdl.network import Network

SIDE = 2  # of a patch
LOOKED_AT = 1000  # pictures
LEAST = 5e-4  # added to variances, so that hardly any noise is made large


class WhitenedConvNet(Network):
    """Pairs of wide convolutions behind filters that are not learned but measured.

    conv 8C@2x2, relu; for each width: conv, pool, norm, relu, conv, norm, relu; pool 3x3, affine

    for pictures of C channels. `whiten` sets the filters of the first convolution by training
    pictures. So built by Jordan 2024 (arXiv:2404.00498), there with GELU and a shift for the norms.
    With the usual widths and (3, 32, 32) it has 1,972,802 parameters.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    widths : sequence of int
        The filters of each pair of convolutions.
    output_size : int
        How many classes.
    **options
        Of `Network`: seed, dtype, name ...

    Raises
    ------
    ArgumentError, ShapeError
        If widths are no such numbers, or too many for the size of the pictures.
    """

    def __init__(
        self,
        input_shape: Sequence[int] = (3, 32, 32),
        widths: Sequence[int] = (64, 256, 256),
        output_size: int = 10,
        **options: Any,
    ) -> None:
        if isinstance(widths, str) or not isinstance(widths, Sequence) or not widths:
            raise ArgumentError(f"widths must be numbers of filters, got {shown(widths)}.")
        channels = sizes("input_shape", input_shape)[0]
        layers: list[Layer] = [Convolution(2 * channels * SIDE**2, SIDE), ReLU()]
        for width in widths:
            filters = whole_number("a width in widths", width)
            layers += [_conv(filters), MaxPooling(2, remainder="drop"), *_norm()]
            layers += [_conv(filters), *_norm()]
        layers += [
            MaxPooling(3, remainder="drop"),
            Affine(whole_number("output_size", output_size)),
        ]
        super().__init__(layers, input_shape, **options)

    def whiten(self, x: Array) -> None:
        """Let the first filters see what is unusual in a patch, and freeze them.

        Patches p of pictures as the network sees them have E[p p^T] = V diag(e) V^T. The filters
        are v_k / sqrt(e_k + 0.0005) for each of V's columns, and the same negated: their outputs
        are uncorrelated, and all about as large.

        Parameters
        ----------
        x : array, (N, C, H, W)
            Training pictures. At most 1,000 of them, evenly spread, are looked at.

        Raises
        ------
        ShapeError
            If they are not pictures of the network's shape.
        """
        if x.shape[1:] != self.input_shape or not len(x):
            raise ShapeError(
                f"x must be pictures (N, {', '.join(map(str, self.input_shape))}), got {x.shape}."
            )
        some = x[:: -(-len(x) // LOOKED_AT)]
        some = backend_of(some).to_numpy(some)
        if self.normalize is not None:
            some = self.normalize.forward(some, train=True)
        filters = whitening_filters(some)
        conv = self.params["conv1.W"]
        conv[...] = self.backend.asarray(filters, conv.dtype)
        self.freeze("conv1")


def whitening_filters(x: Array, side: int = SIDE, least: float = LEAST) -> Array:
    """Return filters (2 C side side, C, side, side), float64, that whiten patches of x.

    Of x (N, C, H, W), on the host. The largest variance comes first. The second half are the
    first half's negatives.
    """
    patches = np.lib.stride_tricks.sliding_window_view(x, (side, side), axis=(2, 3))
    rows = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * side * side)
    rows = rows.astype(np.float64)
    covariance = rows.T @ rows / len(rows)
    variances, V = np.linalg.eigh(covariance)
    filters = (V / np.sqrt(variances + least)).T[::-1].reshape(-1, x.shape[1], side, side)
    return np.concatenate([filters, -filters])


def _conv(filters: int) -> Convolution:
    return Convolution(filters, 3, pad=1, bias=False)


def _norm() -> list[Layer]:
    return [BatchNormalization(), ReLU()]
