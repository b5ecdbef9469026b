"""What an optimizer remembers from update to update, and how that is saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from xpdl.backends import accumulation_dtype, backend_of
from xpdl.optimizer_checks import check_memory, check_saved, restore
from xpdl.optimizers.clock import Clock, whole
from xpdl.optimizers.freezing import OwnCounts
from xpdl.parameters import ArrayDict, Arrays


class Memory(Clock):
    """An optimizer's memory.

    Attributes
    ----------
    state : dict of str to dict of str to array
        What the rule remembers of each parameter: slot, then the parameter's name.
    """

    slots: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self.state: dict[str, Arrays] = {}
        self._counts = OwnCounts()
        self._restored: dict[str, dict[str, Any]] | None = None  # until parameters are seen

    def keep_time_on_host(self) -> None:
        super().keep_time_on_host()
        self._counts.keep_on_host()

    def _remember(self, params: Arrays) -> None:
        """Make sure that there is memory for `params`: zeros at first, or what was restored."""
        if not self.state:
            memory = {slot: _zeros_like(params) for slot in self.slots}
            restore(memory, self._restored, self._counts.apart, params)
            self.state, self._restored = memory, None
        check_memory(type(self).__name__, self.state, params)

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on later: host arrays by slot and name, and numbers."""
        state = self.state if self._restored is None else self._restored
        iteration = whole(self.iteration)
        counts = self._counts.on_host(iteration)
        return {
            "rule": type(self).__name__,
            "iteration": iteration,
            "learning_rate": self.host_learning_rate(),
            "state": {
                slot: {name: backend_of(a).to_numpy(a) for name, a in arrays.items()}
                for slot, arrays in state.items()
            },
            **({"counts": counts} if counts else {}),  # of parameters that were frozen for a while
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; names and shapes are checked at the next update.

        Raises
        ------
        ModelFileError
            If it is of another rule, or damaged. Nothing is changed then.
        """
        self.check_state_dict(saved)
        self._device_rate, self.iteration = None, int(saved["iteration"])
        self.learning_rate = saved["learning_rate"]
        self._counts = OwnCounts(saved.get("counts"))
        self.state = {}
        self._restored = {slot: dict(arrays) for slot, arrays in saved["state"].items()} or None

    def check_state_dict(self, saved: Mapping[str, Any]) -> None:
        """See that `load_state_dict` would take what `state_dict` returned.

        Raises
        ------
        ModelFileError
            As `load_state_dict`.
        """
        check_saved(saved, type(self).__name__, self.slots)


def _zeros_like(params: Arrays) -> Arrays:
    if isinstance(params, ArrayDict):
        return params.zeros_like()
    # In half precision the squares of gradients, and Adam's epsilon, would be 0.
    xp = backend_of(*params.values()).xp
    return {name: xp.zeros_like(p, accumulation_dtype(p.dtype)) for name, p in params.items()}
