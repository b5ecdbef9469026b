"""Networks of affine layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xpdl.arguments import LARGEST, flag, number, whole_number
from xpdl.errors import ArgumentError, UnknownNameError, shown
from xpdl.initializers import WeightInit
from xpdl.layers import Affine, BatchNormalization, Dropout, Layer, ReLU, Sigmoid, Tanh
from xpdl.network import Network

ACTIVATIONS: dict[str, Callable[[], Layer]] = {"relu": ReLU, "sigmoid": Sigmoid, "tanh": Tanh}
# The book's rule: He's deviation for ReLU, Xavier's for curves that are straight near zero.
SUITED = {"relu": "he", "sigmoid": "xavier", "tanh": "xavier"}


class MultiLayerNet(Network):
    """Affine layers of any number and size, with an activation between them. Book, chapter 6.

    Parameters
    ----------
    input_size : int or tuple of int
        Of one sample; the shape of an image, (C, H, W), is flattened.
    hidden_size_list : sequence of int
        The sizes of the hidden layers.
    output_size : int
        How many classes.
    activation : {"relu", "sigmoid", "tanh"}
        The activation.
    weight_init_std : str, float or Initializer, optional
        How weights start; by default what suits the activation, He or Xavier.
    weight_decay_lambda : float
        Lambda of the L2 term in the loss.
    use_batchnorm : bool
        Whether batch normalisation stands before each activation.
    dropout_ratio : float
        The share that dropout silences after each activation; 0 for no dropout.
    **options
        Of `Network`: seed, dtype, name ...
    """

    def __init__(
        self,
        input_size: int | Sequence[int] = 784,
        hidden_size_list: Sequence[int] = (100, 100, 100, 100),
        output_size: int = 10,
        *,
        activation: str = "relu",
        weight_init_std: WeightInit | None = None,
        weight_decay_lambda: float = 0.0,
        use_batchnorm: bool = False,
        dropout_ratio: float = 0.0,
        **options: Any,
    ) -> None:
        if not isinstance(activation, str) or activation not in ACTIVATIONS:
            raise UnknownNameError("activation", activation, ACTIVATIONS)
        weight_init = SUITED[activation] if weight_init_std is None else weight_init_std
        if isinstance(hidden_size_list, str | bytes) or not isinstance(hidden_size_list, Sequence):
            raise ArgumentError(
                f"hidden_size_list must be a list of ints, got {shown(hidden_size_list)}."
            )
        use_batchnorm = flag("use_batchnorm", use_batchnorm)
        dropout_ratio = number("dropout_ratio", dropout_ratio, below=1)
        layers: list[Layer] = []
        for size in hidden_size_list:
            size = whole_number("a size in hidden_size_list", size, most=LARGEST)
            layers.append(Affine(size, weight_init=weight_init))
            if use_batchnorm:
                layers.append(BatchNormalization())
            layers.append(ACTIVATIONS[activation]())
            if dropout_ratio:
                layers.append(Dropout(dropout_ratio))
        output_size = whole_number("output_size", output_size, most=LARGEST)
        layers.append(Affine(output_size, weight_init=weight_init))
        super().__init__(layers, input_size, weight_decay=weight_decay_lambda, **options)


class TwoLayerNet(MultiLayerNet):
    """Affine, activation, affine: the network of the book's chapters 4 and 5 (there 784-50-10)."""

    def __init__(
        self,
        input_size: int | Sequence[int] = 784,
        hidden_size: int = 50,
        output_size: int = 10,
        *,
        weight_init_std: WeightInit = 0.01,
        **options: Any,
    ) -> None:
        whole_number("hidden_size", hidden_size, most=LARGEST)
        super().__init__(
            input_size, [hidden_size], output_size, weight_init_std=weight_init_std, **options
        )
