"""Which backend's code computes a primitive."""

from __future__ import annotations

from typing import Any

PRIMITIVES = (
    "matmul",
    "convolution",
    "convolution_backward",
    "convolution_pooling",
    "convolution_normalized",
    "grouped_convolution",
    "grouped_convolution_backward",
    "max_pooling",
    "max_pooling_backward",
    "average_pooling",
    "average_pooling_backward",
    "moments",
    "normalize",
    "normalize_backward",
    "normalize_response",
    "normalize_response_backward",
    "sum",
    "add_bias",
    "relu",
    "relu_backward",
    "relu6",
    "relu6_backward",
    "softmax_with_loss",
    "softmax_with_loss_backward",
    "confusion",
    "dropout",
    "dropout_backward",
    "gather",
    "all_finite",
    "unscale",
    "adjust_loss_scale",
    "update_rule",
)
"""What a backend may override to be fast; the rest of its methods hold and move arrays."""


class Providers:
    """A backend that tells whose code it computes with."""

    provider = "generic"  # by what name `providers` calls the code of this class

    @classmethod
    def providers(cls, dtype: Any = "float32") -> dict[str, str]:
        """Return each primitive's name with the name of the backend whose code computes it.

        For arrays of `dtype`. On the backend ``numba``, convolution is "numba" for float32 and
        "numpy" for float64; a primitive that no backend overrides is "generic".
        """
        return {
            primitive: next(
                vars(kind).get("provider") or vars(kind).get("name", "generic")
                for kind in cls.__mro__
                if primitive in vars(kind)
            )
            for primitive in PRIMITIVES
        }
