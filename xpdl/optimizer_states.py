"""The saved state of an optimizer: looked at, and copied into its memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xpdl.arguments import dictionary, number, plainly, same_shapes, whole_number
from xpdl.backends import Array, backend_of
from xpdl.errors import ArgumentError, ModelFileError


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
    memory: Mapping[str, Mapping[str, Array]], saved: Mapping[str, Mapping[str, Array]]
) -> None:
    """Copy saved host arrays into `memory`, once all names and shapes are seen to agree."""
    for slot, arrays in memory.items():
        try:
            same_shapes(f"the saved optimizer state's {slot}", saved[slot], arrays)
        except ArgumentError as error:
            raise ModelFileError(str(error)) from error
    for slot, arrays in memory.items():
        for name, array in arrays.items():
            array[...] = backend_of(array).asarray(saved[slot][name], dtype=array.dtype)
