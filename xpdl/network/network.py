"""A network: layers, a loss, and all their parameters in one buffer."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpdl import files, functions
from xpdl.arguments import (
    LARGEST,
    array_or_list,
    check_finite,
    flag,
    number,
    one_number,
    real_array,
    sizes,
    whole_number,
)
from xpdl.backends import Array, Backend, Number, Shape, backend_of, get_backend
from xpdl.errors import (
    ArgumentError,
    BackendMismatchError,
    DeviceMemoryError,
    DTypeError,
    ShapeError,
    UnknownNameError,
    shown,
)
from xpdl.layers import Convolution, Layer, Sequential, forget, layer_from_config
from xpdl.losses import Loss, SoftmaxWithLoss, loss_from_config
from xpdl.parameters import ArrayDict, Layout, Parameters
from xpdl.precision import PRECISIONS, Precision, get_precision

FILE_FORMAT = "xpdl-network-1"
# Keep the random numbers of one seed apart: first values of weights, and dropout masks.
WEIGHT_STREAM, MASK_STREAM = 1, 2


class Network:
    """Layers from an input shape to scores, and a loss at their end.

    Parameters
    ----------
    layers : iterable of Layer, or mapping of str to Layer
        From first to last; see `Sequential` for their names.
    input_shape : int or tuple of int
        The shape of one sample, such as 784 or (1, 28, 28). All other shapes follow from it.
    loss : Loss, optional
        `SoftmaxWithLoss` by default.
    seed : int
        For the first values of the weights, drawn on the host, and for dropout masks.
    dtype : str, dtype or Precision, optional
        The float policy; ``XPDL_DTYPE``, else float32.
    weight_decay : float
        Lambda of a term lambda/2 sum W^2 in the loss (book, section 6.4.2). Use this or the
        optimizer's `weight_decay`, not both.
    name : str, optional
        What the network is called in files and tables; the class's name by default.
    initialize : bool
        Whether to draw first values; zeros otherwise.

    Raises
    ------
    ShapeError
        If a layer does not fit what comes before it; the message names the layer.
    """

    def __init__(
        self,
        layers: Sequential | Iterable[Layer] | Mapping[str, Layer],
        input_shape: int | Sequence[int],
        *,
        loss: Loss | None = None,
        seed: int = 0,
        dtype: Any = None,
        weight_decay: float = 0.0,
        name: str | None = None,
        initialize: bool = True,
    ) -> None:
        self.name = type(self).__name__ if name is None or name == "" else name
        self.input_shape = sizes("input_shape", input_shape)
        self.loss_layer = SoftmaxWithLoss() if loss is None else loss
        if not isinstance(self.loss_layer, Loss):
            raise ArgumentError(
                f"loss must be a Loss such as SoftmaxWithLoss(), got {shown(loss)}."
            )
        if not isinstance(self.name, str):
            raise ArgumentError(f"name must be a str, got {shown(name)}.")
        seed, initialize = whole_number("seed", seed, least=0), flag("initialize", initialize)
        precision = get_precision(dtype)
        self.weight_decay = number("weight_decay", weight_decay)
        self.body = layers if isinstance(layers, Sequential) else Sequential(layers)
        self.output_shape = self.body.plan(self.input_shape)
        if self.loss_layer.classifies and len(self.output_shape) != 1:
            raise ShapeError(
                f"the network ends in shape {self.output_shape}, its loss "
                f"{type(self.loss_layer).__name__} wants scores (K,); end with Affine or Flatten."
            )
        self._leaves = dict(self.body.leaves())
        given, counted = (
            {
                f"{name}.{key}": backend_of(array).to_numpy(array)
                for name, leaf in self._leaves.items()
                for key, array in getattr(leaf, kind).items()
            }
            for kind in ("params", "state")
        )
        self._place(get_backend(), precision)
        self.reseed(seed)
        if initialize:
            self._draw(np.random.default_rng([WEIGHT_STREAM, seed]), given)
            for name, values in counted.items():
                self.state[name][...] = self.backend.asarray(values, dtype=precision.accumulate)

    # ---- parameters -------------------------------------------------------------------------

    def _place(self, backend: Backend, precision: Precision) -> None:
        """Make the buffers on `backend` and give each layer its views."""
        specs = {
            f"{name}.{key}": spec
            for name, leaf in self._leaves.items()
            for key, spec in leaf.specs.items()
        }
        layout = Layout(
            {name: spec.shape for name, spec in specs.items()},
            frozenset(name for name, spec in specs.items() if spec.decay),
        )
        try:
            parameters = Parameters(layout, backend, precision)
        except MemoryError as error:
            raise DeviceMemoryError(
                f"{self.name} has {layout.size:,} parameters, which {backend.name} has no memory "
                "for; use a smaller input_shape or fewer units."
            ) from error
        self.backend, self.precision, self.parameters = backend, precision, parameters
        self.state: dict[str, Array] = {}
        for name, leaf in self._leaves.items():
            leaf.owned = True
            leaf.make_state(backend.xp, precision.accumulate)
            for key in leaf.specs:
                leaf.params[key] = self.parameters.compute[f"{name}.{key}"]
                leaf.grads[key] = self.grads[f"{name}.{key}"]
            for key, array in leaf.state.items():
                self.state[f"{name}.{key}"] = array
        self._arrange()

    def _arrange(self) -> None:
        """See that backward passes, and updates change, what is not frozen, and no more."""
        self.parameters.layout.freeze(
            frozenset(f"{name}.{key}" for name in self.frozen for key in self._leaves[name].specs)
        )
        self.body.want_gradient(False)

    def _draw(self, rng: np.random.Generator, given: Mapping[str, Array]) -> None:
        """Fill the parameters with what the caller gave, or else with first values."""
        for name, leaf in self._leaves.items():
            for key, spec in leaf.specs.items():
                full_name = f"{name}.{key}"
                values = given[full_name] if full_name in given else spec.draw(rng)
                self.params[full_name] = self.backend.asarray(
                    values, dtype=self.precision.parameters
                )

    @property
    def params(self) -> ArrayDict:
        """The parameters by name, in the network's order: what an optimizer updates."""
        return self.parameters.values

    @property
    def grads(self) -> ArrayDict:
        """The gradients by name, as the last `gradient` left them; 0 of what is frozen."""
        return self.parameters.gradients

    def reseed(self, seed: int | Sequence[int]) -> None:
        """Start the random numbers of all layers (dropout masks) from `seed`."""
        given = seed if isinstance(seed, Sequence) and seed else (seed,)
        seeds = [whole_number("seed", number, least=0) for number in given]
        for i, leaf in enumerate(self._leaves.values()):
            leaf.reseed([MASK_STREAM, *seeds, i])

    def random_state(self) -> dict[str, Any]:
        """Return where the random numbers of each layer that has some are, as JSON can hold it."""
        states = {name: leaf.random_state(self.backend) for name, leaf in self._leaves.items()}
        return {name: state for name, state in states.items() if state is not None}

    def set_random_state(self, states: Mapping[str, Any]) -> None:
        """Go on, with the seed of then, where `random_state` found the random numbers to be.

        Raises
        ------
        ArgumentError
            If the states are not those of the network's layers.
        """
        self.check_random_state(states)
        for name, state in states.items():
            self._leaves[name].set_random_state(self.backend, state)

    def check_random_state(self, states: Mapping[str, Any]) -> None:
        """See that `set_random_state` will take `states`, and change nothing.

        Raises
        ------
        ArgumentError
            If it will not.
        """
        if not isinstance(states, Mapping) or states.keys() != self.random_state().keys():
            raise ArgumentError(f"the random states are not those of {self.name}: {shown(states)}.")
        for name, state in states.items():
            twin = copy.copy(self._leaves[name])
            twin.reseed([0])  # so that it has random numbers of its own
            twin.set_random_state(self.backend, state)

    # ---- the book's five verbs ----------------------------------------------------------------

    def predict(self, x: Array, *, batch_size: int = 100) -> Array:
        """Return scores (N, classes) for x (N, *input_shape), in parts of `batch_size`.

        Raises
        ------
        ShapeError, ArgumentError, NonFiniteError
            If x has another shape, is empty, or (seen on the host only) holds NaN or infinity.
        BackendMismatchError
            If x lives on another backend than the network.
        """
        x = self._input(x)
        return self._scores(x, batch_size)

    def loss(self, x: Array, t: Array, *, train: bool = False) -> Array:
        """Return the mean loss over x, (), in float32 at least, on the device.

        It is the loss that is trained on, with its label smoothing and the weights' decay, whether
        or not `train`.

        Parameters
        ----------
        x : array, (N, *input_shape)
        t : array
            Class numbers (N,) or one-hot (N, classes); for a regression, (N, *output_shape).
        train : bool
            Whether dropout drops and batch normalisation uses the batch's own statistics.
        """
        x, t = self._input(x), self._target(t, len(x))
        scores = self._forward(x, train=True) if train else self._scores(x, 100)
        return self._total_loss(scores, t)

    def gradient(self, x: Array, t: Array) -> ArrayDict:
        """Return {name: gradient of the training loss}, by backpropagation."""
        self.forward_backward(x, t)
        return self.grads

    def forward_backward(
        self, x: Array, t: Array, scale: Number = 1.0, *, refresh: bool = True
    ) -> tuple[Array, Array]:
        """Fill `grads`, and return the training loss, (), and the scores (N, classes) behind it.

        Parameters
        ----------
        scale : float or array ()
            A factor on the gradients, for half precision; the loss returned is without it.
        refresh : bool
            Whether the copy of the parameters in the compute type may be out of date. An
            optimizer's update keeps it; a caller who has changed `params` by hand must leave this.
        """
        x = self._input(x)
        t, scale = self._target(t, len(x)), one_number("scale", scale)
        backend_of(scale, self.params.buffer)
        self.forget()  # the step before need not be in memory beside this one
        with self.explaining_memory(len(x), train=True):
            scores = self._forward(x, train=True, refresh=refresh)
            loss = self._total_loss(scores, t)
            self.body.backward(self.loss_layer.backward(scale))
        if self.weight_decay:
            blocks = self.params.blocks
            for name in self.params.decayed_blocks:
                self.grads.blocks[name] += (scale * self.weight_decay) * blocks[name]
        return loss, scores

    def accuracy(self, x: Array, t: Array, *, batch_size: int = 100) -> float:
        """Return the share of samples whose highest score is their class, over all of x.

        Reads one number from the device, at the end.

        Raises
        ------
        ArgumentError
            If the network tells no classes apart, or as `predict`.
        """
        if not self.loss_layer.classifies:
            raise ArgumentError(f"{self.name} does not tell classes apart: it is a regression.")
        x, t = self._input(x), self._target(t, len(x))
        hits = count_hits(self._scores(x, batch_size), t)
        return self.backend.item(hits) / len(x)

    def activations(self, x: Array) -> dict[str, Array]:
        """Return what each layer makes of x (N, *input_shape), by the layer's name, in order.

        As at inference, all of x at once. Where a ReLU is computed with the product before it (see
        `Sequential`), the product's entry is the ReLU's.
        """
        x = self._input(x).astype(self.precision.compute, copy=False)
        self.parameters.refresh()
        outputs = {}
        for name, layer in self.body.layers.items():
            outputs[name] = x = layer.forward(x)
        return outputs

    def _forward(self, x: Array, train: bool, refresh: bool = True) -> Array:
        if refresh:
            self.parameters.refresh()
        return self.body.forward(x.astype(self.precision.compute, copy=False), train)

    def _scores(self, x: Array, batch_size: int) -> Array:
        batch_size = whole_number("batch_size", batch_size)
        with self.explaining_memory(min(batch_size, len(x)), train=False):
            parts = [
                self._forward(x[i : i + batch_size], train=False)
                for i in range(0, len(x), batch_size)
            ]
        return parts[0] if len(parts) == 1 else self.backend.xp.concatenate(parts)

    def _total_loss(self, scores: Array, t: Array) -> Array:
        loss = self.loss_layer.forward(scores, t)
        weights = self.params.weights
        if self.weight_decay and weights.size:
            loss = loss + 0.5 * self.weight_decay * (weights * weights).sum()
        return loss

    # ---- freezing -------------------------------------------------------------------------------

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

    # ---- memory ---------------------------------------------------------------------------------

    def forget(self) -> None:
        """Let go of what the last training step kept for its backward pass."""
        for owner in (*self._leaves.values(), self.loss_layer):
            forget(owner)

    def bytes_per_sample(self, train: bool) -> int:
        """Return about how many bytes of the device one sample of a batch takes.

        In training every layer's output is kept until its gradient has passed; beside it there are
        the gradients on both sides of a layer, and the windows of a convolution laid out.
        """
        sizes, windows = [math.prod(self.input_shape)], 0
        for _, layer, shape in _walk(self.body):
            sizes.append(math.prod(shape))
            if isinstance(layer, Convolution):
                area = math.prod(layer.params["W"].shape[1:])
                windows = max(windows, area * math.prod(shape[1:]))
        passing = 3 * max(sizes) + windows
        itemsize = self.precision.compute.itemsize
        return itemsize * (sum(sizes) + passing if train else passing)

    @contextmanager
    def explaining_memory(self, batch_size: int, train: bool) -> Iterator[None]:
        """Within a block: if memory runs out, say what was asked for, what is free and what fits.

        Raises
        ------
        DeviceMemoryError
            In place of any MemoryError.
        """
        try:
            yield
        except MemoryError as error:
            if isinstance(error, DeviceMemoryError):
                raise
            traceback.clear_frames(error.__traceback__)  # they hold arrays
            self.forget()
            free = self.backend.free_memory()
            asked = re.search(r"allocat\w* ([\d.,]+ [KMGTi]*[Bb]\w*)", str(error))
            raise DeviceMemoryError(
                f"{self.name} ran out of memory on {self.backend.name} with a batch of "
                f"{batch_size:,}: {asked.group(1) if asked else 'more'} were asked for"
                f"{_what_fits(free, self.bytes_per_sample(train), batch_size)}"
            ) from error

    # ---- checks ---------------------------------------------------------------------------------

    def _input(self, x: Array) -> Array:
        x = self._here("x", x)
        if x.shape[1:] != self.input_shape:
            wanted = ", ".join(map(str, self.input_shape))
            fix = ""
            if x.ndim and math.prod(x.shape[1:]) == math.prod(self.input_shape):
                fix = f" Use x.reshape(-1, {wanted})."
            raise ShapeError(f"x must be (N, {wanted}), got {x.shape}.{fix}")
        if not len(x):
            raise ArgumentError(f"x is empty: its shape is {x.shape}.")
        check_finite("x", x)
        return x

    def _target(self, t: Array, samples: int) -> Array:
        t = self._here("t", t)
        check_finite("t", t)
        if self.loss_layer.classifies:
            functions.check_targets(t, (samples, *self.output_shape))
            if self.backend.xp is np and t.ndim == 1:
                functions.check_labels(t, self.output_shape[0])
        elif t.shape != (samples, *self.output_shape):
            raise ShapeError(f"t must be {(samples, *self.output_shape)}, got {t.shape}.")
        return t

    def _here(self, argument: str, a: Any) -> Array:
        """Return `a` as an array of the network's backend; an array of another is refused."""
        a = array_or_list(argument, a, self.backend.asarray)
        try:
            backend_of(a, self.params.buffer)
        except (BackendMismatchError, DTypeError) as error:
            raise type(error)(f"{argument} and the network {self.name}: {error}") from error
        if a.dtype.kind not in "biuf":
            raise DTypeError(f"{argument} must hold real numbers, got dtype {a.dtype}.")
        return a

    # ---- moving, copying, saving ---------------------------------------------------------------

    def to(self, backend: str | Backend) -> Network:
        """Move the network to another backend, and return it.

        Code follows arrays: those of "numpy", "numba" and "generic" are the same, and which of the
        three computes is the one that is active (`use_backend`).
        """
        if not isinstance(backend, str | Backend):
            raise ArgumentError(f"backend must be a name or a Backend, got {shown(backend)}.")
        target = backend if isinstance(backend, Backend) else get_backend(backend)
        arrays = self._host_arrays()
        self._place(target, self.precision)
        self.load_arrays(arrays)
        return self

    def astype(self, dtype: Any) -> Network:
        """Return a copy of the network under another float policy, on the same backend."""
        precision = get_precision(dtype)
        other = network_from_config(self.config(), dtype=precision).to(self.backend)
        other.load_arrays(self._host_arrays())
        if self.frozen:
            other.freeze(*self.frozen)
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and send by architecture and arrays: views must go on sharing their buffer."""
        return _remake, (self.config(), self.backend.name, self._host_arrays(), self.frozen)

    def arrays(self) -> dict[str, Array]:
        """Return all that is saved, by name: parameters and state."""
        return {**self.params, **self.state}

    def _host_arrays(self) -> dict[str, Array]:
        return {name: self.backend.to_numpy(a) for name, a in self.arrays().items()}

    def load_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Copy host arrays, by the names of `arrays()`, into the network.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            If names, shapes or types are not the network's. Nothing is changed then.
        """
        self.check_arrays(arrays)
        for name, array in self.arrays().items():
            array[...] = self.backend.asarray(arrays[name], dtype=array.dtype)

    def check_arrays(self, arrays: Mapping[str, Array]) -> None:
        """See that `load_arrays` would take `arrays`.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError
            As `load_arrays`.
        """
        if not isinstance(arrays, Mapping):
            raise ArgumentError(f"arrays must be a dictionary of arrays, got {shown(arrays)}.")
        mine = self.arrays()
        if mine.keys() != arrays.keys():
            lone = ", ".join(sorted(map(str, mine.keys() ^ arrays.keys())))
            raise ArgumentError(f"the arrays are not those of {self.name}: {lone} differ.")
        for name, array in mine.items():
            real_array(name, arrays[name], "f")
            if not isinstance(arrays[name], np.ndarray) and not self.backend.owns(arrays[name]):
                raise BackendMismatchError(
                    f"{name} lives on another device; bring it to the host with xpdl.to_numpy(a)."
                )
            if array.shape != arrays[name].shape:
                raise ShapeError(
                    f"{name} of {self.name} has the shape {array.shape}, got {arrays[name].shape}."
                )

    def config(self) -> dict[str, Any]:
        """Return the architecture, as JSON can hold it; see `network_from_config`.

        Raises
        ------
        ArgumentError
            If its float policy is none of `PRECISIONS`, which alone are known by name.
        """
        if PRECISIONS.get(self.precision.name) != self.precision:
            raise ArgumentError(
                f"{self.name} has a float policy of its own, {self.precision}, which no file or "
                f"copy can name; use one of {', '.join(PRECISIONS)}."
            )
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "body": self.body.config(),
            "loss": self.loss_layer.config(),
            "weight_decay": self.weight_decay,
            "dtype": self.precision.name,
        }

    def save(self, path: str | os.PathLike[str], about: Mapping[str, Any] | None = None) -> None:
        """Write the network to a safetensors file, whole or not at all; `xpdl.load` reads it.

        Parameters
        ----------
        path : str or path
        about : mapping, optional
            More to keep with it, as JSON can hold it: the data set, the classes' names ...

        Raises
        ------
        FileAccessError
            If the place is missing, read-only or full.
        """
        if not isinstance(path, str | os.PathLike) or "\0" in str(path):
            raise ArgumentError(f"path must be a str or a path, got {shown(path)}.")
        about = {} if about is None else about
        if not isinstance(about, Mapping):
            raise ArgumentError(f"about must be a dictionary, got {shown(about)}.")
        arrays = self._host_arrays()
        description = {
            "format": FILE_FORMAT,
            "architecture": self.config(),
            "about": dict(about),
        }
        try:
            json.dumps(description["about"], allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise ArgumentError(
                f"about must hold what JSON can, texts, numbers and lists; got {shown(about)}."
            ) from error
        files.write_tensors(path, arrays, description)

    # ---- looking at it -------------------------------------------------------------------------

    def summary(self, batch_size: int = 100) -> str:
        """Return a table: layers, output shapes, parameter counts, memory for a batch.

        Layers that are frozen are said to be.
        """
        batch_size = whole_number("batch_size", batch_size, most=LARGEST)
        rows = [("input", "", _show(self.input_shape), "")]
        total = 0
        activations = math.prod(self.input_shape)
        for name, layer, shape in _walk(self.body):
            count = sum(math.prod(spec.shape) for spec in layer.specs.values())
            about = f"{layer!r}, frozen" if name in self.frozen else repr(layer)
            rows.append((name, about, _show(shape), f"{count:,}" if count else ""))
            total += count
            activations += math.prod(shape)
        widths = max(len(row[0]) for row in rows), max(len(row[2]) for row in rows)
        lines = [
            f"{name:<{widths[0]}}  {shape:>{widths[1]}}  {count:>10}  {layer}"
            for name, layer, shape, count in rows
        ]
        precision = self.precision
        fixed = self.parameters.nbytes
        kept = batch_size * activations * precision.compute.itemsize
        still = sum(math.prod(self.params[name].shape) for name in self.params.frozen)
        frozen = f" ({still:,} frozen)" if still else ""
        header = (
            f"{self.name}: {total:,} parameters{frozen}, {precision.name}, on {self.backend.name}"
        )
        footer = (
            f"memory: {_megabytes(fixed)} for parameters and gradients, about {_megabytes(kept)} "
            f"for the activations of a training batch of {batch_size}"
        )
        return "\n".join(line.rstrip() for line in (header, *lines, footer))

    def __repr__(self) -> str:
        total = sum(math.prod(shape) for shape in self.parameters.layout.shapes.values())
        return f"<{self.name}: {total:,} parameters, {self.precision.name}, {self.backend.name}>"


def count_hits(scores: Array, t: Array) -> Array:
    """Return how many rows of scores (N, K) are highest at their target, (), on the device."""
    classes = t if t.ndim == 1 else t.argmax(axis=1)
    return (scores.argmax(axis=1) == classes).sum()


def network_from_config(config: Mapping[str, Any], *, dtype: Any = None) -> Network:
    """Make a network, with parameters of zero, from what `Network.config` returned."""
    lacking = {"name", "input_shape", "body", "loss", "weight_decay", "dtype"}
    lacking -= config.keys() if isinstance(config, Mapping) else set()
    if lacking:
        raise ArgumentError(
            f"config must be what Network.config returned, got {shown(config)}; "
            f"it lacks {', '.join(sorted(lacking))}."
        )
    body = layer_from_config(config["body"])
    loss = loss_from_config(config["loss"])
    return Network(
        body if isinstance(body, Sequential) else Sequential([body]),
        config["input_shape"],
        loss=loss,
        dtype=config["dtype"] if dtype is None else dtype,
        weight_decay=config["weight_decay"],
        name=config["name"],
        initialize=False,
    )


def _remake(
    config: Mapping[str, Any],
    backend: str,
    arrays: Mapping[str, Array],
    frozen: Sequence[str] = (),
) -> Network:
    network = network_from_config(config).to(backend)
    network.load_arrays(arrays)
    if frozen:
        network.freeze(*frozen)
    return network


def _walk(body: Sequential, prefix: str = "") -> Iterator[tuple[str, Layer, Shape]]:
    for name, layer in body.layers.items():
        if isinstance(layer, Sequential):
            yield from _walk(layer, f"{prefix}{name}.")
        else:
            yield prefix + name, layer, body.shapes[name]


def _what_fits(free: int | None, per_sample: int, batch_size: int) -> str:
    if free is None:
        return ". Use a smaller batch."
    fits = min(int(0.9 * free) // per_sample, batch_size - 1)
    text = f", {_megabytes(free)} are free without it. "
    if fits < 1:
        return text + "Not even a batch of 1 will fit; use a smaller network or float16."
    return text + f"A batch of {fits:,} should fit (batch_size={fits}, --batch-size {fits})."


def _show(shape: Shape) -> str:
    return " x ".join(map(str, shape))


def _megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MB"
