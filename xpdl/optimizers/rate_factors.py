"""A factor on the learning rate of some parameters, as fine-tuning wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from xpdl.errors import UnknownNameError


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
