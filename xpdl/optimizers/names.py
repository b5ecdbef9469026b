"""Optimizers by name, as the command and the `Trainer` take them."""

from __future__ import annotations

from typing import Any

from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.optimizers.base import Optimizer
from xpdl.optimizers.rules import SGD, AdaGrad, Adam, AdamW, Momentum, Muon, Nesterov, RMSProp

BY_NAME: dict[str, type[Optimizer]] = {
    rule.__name__.lower(): rule
    for rule in (SGD, Momentum, Nesterov, AdaGrad, RMSProp, Adam, AdamW, Muon)
}


def get_optimizer(choice: str | Optimizer, **options: Any) -> Optimizer:
    """Return the optimizer of a name (in any case), made with `options`, or an optimizer itself.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    ArgumentError
        If it has no such option, or the option is given a value that it does not take.
    """
    if isinstance(choice, Optimizer):
        if options:
            raise ArgumentError(
                f"{', '.join(options)}: give these to {type(choice).__name__}(...) itself."
            )
        return choice
    if not isinstance(choice, str) or choice.lower() not in BY_NAME:
        raise UnknownNameError("optimizer", choice, BY_NAME)
    return BY_NAME[choice.lower()](**options)
