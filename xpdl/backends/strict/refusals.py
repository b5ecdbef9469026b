"""What is refused, in words: what a GPU would have done, and what to do instead."""

from __future__ import annotations

from typing import Any, NoReturn

from xpdl.errors import BackendMismatchError, DeviceRuleError


def refuse_reading(what: str) -> NoReturn:
    """Refuse to let the host wait for a number of the device."""
    raise DeviceRuleError(
        f"{what} reads a number from the device; a GPU would stop here until all queued work is "
        "done. Keep it on the device, or read it once in a while with backend.item(a)."
    )


def refuse_mixing(where: str) -> NoReturn:
    """Refuse an operation on arrays of the host and of the device."""
    raise BackendMismatchError(
        f"a NumPy array met a device array in {where}; CuPy raises TypeError here. "
        "Put it on the device first with xpdl.asarray(a)."
    )


def refuse_numpy_function(name: str) -> NoReturn:
    """Refuse a function of NumPy on an array of the device."""
    raise DeviceRuleError(
        f"numpy.{name} was called on a device array; write code that runs on every device: "
        f"xp = xpdl.array_module(x), then xp.{name}(x)."
    )


def refuse_list(where: str, value: Any) -> NoReturn:
    """Refuse a list of host values where an array is wanted."""
    raise DeviceRuleError(
        f"{where} was given a {type(value).__name__} of host values; CuPy takes only its own "
        "arrays here. Use Python's own function (math.prod, max ...) on sizes, or xpdl.asarray(a)."
    )
