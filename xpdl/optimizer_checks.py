"""What an optimizer looks at: options, parameters and gradients, its memory, and a saved one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from xpdl.arguments import (
    arrays_of_floats,
    dictionary,
    number,
    plainly,
    real_array,
    whole_number,
)
from xpdl.backends import Array, accumulation_dtype, backend_of
from xpdl.errors import (
    ArgumentError,
    DTypeError,
    ModelFileError,
    ShapeError,
    UnknownNameError,
    shown,
)
from xpdl.parameters import ArrayDict, Arrays


def read_rate_factors(given: object) -> dict[str, float]:
    """Return `rate_factors` as it was given to an optimizer, seen to be names and numbers.

    Raises
    ------
    ArgumentError
        If it is not.
    """
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


def check_update(params: Arrays, grads: Arrays, go: Array | None) -> None:
    """See that parameters, gradients and `go` fit together; see `Optimizer.update`."""
    for argument, arrays in ("params", params), ("grads", grads):
        if not isinstance(arrays, ArrayDict):  # a network's own are always of floats
            arrays_of_floats(argument, arrays, changes=arrays is params)
    same_shapes("the gradient", grads, params)
    held = [[a.buffer] if isinstance(a, ArrayDict) else a.values() for a in (params, grads)]
    backend_of(*held[0], *held[1])
    if go is not None and real_array("go", go, "b").shape:
        raise ShapeError(f"go must be an array () of a bool, got shape {go.shape}.")
    if isinstance(params, ArrayDict) and len(params.frozen) == len(params):
        raise ArgumentError(
            "all parameters are frozen, so that there is nothing to update; "
            "network.unfreeze(...) lets a layer learn."
        )


def check_memory(rule: str, state: Mapping[str, Arrays], params: Arrays) -> None:
    """See that what a rule remembers is of these parameters.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If it is of others.
    """
    for slot, arrays in state.items():
        what, advice = f"this {rule}'s {slot}", "; make a new optimizer for them"
        same_shapes(what, arrays, params, advice)
        for name, p in () if isinstance(params, ArrayDict) else params.items():
            dtype = arrays[name].dtype
            if dtype != accumulation_dtype(p.dtype):
                raise DTypeError(f"{what} of {name} is {dtype}, for {p.dtype}{advice}.")


def same_shapes(
    what: str, arrays: Mapping[str, Any], params: Mapping[str, Any], advice: str = ""
) -> None:
    """See that `arrays` are, by names and shapes, those of the parameters `params`.

    Raises
    ------
    ArgumentError, ShapeError
        If they are not.
    """
    if isinstance(arrays, ArrayDict) and arrays.layout is getattr(params, "layout", None):
        return  # as in every step of a network's training
    if arrays.keys() != params.keys():
        lone = sorted(map(str, arrays.keys() ^ params.keys()))
        raise ArgumentError(
            f"{what} and the parameters must have the same names; {', '.join(lone)} stands in one "
            f"only{advice}."
        )
    for name, p in params.items():
        if getattr(arrays[name], "shape", None) != p.shape:
            raise ShapeError(
                f"{what} of {name} must have the shape {p.shape} of the parameter, got "
                f"{getattr(arrays[name], 'shape', None)}{advice}."
            )


def check_saved(saved: Any, rule: str, slots: Sequence[str]) -> None:
    """See that `saved` is what `Optimizer.state_dict` returned, of a rule with these slots.

    Raises
    ------
    ModelFileError
        If it is of another rule, or damaged.
    """
    what = "the saved optimizer state"
    try:
        found = dictionary(what, saved)["rule"]
        state = dictionary("its state", saved["state"], "by slot")
        for slot, arrays in state.items():
            dictionary(f"its {slot}", arrays, "of arrays")
        number("learning_rate", saved["learning_rate"])
        updates = whole_number("iteration", saved["iteration"], least=0, most=2**62)
        for name, count in dictionary("counts of updates", saved.get("counts", {})).items():
            whole_number(f"counts of updates of {name}", count, least=0, most=updates)
    except (ArgumentError, KeyError) as error:
        raise ModelFileError(f"{what} is damaged: {plainly(error).strip('.')}.") from error
    if found != rule:
        raise ModelFileError(f"the saved state is of {found!r}, not of {rule!r}.")
    if (updates or state) and set(state) != set(slots):
        raise ModelFileError(
            f"the saved state has the slots {sorted(state)}, {rule} wants {sorted(slots)}."
        )


def restore(
    memory: Mapping[str, Arrays],
    saved: Mapping[str, Arrays] | None,
    counted: Collection[str],
    names: Collection[str],
) -> None:
    """Copy saved host arrays, if there are, into `memory`, once all is seen to agree.

    Parameters
    ----------
    counted : collection of str
        Of which parameters updates were counted apart.
    names : collection of str
        Which parameters there are.

    Raises
    ------
    ModelFileError
        If names or shapes are not those of the parameters. Nothing is changed then.
    """
    saved = {} if saved is None else saved
    for slot, arrays in saved.items():
        try:
            same_shapes(f"the saved optimizer state's {slot}", arrays, memory[slot])
        except ArgumentError as error:
            raise ModelFileError(str(error)) from error
    for name in set(counted).difference(names):
        raise ModelFileError(
            f"the saved optimizer state counts updates of {name}, which the network has not."
        )
    for slot, arrays in saved.items():
        for name, array in memory[slot].items():
            array[...] = backend_of(array).asarray(arrays[name], dtype=array.dtype)
