"""The update rules: each turns gradients into new parameters, in place."""

from xpdl.optimizers.base import Optimizer
from xpdl.optimizers.clipping import gradient_norm
from xpdl.optimizers.names import BY_NAME, get_optimizer
from xpdl.optimizers.rules import SGD, AdaGrad, Adam, AdamW, Momentum, Muon, Nesterov, RMSProp

__all__ = [
    "BY_NAME", "SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Muon", "Nesterov",
    "Optimizer", "RMSProp", "get_optimizer", "gradient_norm",
]  # fmt: skip
