"""A factor on the learning rate of some parameters, as fine-tuning wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xpdl.arguments import dictionary, number
from xpdl.errors import ArgumentError, UnknownNameError, shown


def checked_factors(given: object) -> dict[str, float]:
    """Return `rate_factors` as it was given to an optimizer, seen to be names and numbers."""
    wanted = 'of names and factors such as {"features.": 0.1}'
    factors = {} if given is None else dictionary("rate_factors", given, wanted)
    for name in factors:
        if not isinstance(name, str):
            raise ArgumentError(f"rate_factors must be a dictionary {wanted}, got {shown(given)}.")
    return {name: number(f"rate_factors[{name!r}]", factor) for name, factor in factors.items()}


def factors_by_parameter(factors: Mapping[str, float], names: Iterable[str]) -> dict[str, float]:
    """Return the factor of each parameter that has one; the longest name that fits it decides.

    A name is that of a parameter, a layer or a block, or else what the names of several begin with.

    Raises
    ------
    UnknownNameError
        If no parameter's name begins so.
    """
    found: dict[str, float] = {}
    names = list(names)
    for start in sorted(factors, key=len):
        whole = start.removesuffix(".") + "."
        fitting = [name for name in names if f"{name}.".startswith(whole)]
        fitting = fitting or [name for name in names if name.startswith(start)]
        if not fitting:
            raise UnknownNameError("parameter in rate_factors", start, names)
        found |= dict.fromkeys(fitting, factors[start])
    return found
