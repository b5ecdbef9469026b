"""Where a training that diverged did so."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from xpdl.backends import Array
from xpdl.errors import DivergenceError, UnknownNameError
from xpdl.network import Network
from xpdl.precision import LossScale
from xpdl.training.tally import Tally

ON_DIVERGENCE = ("stop", "skip", "reduce-lr")
MOST_SHOWN = 3
ADVICE = "Use a lower learning rate, gradient clipping or another initialisation"


class Watch:
    """Looks for steps that were not made, and does what is to be done about them.

    Parameters
    ----------
    trainer : Trainer
        Whose steps; it is asked for its data, told to save, and its bar says what happened.
    on_divergence : {"stop", "skip", "reduce-lr"}
        See `Trainer`.

    Attributes
    ----------
    rate_factor : float
        What "reduce-lr" has made of the learning rate.
    """

    def __init__(self, trainer: Any, on_divergence: str) -> None:
        if on_divergence not in ON_DIVERGENCE:
            raise UnknownNameError("on_divergence", on_divergence, ON_DIVERGENCE)
        self.on_divergence = on_divergence
        self.rate_factor = 1.0
        self._trainer = trainer
        self._bad_steps = 0  # in a row

    def look(self, tally: Tally) -> tuple[float, float | None]:
        """See whether one of the steps since the last look was not made, and act.

        Returns what `read_scale` does.

        Raises
        ------
        DivergenceError
            If the training is to stop.
        """
        trainer, first = self._trainer, None
        losses = tally.new_losses()
        for step, loss in enumerate(losses.tolist(), tally.done - len(losses)):
            good = math.isfinite(loss)
            self._bad_steps = 0 if good else self._bad_steps + 1
            if not good and first is None:
                first = step
        try:
            scale = self.read_scale()
        except DivergenceError:
            trainer.save_diverged(tally)
            raise
        if first is None:
            return scale
        place = f"at step {len(trainer.history.losses) + first}"
        if self.on_divergence == "stop" or self._bad_steps >= LossScale.most_bad_steps:
            trainer.save_diverged(tally)
            raise DivergenceError(
                f"the training diverged {place}: {self._explain(first)}. {ADVICE}."
            )
        told = f"the training diverged {place}, which was not made"
        if self.on_divergence == "reduce-lr":
            self.rate_factor /= 2
            trainer.set_rates(len(trainer.history.epochs))
            told += f"; the learning rate is {self.rate_factor:g} of what it was"
        trainer.progress.warn(told)
        return scale

    def read_scale(self) -> tuple[float, float | None]:
        """Return how many steps were skipped so far, and half precision's factor on the loss."""
        scale = self._trainer.step.loss_scale
        if scale is None:
            return 0.0, None
        state = scale.read()
        return state["skipped"], state["value"]

    def _explain(self, step: int) -> str:
        """Say in which layer a step of this epoch diverged."""
        trainer = self._trainer
        parts = trainer.batches.parts(len(trainer.history.epochs))
        batch = trainer.batches.take(next(islice(parts, step, None)))
        told = explain(trainer.network, *batch)
        return (
            told if trainer.feeding.augment is None else f"{told} (looked at without augmentation)"
        )


def explain(network: Network, x: Array, t: Array) -> str:
    """Say in which layer a batch (x, t) first comes to NaN or infinity, and what is largest.

    The batch is computed again, layer by layer, forward and then backward; the network is as it was
    afterwards, but for its gradients.
    """
    state = {name: a.copy() for name, a in network.state.items()}
    masks = network.random_state()
    try:
        with np.errstate(all="ignore"):
            return f"{_find(network, x, t)}; the largest parameters are {_largest(network)}"
    finally:
        network.forget()
        for name, a in state.items():
            network.state[name][...] = a
        network.set_random_state(masks)


def _find(network: Network, x: Array, t: Array) -> str:
    _, ts, _ = network.batch(x, t)
    found: list[str] = []
    leaves = network.leaves()
    for name, layer in leaves.items():
        vars(layer)["forward"] = _watched(network, name, layer.forward, found)
    try:
        y = network.forward(x, train=True)
    finally:
        for layer in leaves.values():
            del vars(layer)["forward"]
    if found:
        return found[0]
    ys = list(y.values()) if isinstance(y, dict) else [y]
    what = next(filter(None, (_what(network, y) for y in ys)), "")
    if what:  # a container made it so
        return f"the output of all layers is {what}, and that of each is not"
    for one, y, target in zip(network.losses.values(), ys, ts, strict=True):
        loss = network.backend.item(one.forward(y, target))
        if not math.isfinite(loss):
            return f"the loss is {loss}, for outputs up to {_size(network, y):.3g}"
    network.forward_backward(x, t)
    for name, g in reversed(list(network.grads.items())):
        what = _what(network, g)
        if what:
            return f"the gradient of {name} is {what}"
    return "computed again, the loss and the gradients are finite"


def _watched(
    network: Network, name: str, forward: Callable[..., Array], found: list[str]
) -> Callable[..., Array]:
    """Return a layer's `forward` that also tells in `found` of a result that is not finite."""

    def watched(*xs: Array, train: bool = False) -> Array:
        y = forward(*xs, train=train)
        what = "" if found else _what(network, y)
        if what:
            found.append(
                f"the output of {name} is {what}, for inputs up to "
                f"{max(_size(network, x) for x in xs):.3g}"
            )
        return y

    return watched


def _what(network: Network, a: Array) -> str:
    """Say what of `a` is not finite; nothing if all is."""
    xp, item = network.backend.xp, network.backend.item
    if item(xp.isfinite(a).all()):
        return ""
    return "NaN" if item(xp.isnan(a).any()) else "infinite"


def _size(network: Network, a: Array) -> float:
    return network.backend.item(network.backend.xp.abs(a).max())


def _largest(network: Network) -> str:
    sizes = {name: _size(network, a) for name, a in network.params.items()}
    worst_first = sorted(sizes, key=lambda name: (not math.isnan(sizes[name]), -sizes[name]))
    names = worst_first[:MOST_SHOWN]
    return ", ".join(f"{name} {sizes[name]:.3g}" for name in names)
