"""Layers that stay as they are in training."""

from __future__ import annotations

from collections.abc import Sequence

from xpdl.architecture.making import Making
from xpdl.errors import ArgumentError, UnknownNameError


class Freezing(Making):
    """A network whose layers can be frozen."""

    @property
    def frozen(self) -> tuple[str, ...]:
        """The layers with parameters or statistics that are frozen, by name, in order."""
        return tuple(
            name
            for name, leaf in self._leaves.items()
            if leaf.frozen and (leaf.specs or leaf.state_specs)
        )

    def freeze(self, *names: str) -> None:
        """Leave layers as they are in training, as for a network that learns a second task.

        Their parameters are changed by no optimizer, which keeps what it remembers of them for the
        day when they learn again; their gradients are 0, count in no norm, and are not computed
        where nothing before them learns either. Batch normalisation keeps its running statistics
        and computes with them. Dropout, which learns nothing, goes on.

        What is frozen belongs to the training: a network that is loaded has nothing frozen, one
        that goes on from a checkpoint has what was, and so has a copy.
        Freeze between steps, or between epochs in a callback of the `Trainer`.

        Parameters
        ----------
        *names : str
            Each is a layer's name, ``"conv1"``; that of a block, for all in it; or else what the
            names of several begin with, ``"conv"``.

        Raises
        ------
        UnknownNameError
            If there is no such layer. Nothing is changed then.
        """
        if not names:
            raise ArgumentError('names is empty; name the layers to freeze: freeze("conv1").')
        for name in self._select(names):
            self._leaves[name].frozen = True
        self._arrange()
        for name in self.params.frozen:
            self.grads[name] = 0.0

    def unfreeze(self, *names: str) -> None:
        """Let layers that were frozen learn again: those of `names`, or all if there are none.

        Raises
        ------
        UnknownNameError
            If there is no such layer. Nothing is changed then.
        """
        for name in self._select(names) if names else self._leaves:
            self._leaves[name].frozen = False
        self._arrange()

    def _select(self, names: Sequence[str]) -> list[str]:
        """Return the layers meant by `names`; see `freeze`."""
        chosen = []
        for name in names:
            if not isinstance(name, str):
                raise UnknownNameError("layer", name, self._leaves)
            found = [leaf for leaf in self._leaves if f"{leaf}.".startswith(f"{name}.")]
            if not found and name:
                found = [leaf for leaf in self._leaves if leaf.startswith(name)]
            if not found:
                raise UnknownNameError("layer", name, self._leaves)
            chosen += found
        return chosen
