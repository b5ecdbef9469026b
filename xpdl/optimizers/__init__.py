"""The update rules: each turns gradients into new parameters, in place."""

from xpdl.optimizers.base import (
    BY_NAME,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    Blocks,
    Momentum,
    Nesterov,
    Optimizer,
    RMSProp,
    get_optimizer,
    gradient_norm,
)

__all__ = [
    "BY_NAME",
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Blocks",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSProp",
    "get_optimizer",
    "gradient_norm",
]
