"""An update: gradients are clipped, weights decay, and a rule changes each array in place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from xpdl.arguments import flag, no_such_option, number
from xpdl.backends import Array, accumulation_dtype, backend_of
from xpdl.optimizer_checks import check_update, factors_by_parameter, read_rate_factors
from xpdl.optimizers import decay
from xpdl.optimizers.clipping import clipped
from xpdl.optimizers.memory import Memory
from xpdl.parameters import ArrayDict, Arrays


class Optimizer(Memory):
    """Base of the update rules.

    A rule of one's own derives from it, names its memory in `slots`, and defines `rule`.

    Parameters
    ----------
    learning_rate : float
        How far to go, per unit of gradient.
    weight_decay : float
        The factor lambda of L2 regularisation: adds lambda W to the gradient of each weight, which
        is the gradient of a term lambda/2 W^2 in the loss (book, section 6.4.2).
    decay_all : bool
        Whether biases and the parameters of normalisation decay too.
    clip_norm : float, optional
        The largest Euclidean norm of the whole gradient; a longer one is scaled down to it.
    rate_factors : dict of str to float, optional
        Factors on the learning rate, such as ``{"features.": 0.1}``: of a parameter, of a layer or
        block, or else of all whose names begin so. The longest name decides.

    Attributes
    ----------
    iteration : int
        How many updates were made; within `time_kept_on`, an array () that counts on the device.
    state : dict of str to dict of str to array
        What the rule remembers of each parameter: slot, then the parameter's name.
    """

    counts_updates: ClassVar[bool] = False  # whether `rule` takes `count`
    whole_parameters: ClassVar[bool] = False  # whether it wants each in its shape, no block of many
    decoupled_decay: ClassVar[bool] = False
    device_rule: ClassVar[str] = ""  # by what name a backend may know a `rule` of each number

    def __init_subclass__(cls) -> None:
        if "rule" in vars(cls):  # what a backend knows is how ours are done
            ours = cls.__module__ == "xpdl.optimizers.rules" and not cls.whole_parameters
            cls.device_rule = cls.__name__.lower() if ours else ""

    def __init__(
        self,
        learning_rate: float,
        *,
        weight_decay: float = 0.0,
        decay_all: bool = False,
        clip_norm: float | None = None,
        rate_factors: Mapping[str, float] | None = None,
        **unknown: Any,
    ) -> None:
        for name in unknown:
            raise no_such_option(type(self), name)
        super().__init__()
        self.learning_rate = learning_rate
        self.weight_decay = number("weight_decay", weight_decay)
        self.decay_all = flag("decay_all", decay_all)
        self.clip_norm = None if clip_norm is None else number("clip_norm", clip_norm, above=0)
        self.rate_factors = read_rate_factors(rate_factors)

    def rule(self, W: Array, g: Array, *memory_and_numbers: Any) -> None:
        """Change W, and the arrays of memory, in place; all are of one shape.

        Parameters
        ----------
        W, g : array
            Parameters and their gradient, which is in float32 at least and stays.
        *memory_and_numbers
            The arrays of memory, one a slot, in the type of g; the learning rate; and, with
            `counts_updates`, how many updates W has had with this one.
        """
        raise NotImplementedError

    def settings(self) -> dict[str, Any]:
        """Return the rule's name and the numbers it was made with, but for the learning rate."""
        changing = ("iteration", "state", "rate_factors")
        fixed = {key: a for key, a in vars(self).items() if key[0] != "_" and key not in changing}
        factors = {"rate_factors": dict(self.rate_factors)} if self.rate_factors else {}
        return {"rule": type(self).__name__} | fixed | factors

    def update(self, params: Arrays, grads: Arrays, *, go: Array | None = None) -> None:
        """Change `params` in place by one step along `grads`; both by the same names.

        What is frozen (`ArrayDict.frozen`) stays, and so does what is remembered of it.

        Parameters
        ----------
        go : array, (), bool, optional
            On the device: where it is false nothing changes and nothing is counted. For use within
            `time_kept_on`.

        Raises
        ------
        ArgumentError
            If a parameter has no gradient, or a gradient no parameter, or all are frozen, or a
            name in `rate_factors` fits none.
        ShapeError, DTypeError
            If a gradient's shape is not its parameter's, or one of them holds no floats.
        BackendMismatchError
            If they, or what the rule remembers, live on different backends. Nothing is changed in
            any of these cases.
        """
        check_update(params, grads, go)
        factors = factors_by_parameter(self.rate_factors, params) if self.rate_factors else {}
        self._remember(params)
        cut = self._pieces(params, grads, factors)
        values, gradients, memory = cut(params), cut(grads), [*map(cut, self.state.values())]
        backend = backend_of(*(a for d in (values, gradients, *memory) for a in d.values()))
        if self.clip_norm is not None:
            gradients = clipped(gradients, self.clip_norm)
        copy = params.in_compute_type if isinstance(params, ArrayDict) else None
        copies = {} if copy is None else cut(copy)
        decayed, options = self._decayed(params), self.settings()
        self.iteration += 1 if go is None else go  # in its place, where it is an array
        for name, W in values.items():
            rate = self.learning_rate * factors[name] if name in factors else self.learning_rate
            g = gradients[name].astype(accumulation_dtype(W.dtype), copy=False)  # as the memory
            if name in decayed and self.decoupled_decay:
                decay.decoupled(W, rate, self.weight_decay, go)
            elif name in decayed:
                g = decay.coupled(W, g, self.weight_decay)
            count = (self._counts.of(name, self.iteration),) if self.counts_updates else ()
            arrays, numbers = (W, g, *(slot[name] for slot in memory)), (rate, *count)
            known = self.device_rule, self.rule, options
            backend.update_rule(*known, arrays, numbers, go, copies.get(name))

    def _pieces(
        self, params: Arrays, grads: Arrays, factors: Mapping[str, float]
    ) -> Callable[[Arrays], dict[str, Array]]:
        """Return what cuts arrays by parameters' names into the pieces that an update changes.

        What lies in one buffer on all sides, and is of one age, is updated in long runs; otherwise
        one array follows the other.
        """
        frozen = params.frozen if isinstance(params, ArrayDict) else frozenset[str]()
        if self.counts_updates:
            self._counts.follow(self.iteration, frozen)
        single = self.whole_parameters or self._counts.differ
        if single or not all(
            isinstance(a, ArrayDict) for a in (params, grads, *self.state.values())
        ):
            return lambda arrays: {name: a for name, a in arrays.items() if name not in frozen}
        runs = params.runs(factors.get if factors else None)  # type: ignore[attr-defined]
        return lambda arrays: {name: arrays.buffer[run] for name, run in runs.items()}  # type: ignore[attr-defined]

    def _decayed(self, params: Arrays) -> Collection[str]:
        if not self.weight_decay:
            return ()
        if self.decay_all:
            return params.keys()
        if isinstance(params, ArrayDict):
            return params.decayed
        # Of a plain dictionary, matrices and filters are weights; vectors are biases and the like.
        return [name for name, W in params.items() if W.ndim > 1]
