"""GoogLeNet: Szegedy et al. 2014 (arXiv:1409.4842); book, section 8.2.3."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpdl.architecture.reading import behind_normalize
from xpdl.arguments import flag, one_of, whole_number
from xpdl.layers import (
    AdaptiveAveragePooling,
    Affine,
    AveragePooling,
    BatchNormalization,
    Concatenate,
    Convolution,
    Dropout,
    GlobalAveragePooling,
    Input,
    LocalResponseNormalization,
    MaxPooling,
    Node,
    Normalize,
    ReLU,
)
from xpdl.network import Network

# The paper's table 1: filters of 1x1; of 1x1 before 3x3, and 3x3; of 1x1 before 5x5, and 5x5; of
# 1x1 behind the pooling. None pools.
INCEPTIONS: dict[str, tuple[int, ...] | None] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "pool3": None,
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "pool4": None,
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
HEADS = {"aux1": "4a", "aux2": "4d"}  # what the auxiliary heads see
HEAD_WEIGHT = 0.3


class GoogLeNet(Network):
    """Inception modules: 1x1, 3x3 and 5x5 filters and a pooling side by side (Figure 8-11).

    The paper's has response normalisation (with Caffe's numbers) and biases: 6,998,552 parameters
    without its heads, 13,378,280 with them. torchvision's is normalised by batch, without biases,
    and has 3x3 filters where the paper has 5x5: 6,624,904 without heads, 13,004,888 with them.
    Poolings keep windows that hang over in both.

    Two heads on the way, ``"aux1"`` and ``"aux2"``, learn to tell the classes, too, and count 0.3
    of the loss; so what is early in the network gets a gradient. `predict` then gives the scores of
    all three, by name, of which the first are ``"y"``.

    Parameters
    ----------
    input_shape : (C, H, W)
        Of one image.
    output_size : int
        How many classes.
    form : {"paper", "torchvision"}
        Which of the two.
    heads : bool
        Whether the auxiliary heads are there.
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
        form: str = "paper",
        heads: bool = True,
        normalize: Normalize | None = None,
        **options: Any,
    ) -> None:
        make = _Paper() if one_of("form", form, ("paper", "torchvision")) == "paper" else _Normal()
        output_size, heads = whole_number("output_size", output_size), flag("heads", heads)
        x = Input(input_shape)
        y, seen = make.stem(behind_normalize(x, normalize)), {}
        for name, filters in INCEPTIONS.items():
            y = make.pool(y, name) if filters is None else make.inception(y, filters)
            seen[name] = y
        ends = {head: make.head(seen[at], output_size) for head, at in HEADS.items() if heads}
        y = Dropout(make.dropout_ratio, scale_at="training")(GlobalAveragePooling()(y))
        weights = dict.fromkeys(ends, HEAD_WEIGHT)
        super().__init__(x, {"y": Affine(output_size)(y)} | ends, loss_weights=weights, **options)


class _Paper:
    """The parts of the paper's network."""

    dropout_ratio = 0.4
    largest = 5

    def conv(self, x: Node, filters: int, size: int, stride: int = 1) -> Node:
        return ReLU()(Convolution(filters, size, stride, size // 2, remainder="drop")(x))

    def stem(self, x: Node) -> Node:
        y = LocalResponseNormalization(averaged=True, bias=1)(self.pool(self.conv(x, 64, 7, 2)))
        y = self.conv(self.conv(y, 64, 1), 192, 3)
        return self.pool(LocalResponseNormalization(averaged=True, bias=1)(y))

    def pool(self, x: Node, name: str = "") -> Node:
        return MaxPooling(3, 2, remainder="keep")(x)

    def inception(self, x: Node, filters: Sequence[int]) -> Node:
        one, before_three, three, before_five, five, pooled = filters
        return Concatenate()(
            self.conv(x, one, 1),
            self.conv(self.conv(x, before_three, 1), three, 3),
            self.conv(self.conv(x, before_five, 1), five, self.largest),
            self.conv(MaxPooling(3, 1, 1)(x), pooled, 1),
        )

    def head(self, x: Node, output_size: int) -> Node:
        y = self.conv(AveragePooling(5, 3, remainder="drop")(x), 128, 1)
        y = Dropout(0.7, scale_at="training")(ReLU()(Affine(1024)(y)))
        return Affine(output_size)(y)


class _Normal(_Paper):
    """The parts of torchvision's."""

    dropout_ratio = 0.2
    largest = 3

    def conv(self, x: Node, filters: int, size: int, stride: int = 1) -> Node:
        y = Convolution(filters, size, stride, size // 2, bias=False, remainder="drop")(x)
        return ReLU()(BatchNormalization(epsilon=1e-3, unbiased=True)(y))

    def stem(self, x: Node) -> Node:
        y = self.pool(self.conv(x, 64, 7, 2))
        return self.pool(self.conv(self.conv(y, 64, 1), 192, 3))

    def pool(self, x: Node, name: str = "") -> Node:
        size = 2 if name == "pool4" else 3
        return MaxPooling(size, 2, remainder="keep")(x)

    def head(self, x: Node, output_size: int) -> Node:
        y = self.conv(AdaptiveAveragePooling(4)(x), 128, 1)
        y = Dropout(0.7, scale_at="training")(ReLU()(Affine(1024)(y)))
        return Affine(output_size)(y)
