"""The update rules: each turns gradients into new parameters, in place.

The arithmetic of a rule is a primitive of the backend (`Backend.adam` and its neighbours), since
it runs over every parameter at every step; here are the rule's settings and its memory.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeAlias

from xpdl.arguments import check_writable, flag, in_our_words, number, plainly, real_array
from xpdl.backends import Array, Backend, Number, accumulation_dtype, backend_of
from xpdl.errors import (
    ArgumentError,
    DTypeError,
    ModelFileError,
    ShapeError,
    UnknownNameError,
    shown,
)

Arrays: TypeAlias = Mapping[str, Array]


class Blocks(Mapping[str, Array]):
    """A dictionary of arrays that are parts of a few large ones, as a network's parameters are.

    One update over a block does the work of many small ones.

    Attributes
    ----------
    buffer : array, (size,)
        Holds all of them.
    decayed : set of str
        The names of the weights, as opposed to biases and parameters of normalisation.
    in_compute_type : Blocks, optional
        The same arrays in the type that layers compute in, which an update writes in its pass.
    """

    buffer: Array
    decayed: frozenset[str]
    in_compute_type: Blocks | None = None  # the same numbers in another type, to be kept up to date

    @property
    @abstractmethod
    def frozen(self) -> frozenset[str]:
        """The names of the arrays that no update changes."""

    @property
    @abstractmethod
    def blocks(self) -> dict[str, Array]:
        """The large arrays, (size,), that hold all but the frozen ones, by names of their own."""

    @property
    @abstractmethod
    def decayed_blocks(self) -> frozenset[str]:
        """Which of the blocks hold weights."""

    @abstractmethod
    def cut(self, arrays: Blocks) -> dict[str, Array]:
        """Return the parts of `arrays`, laid out alike, where the blocks are of this one."""

    @abstractmethod
    def zeros_like(self) -> Blocks:
        """Return zeros laid out in the same way."""


class Optimizer:
    """Base of the update rules.

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

    Attributes
    ----------
    iteration : int
        How many updates were made; within `time_kept_on`, an array () that counts on the device.
    state : dict of str to dict of str to array
        What the rule remembers of each parameter: slot, then the parameter's name.
    count : int
        For `rule`: how many updates its arrays have had, with this one. That is `iteration`, but
        for parameters that were frozen for a while.
    """

    slots: ClassVar[tuple[str, ...]] = ()
    counts_updates: ClassVar[bool] = False  # whether `rule` asks for `count`

    @in_our_words(lr="learning_rate")
    def __init__(
        self,
        learning_rate: float,
        *,
        weight_decay: float = 0.0,
        decay_all: bool = False,
        clip_norm: float | None = None,
    ) -> None:
        self.learning_rate = learning_rate
        self.weight_decay = number("weight_decay", weight_decay)
        self.decay_all = flag("decay_all", decay_all)
        self.clip_norm = None if clip_norm is None else number("clip_norm", clip_norm, above=0)
        self.iteration: Number = 0
        self._clock: tuple[Array, Array] | None = None  # rate and count, on a device
        self.count: Number = 0
        self.state: dict[str, Arrays] = {}
        # Of a frozen parameter, how many updates it has had; of one that was, how many it has not.
        self._had: dict[str, Number] = {}
        self._missed: dict[str, Number] = {}
        self._restored: dict[str, dict[str, Any]] | None = None

    @property
    def learning_rate(self) -> Number:
        """How far to go, per unit of gradient; within `time_kept_on`, an array ()."""
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        value = self._host_rate = number("learning_rate", value)
        if isinstance(self.__dict__.get("_rate"), int | float | None):
            self._rate: Number = value
        else:  # in its place, where a captured step looks for it
            self._rate[...] = value  # type: ignore[index]

    def keep_time_on(self, backend: Backend, dtype: Any) -> None:
        """Keep the learning rate and the count of updates on the device from now on.

        So a step can be left out (`go` of `update`), or captured and replayed, without the host's
        having to know.
        """
        if not isinstance(self._rate, int | float):
            return
        if self._clock is None or not backend.owns(self._clock[0]) or self._clock[0].dtype != dtype:
            self._clock = backend.asarray(0.0, dtype), backend.asarray(0.0, dtype)
        rate, iteration = self._clock  # always the same two, where a captured step looks for them
        rate[...], iteration[...] = self._host_rate, float(_whole(self.iteration))
        self._rate, self.iteration = rate, iteration

    def keep_time_on_host(self) -> None:
        """Bring them back to the host; this waits for the device."""
        self._rate, self.iteration = self._host_rate, _whole(self.iteration)
        self._had, self._missed = _whole_numbers(self._had), _whole_numbers(self._missed)

    @contextmanager
    def time_kept_on(self, backend: Backend, dtype: Any) -> Iterator[None]:
        """Keep the learning rate and the count of updates on the device as long as a block runs."""
        self.keep_time_on(backend, dtype)
        try:
            yield
        finally:
            self.keep_time_on_host()

    def set_rate(self, rate: Array) -> None:
        """Set the learning rate that is kept on the device to `rate`, (), without a look at it."""
        self._rate[...] = rate  # type: ignore[index]

    def host_learning_rate(self) -> float:
        """Return the learning rate as it was last set, wherever it is kept."""
        return self._host_rate

    def update(self, params: Arrays, grads: Arrays, *, go: Array | None = None) -> None:
        """Change `params` in place by one step along `grads`; both by the same names.

        What is frozen (`Blocks.frozen`) stays, and so does what is remembered of it.

        Parameters
        ----------
        go : array, (), bool, optional
            On the device: where it is false nothing changes and nothing is counted. For use within
            `time_kept_on`.

        Raises
        ------
        ArgumentError
            If a parameter has no gradient, or a gradient no parameter, or all are frozen.
        ShapeError, DTypeError
            If a gradient's shape is not its parameter's, or one of them holds no floats.
        BackendMismatchError
            If they, or what the rule remembers, live on different backends. Nothing is changed in
            any of these cases.
        """
        _check_names(params, grads)
        if go is not None and real_array("go", go, "b").shape:
            raise ShapeError(f"go must be an array () of a bool, got shape {go.shape}.")
        self._remember(params)
        frozen: Collection[str] = params.frozen if isinstance(params, Blocks) else ()
        if len(frozen) == len(params):
            raise ArgumentError(
                "all parameters are frozen, so that there is nothing to update; "
                "network.unfreeze(...) lets a layer learn."
            )
        if self.counts_updates:
            self._count_apart(frozen)
        # Blocks on all sides, of one age, are updated whole; otherwise one array after the other.
        blocks = params if isinstance(params, Blocks) and not self._missed else None
        if not all(isinstance(arrays, Blocks) for arrays in (grads, *self.state.values())):
            blocks = None

        def pieces(arrays: Any) -> dict[str, Array]:
            if blocks is not None:
                return blocks.cut(arrays)
            return {name: a for name, a in arrays.items() if name not in frozen}

        values, gradients = pieces(params), pieces(grads)
        memory = [pieces(arrays) for arrays in self.state.values()]
        backend = backend_of(*(a for d in (values, gradients, *memory) for a in d.values()))
        gradients = self._clipped(backend, gradients)
        decayed = self._decayed(values, params, blocks is not None)
        self.iteration += 1 if go is None else go  # in its place, where it is an array
        copies = (
            pieces(params.in_compute_type)
            if isinstance(params, Blocks) and params.in_compute_type
            else {}
        )
        for name, p in values.items():
            missed = self._missed.get(name)
            self.count = self.iteration if missed is None else self._since(missed)
            decay = self.weight_decay if name in decayed else 0.0
            wanted = {"go": go, "copy": copies.get(name)}
            aside = {key: array for key, array in wanted.items() if array is not None}
            g = gradients[name].astype(accumulation_dtype(p.dtype), copy=False)  # as the memory
            self._step(backend, p, g, [slot[name] for slot in memory], decay, aside)
        self.count = 0  # it may lie in the memory of a captured step, which is not to be held

    def _step(
        self,
        backend: Backend,
        p: Array,
        g: Array,
        memory: list[Array],
        decay: float,
        aside: dict[str, Array],
    ) -> None:
        if decay:
            g = backend.xp.add(g, decay * p, out=backend.xp.empty_like(g))
        self.rule(backend, p, g, *memory, **aside)

    def rule(self, backend: Backend, p: Array, g: Array, *memory: Array, **aside: Array) -> None:
        """Change p, and the arrays of memory (one a slot), in place; `aside` is for the backend."""
        raise NotImplementedError

    def _count_apart(self, frozen: Collection[str]) -> None:
        """Keep a count of its own for each parameter that is frozen now or was before."""
        for name in frozen:
            if name not in self._had:
                self._had[name] = self._since(self._missed.pop(name, 0))
        for name in [name for name in self._had if name not in frozen]:
            missed = self._since(self._had.pop(name))
            if not isinstance(missed, int) or missed:
                self._missed[name] = missed

    def _since(self, before: Number) -> Number:
        """Return how many updates were made after the first so many."""
        now = self.iteration
        if isinstance(now, int):
            return now - before
        return backend_of(now).asarray(now - before)  # NumPy makes a number of its own of it

    def _remember(self, params: Arrays) -> None:
        """Make sure that there is memory for `params`: zeros at first, or what was restored."""
        if not self.state:
            memory = {slot: _zeros_like(params) for slot in self.slots}
            if self._restored is not None:
                _restore(memory, self._restored)
                self._restored = None
            foreign = sorted(self._had.keys() - params.keys())
            if foreign:
                raise ModelFileError(
                    f"the saved optimizer state counts updates of {', '.join(foreign)}, "
                    "which the network has not."
                )
            self.state = memory
        for slot, arrays in self.state.items():
            if arrays.keys() != params.keys():
                raise ArgumentError(
                    f"this {type(self).__name__} remembers {slot} of other parameters "
                    f"({', '.join(sorted(arrays.keys() ^ params.keys()))} differ); "
                    "make a new optimizer for this network."
                )
            for name, p in params.items():
                if arrays[name].shape != p.shape:
                    raise ShapeError(
                        f"this {type(self).__name__} remembers {slot} of {name} with shape "
                        f"{arrays[name].shape}, the network has {p.shape}; "
                        "make a new optimizer for this network."
                    )
                plain = not isinstance(params, Blocks)
                if plain and arrays[name].dtype != accumulation_dtype(p.dtype):
                    raise DTypeError(
                        f"this {type(self).__name__} remembers {slot} of {name} in "
                        f"{arrays[name].dtype}, and the parameter is {p.dtype} now; "
                        "make a new optimizer for it."
                    )

    def _decayed(self, values: Arrays, params: Arrays, whole: bool) -> Collection[str]:
        """Return the names among `values`, blocks if `whole`, whose weights decay."""
        if self.decay_all:
            return values.keys()
        if isinstance(params, Blocks):
            return params.decayed_blocks if whole else params.decayed
        # Of a plain dictionary, matrices and filters are weights; vectors are biases and the like.
        return [name for name, p in values.items() if p.ndim > 1]

    def _clipped(self, backend: Backend, blocks: dict[str, Array]) -> dict[str, Array]:
        if self.clip_norm is None:
            return blocks
        norm = gradient_norm(blocks)
        scale = self.clip_norm / backend.xp.maximum(norm, self.clip_norm)
        xp = backend.xp  # `out` keeps the order of memory, on every device
        return {
            name: xp.multiply(g, scale, out=xp.empty_like(g), casting="same_kind")
            for name, g in blocks.items()
        }

    def settings(self) -> dict[str, Any]:
        """Return the rule's name and the numbers it was made with, but for the learning rate."""
        changing = {
            "_rate",
            "_host_rate",
            "_clock",
            "iteration",
            "count",
            "state",
            "_had",
            "_missed",
            "_restored",
        }
        fixed = {name: value for name, value in vars(self).items() if name not in changing}
        return {"rule": type(self).__name__} | fixed

    def state_dict(self) -> dict[str, Any]:
        """Return all that is needed to go on later: host arrays by slot and name, and numbers."""
        state = {
            slot: {name: backend_of(a).to_numpy(a) for name, a in arrays.items()}
            for slot, arrays in self.state.items()
        }
        if self._restored is not None:
            state = {slot: dict(arrays) for slot, arrays in self._restored.items()}
        iteration = _whole(self.iteration)
        missed = _whole_numbers(self._missed)
        counts = _whole_numbers(self._had) | {name: iteration - n for name, n in missed.items()}
        apart = {name: count for name, count in counts.items() if count != iteration}
        return {
            "rule": type(self).__name__,
            "iteration": iteration,
            "learning_rate": self.host_learning_rate(),
            "state": state,
            **({"counts": apart} if apart else {}),  # of parameters that were frozen for a while
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; names and shapes are checked at the next update.

        Raises
        ------
        ModelFileError
            If it is of another rule, or damaged. Nothing is changed then.
        """
        self.check_state_dict(saved)
        self.iteration = saved["iteration"]
        # The next update sees what is frozen still.
        self._had, self._missed = dict(saved.get("counts", {})), {}
        self._rate = number("learning_rate", saved["learning_rate"])
        self.state = {}
        self._restored = {slot: dict(arrays) for slot, arrays in saved["state"].items()} or None

    def check_state_dict(self, saved: Mapping[str, Any]) -> None:
        """See that `load_state_dict` would take what `state_dict` returned.

        Raises
        ------
        ModelFileError
            As `load_state_dict`.
        """
        if not isinstance(saved, Mapping):
            raise ModelFileError(f"the saved optimizer state is no dictionary: {shown(saved)}.")
        lacking = {"rule", "iteration", "learning_rate", "state"} - saved.keys()
        if lacking:
            raise ModelFileError(f"the saved optimizer state lacks {', '.join(sorted(lacking))}.")
        if saved.get("rule") != type(self).__name__:
            raise ModelFileError(
                f"the saved state is of {saved.get('rule')!r}, not of {type(self).__name__!r}."
            )
        if (
            type(saved["iteration"]) is not int
            or not 0 <= saved["iteration"] < 2**62
            or not isinstance(saved["state"], Mapping)
            or not all(isinstance(arrays, Mapping) for arrays in saved["state"].values())
        ):
            raise ModelFileError("the saved optimizer state is damaged.")
        if (saved["iteration"] or saved["state"]) and set(saved["state"]) != set(self.slots):
            raise ModelFileError(
                f"the saved state has the slots {sorted(saved['state'])}, "
                f"{type(self).__name__} wants {sorted(self.slots)}."
            )
        counts = saved.get("counts", {})
        if not isinstance(counts, Mapping) or not all(
            type(count) is int and 0 <= count <= saved["iteration"] for count in counts.values()
        ):
            raise ModelFileError(
                f"the saved optimizer state is damaged: its counts of updates are {counts!r}, with "
                f"{saved['iteration']} updates in all."
            )
        try:
            number("learning_rate", saved["learning_rate"])
        except ArgumentError as error:
            raise ModelFileError(f"the saved optimizer state is damaged: {error}") from error


class SGD(Optimizer):
    """Stochastic gradient descent: W <- W - rate dL/dW. Book, equation 6.2."""

    def __init__(self, learning_rate: float = 0.01, **options: Any) -> None:
        super().__init__(learning_rate, **options)

    def rule(self, backend: Backend, p: Array, g: Array, *memory: Array, **aside: Array) -> None:
        backend.sgd(p, g, self.learning_rate, **aside)


class Momentum(Optimizer):
    """A ball rolling down: v <- momentum v - rate dL/dW; W <- W + v. Book, 6.3 and 6.4."""

    slots = ("v",)

    def __init__(self, learning_rate: float = 0.01, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.momentum = number("momentum", momentum, below=1)

    def rule(self, backend: Backend, p: Array, g: Array, *memory: Array, **aside: Array) -> None:
        (v,) = memory
        backend.momentum(p, g, v, self.learning_rate, self.momentum, **aside)


class Nesterov(Momentum):
    """Momentum that looks one step ahead; see `Backend.nesterov`."""

    def rule(self, backend: Backend, p: Array, g: Array, *memory: Array, **aside: Array) -> None:
        (v,) = memory
        backend.nesterov(p, g, v, self.learning_rate, self.momentum, **aside)


class AdaGrad(Optimizer):
    """Each parameter's rate falls with the gradients it has seen. Book, 6.5 and 6.6.

    h <- h + g*g; W <- W - rate g / (sqrt(h) + epsilon)            (Duchi et al. 2011)
    """

    slots = ("h",)

    def __init__(self, learning_rate: float = 0.01, epsilon: float = 1e-7, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.epsilon = number("epsilon", epsilon, above=0)

    def rule(self, backend: Backend, p: Array, g: Array, *memory: Array, **aside: Array) -> None:
        (h,) = memory
        backend.adagrad(p, g, h, self.learning_rate, self.epsilon, **aside)


class RMSProp(Optimizer):
    """AdaGrad that forgets: h <- decay_rate h + (1 - decay_rate) g*g. Hinton 2012."""

    slots = ("h",)

    def __init__(
        self,
        learning_rate: float = 0.01,
        decay_rate: float = 0.99,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.decay_rate = number("decay_rate", decay_rate, below=1)
        self.epsilon = number("epsilon", epsilon, above=0)

    def rule(self, backend: Backend, p: Array, g: Array, *memory: Array, **aside: Array) -> None:
        (h,) = memory
        backend.rmsprop(p, g, h, self.learning_rate, self.decay_rate, self.epsilon, **aside)


class Adam(Optimizer):
    """Momentum and RMSProp together, corrected for their start from zero; see `Backend.adam`."""

    slots = ("m", "v")
    counts_updates = True

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, **options)
        self.beta1 = number("beta1", beta1, below=1)
        self.beta2 = number("beta2", beta2, below=1)
        self.epsilon = number("epsilon", epsilon, above=0)

    def rule(self, backend: Backend, p: Array, g: Array, *memory: Array, **aside: Array) -> None:
        m, v = memory
        numbers = (self.learning_rate, self.beta1, self.beta2, self.epsilon, self.count)
        backend.adam(p, g, m, v, *numbers, **aside)


class AdamW(Adam):
    """Adam with decoupled decay: W <- W - rate lambda W beside Adam's own step.

    Loshchilov and Hutter 2019 (arXiv:1711.05101).
    """

    def __init__(
        self, learning_rate: float = 0.001, *, weight_decay: float = 0.01, **options: Any
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, **options)

    def _step(
        self,
        backend: Backend,
        p: Array,
        g: Array,
        memory: list[Array],
        decay: float,
        aside: dict[str, Array],
    ) -> None:
        if decay:
            shrunk, go = 1 - self.learning_rate * decay, aside.get("go")
            p *= shrunk if go is None else backend.xp.where(go, shrunk, 1)
        self.rule(backend, p, g, *memory, **aside)


BY_NAME: dict[str, type[Optimizer]] = {
    rule.__name__.lower(): rule for rule in (SGD, Momentum, Nesterov, AdaGrad, RMSProp, Adam, AdamW)
}


def get_optimizer(choice: str | Optimizer, **options: Any) -> Optimizer:
    """Return the optimizer of a name (in any case), made with `options`, or an optimizer itself.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    if isinstance(choice, Optimizer):
        if options:
            raise ArgumentError(
                f"{', '.join(options)}: give these to {type(choice).__name__}(...) itself."
            )
        return choice
    if not isinstance(choice, str) or choice.lower() not in BY_NAME:
        raise UnknownNameError("optimizer", choice, BY_NAME)
    rule = BY_NAME[choice.lower()]
    try:
        return rule(**options)
    except TypeError as error:
        raise ArgumentError(f"{rule.__name__}: {plainly(error)}.") from error


def gradient_norm(grads: Arrays) -> Array:
    """Return the Euclidean norm over all arrays but the frozen, (), in float32 at least."""
    _expect_floats("grads", grads)
    blocks = _blocks(grads)
    backend = backend_of(*blocks.values())
    xp = backend.xp
    wide = [g.astype(accumulation_dtype(g.dtype), copy=False) for g in blocks.values()]
    # In units of the largest, whose square might be infinite.
    largest = xp.zeros((), dtype=wide[0].dtype)  # arrays may be empty
    for g in wide:
        if g.size:
            largest = xp.maximum(largest, xp.abs(g).max())
    unit = largest + (largest == 0)
    squares = [((g / unit) ** 2).sum() for g in wide]
    return unit * xp.sqrt(sum(squares[1:], start=squares[0]))


def _blocks(arrays: Arrays) -> dict[str, Array]:
    return arrays.blocks if isinstance(arrays, Blocks) else dict(arrays)


def _whole(number: Number) -> int:
    """Return a whole number that may be on a device; then this waits for it."""
    return number if isinstance(number, int) else round(backend_of(number).item(number))


def _whole_numbers(numbers: Mapping[str, Number]) -> dict[str, Number]:
    return {name: _whole(number) for name, number in numbers.items()}


def _zeros_like(params: Arrays) -> Arrays:
    if isinstance(params, Blocks):
        return params.zeros_like()
    # In half precision the squares of gradients, and Adam's epsilon, would be 0.
    return {
        name: backend_of(p).xp.zeros_like(p, dtype=accumulation_dtype(p.dtype))
        for name, p in params.items()
    }


def _restore(memory: Mapping[str, Arrays], saved: Mapping[str, Mapping[str, Any]]) -> None:
    """Copy saved host arrays into `memory`, once all names and shapes are seen to agree."""
    for slot, arrays in memory.items():
        foreign = saved[slot].keys() - arrays.keys()
        if foreign:
            raise ModelFileError(
                f"the saved optimizer state has {slot} of {', '.join(sorted(foreign))}, "
                "which the network has not."
            )
        for name, array in arrays.items():
            shape = getattr(saved[slot].get(name), "shape", None)
            if shape != array.shape:
                raise ModelFileError(
                    f"the saved optimizer state has {slot} of {name} with shape {shape}, "
                    f"the network wants {array.shape}."
                )
    for slot, arrays in memory.items():
        for name, array in arrays.items():
            array[...] = backend_of(array).asarray(saved[slot][name], dtype=array.dtype)


def _expect_floats(argument: str, arrays: Arrays, changes: bool = False) -> None:
    """See that `arrays` is a dictionary of arrays of floats; a network's own always is."""
    if isinstance(arrays, Blocks):
        return
    if not isinstance(arrays, Mapping):
        raise ArgumentError(f"{argument} must be a dictionary of arrays, got {shown(arrays)}.")
    if not arrays:
        raise ArgumentError(f"{argument} is empty; give one array at least.")
    for name, a in arrays.items():
        real_array(f"{argument}[{name!r}]", a, "f")
        if changes:
            check_writable(f"{argument}[{name!r}]", a)


def _check_names(params: Arrays, grads: Arrays) -> None:
    _expect_floats("params", params, changes=True)
    _expect_floats("grads", grads)
    if params.keys() != grads.keys():
        lone = sorted(map(str, params.keys() ^ grads.keys()))
        raise ArgumentError(
            f"params and grads must have the same names; {', '.join(lone)} stands in one only."
        )
    if not params:
        raise ArgumentError("params is empty; there is nothing to update.")
    for name, p in params.items():
        if p.shape != grads[name].shape:
            raise ShapeError(
                f"the gradient of {name} must have the shape {p.shape} of the parameter, "
                f"got {grads[name].shape}."
            )
    held = [[a.buffer] if isinstance(a, Blocks) else a.values() for a in (params, grads)]
    backend_of(*held[0], *held[1])


__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSProp",
    "get_optimizer",
    "gradient_norm",
]
