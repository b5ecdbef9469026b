"""Every primitive of the framework, written once over `xp`: the textbook version.

`Backend` is complete as it stands: on NumPy arrays it is the backend ``generic``, slow and plain,
against which every faster version is tested. A device overrides `xp` and the few methods that a
benchmark shows worth it.

4-D data is (N, C, H, W): batch, channels, height, width; filters are (FN, C, FH, FW). Any memory
order will do. Sums of half-precision numbers are carried in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xpdl.backends.base.types import Array, Number
from xpdl.backends.base.windows import Windows
from xpdl.backends.providers import Providers


class Backend(Windows, Providers):
    """Arrays and primitives of one device; this class itself serves NumPy, plainly."""

    name = "generic"
    compiles = False  # whether `compile_step` does anything

    def update_rule(
        self,
        name: str,
        rule: Callable[..., None],
        options: Mapping[str, Any],
        arrays: Sequence[Array],
        numbers: Sequence[Number],
        go: Array | None = None,
        copy: Array | None = None,
    ) -> None:
        """Update parameters in place by a rule of `xpdl.optimizers`, where its formula stands.

        A device may do a rule that it knows by `name` in one pass of its own.

        Parameters
        ----------
        name : str
            Such as "adam"; empty for a rule that no device knows.
        rule : callable
            The rule's arithmetic: takes the arrays, then the numbers.
        options : dict
            What it was made with, such as beta1.
        arrays : sequence of array, of one shape
            The parameters, their gradient, and the rule's memory; all but the gradient change.
        numbers : sequence of number
            The learning rate, and for some rules how many updates were made with this one. Each
            may be an array (), of the type of the parameters, that lives on the device.
        go : array, (), bool, optional
            On the device: where it is false nothing changes. The host need not know.
        copy : array, optional
            Receives the parameters as they are afterwards, in its own type.
        """
        p, _, *memory = arrays
        before = [] if go is None else [a.copy() for a in (p, *memory)]
        rule(*arrays, *numbers)
        if go is not None:
            for a, kept in zip((p, *memory), before, strict=True):
                a[...] = self.xp.where(go, a, kept)
        if copy is not None:
            copy[...] = p.astype(copy.dtype)
