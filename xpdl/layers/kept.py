"""What a forward pass keeps for the way back."""

from __future__ import annotations

from functools import cache
from typing import Any

from xpdl.errors import NotReadyError


class Kept:
    """What forward keeps for backward; asking for it too early raises `NotReadyError`."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = "_" + name

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        value = layer.__dict__.get(self._name)
        if value is None:
            raise NotReadyError(
                f"{type(layer).__name__}.backward needs a forward pass before it: "
                "call forward(x, train=True) first."
            )
        return value

    def __set__(self, layer: Any, value: Any) -> None:
        layer.__dict__[self._name] = value


def forget(owner: Any) -> None:
    """Let go of all that the last forward pass of a layer or a loss kept for its backward pass."""
    kind: Any = type(owner)
    for place in _places(kind):
        owner.__dict__[place] = None


@cache
def _places(kind: type) -> tuple[str, ...]:
    """Return where objects of a class keep what they do."""
    kept = (value for base in kind.__mro__ for value in vars(base).values())
    return tuple(value._name for value in kept if isinstance(value, Kept))
