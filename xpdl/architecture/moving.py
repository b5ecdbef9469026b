"""A network to another backend or type, into a copy, into a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from xpdl import files
from xpdl.architecture.base import one_or_all
from xpdl.architecture.freezing import Freezing
from xpdl.architecture.reading import described, losses_of
from xpdl.arguments import real_array
from xpdl.backends import Array, Backend, get_backend
from xpdl.errors import ArgumentError, BackendMismatchError, ShapeError, shown
from xpdl.layers import Graph, layer_from_config
from xpdl.losses import loss_from_config
from xpdl.precision import PRECISIONS, get_precision

FILE_FORMAT = "xpdl-network-1"


class Moving(Freezing):
    """A network that can be moved, copied and saved."""

    plain: ClassVar[Any]  # what a copy is: `Network`, whichever model it was made as

    def to(self, backend: str | Backend) -> Self:
        """Move the network to another backend, and return it.

        Code follows arrays: those of "numpy", "numba" and "generic" are the same, and which of the
        three computes is the one that is active (`use_backend`).
        """
        if not isinstance(backend, str | Backend):
            raise ArgumentError(f"backend must be a name or a Backend, got {shown(backend)}.")
        target = backend if isinstance(backend, Backend) else get_backend(backend)
        arrays = self.host_arrays()
        self._place(target, self.precision)
        self.load_arrays(arrays)
        return self

    def astype(self, dtype: Any) -> Self:
        """Return a copy of the network under another float policy, on the same backend."""
        remade, (*described, _) = self.__reduce__()
        return remade(*described, get_precision(dtype))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and send by architecture and arrays: views must go on sharing their buffer."""
        arrays = self.host_arrays()
        return _remade, (self.plain, self.config(), self.backend.name, arrays, self.frozen, None)

    def arrays(self) -> dict[str, Array]:
        """Return all that is saved, by name: parameters and state."""
        return {**self.params, **self.state}

    def host_arrays(self) -> dict[str, Array]:
        """Return copies of what `arrays` gives, on the host."""
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
        """Return the architecture, as JSON can hold it; see `from_config`.

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
        shapes = {name: list(shape) for name, shape in self.input_shapes.items()}
        config = {
            "name": self.name,
            "input_shape": one_or_all(shapes),
            "body": self.body.config(),
            "loss": one_or_all({name: loss.config() for name, loss in self.losses.items()}),
            "weight_decay": self.weight_decay,
            "dtype": self.precision.name,
        }
        if set(self.loss_weights.values()) != {1.0}:
            config["loss_weights"] = dict(self.loss_weights)
        if self.class_names is not None:
            config["class_names"] = list(self.class_names)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, dtype: Any = None) -> Self:
        """Make a network, with parameters of zero, from what `config` returned.

        Raises
        ------
        ArgumentError
            If it is not that.
        """
        lacking = {"name", "input_shape", "body", "loss", "weight_decay", "dtype"}
        lacking -= config.keys() if isinstance(config, Mapping) else set()
        if lacking:
            raise ArgumentError(
                f"config must be what Network.config returned, got {shown(config)}; "
                f"it lacks {', '.join(sorted(lacking))}."
            )
        made, loss = layer_from_config(config["body"]), config["loss"]
        body, shapes = described(made if isinstance(made, Graph) else [made], config["input_shape"])
        several = isinstance(loss, Mapping) and "type" not in loss
        losses, weights = losses_of(
            body.outputs,
            {name: loss_from_config(one) for name, one in loss.items()}
            if several
            else loss_from_config(loss),
            config.get("loss_weights"),
        )
        network = cls.__new__(cls)
        network._build(
            body,
            shapes,
            losses=losses,
            loss_weights=weights,
            dtype=config["dtype"] if dtype is None else dtype,
            weight_decay=config["weight_decay"],
            name=config["name"],
            initialize=False,
            class_names=config.get("class_names"),
        )
        return network

    def as_layer(self) -> Graph:
        """Return the network's graph as a layer of another network, with copies of its arrays.

        As for a new head: ``Network([net.upto("pool5").as_layer(), Affine(3)], net.input_shape)``.
        """
        body = layer_from_config(self.body.config())
        assert isinstance(body, Graph)
        theirs = dict(body.leaves())
        for name, leaf in self._leaves.items():
            for kind in ("params", "state"):
                copies = {key: a.copy() for key, a in getattr(leaf, kind).items()}
                getattr(theirs[name], kind).update(copies)
        return body

    def upto(self, name: str) -> Self:
        """Return the front of the network, to the layer or block `name`, as a network of its own.

        It has copies of the parameters, and its loss is `IdentityWithLoss`. Cut before a ReLU, it
        ends before the ReLU.

        Raises
        ------
        UnknownNameError
            If there is no such layer.
        """
        front = self.body.upto(name)
        config = self.config() | {"body": front.config(), "loss": {"type": "IdentityWithLoss"}}
        config["input_shape"] = one_or_all({k: list(self.input_shapes[k]) for k in front.inputs})
        config["name"], config["class_names"] = f"{self.name}-{name}", None
        config.pop("loss_weights", None)
        network = self.plain.from_config(config).to(self.backend)
        mine = self.host_arrays()
        network.load_arrays({key: mine[key] for key in network.arrays()})
        return network

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
        arrays = self.host_arrays()
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


def _remade(
    kind: type[Moving],
    config: Mapping[str, Any],
    backend: str,
    arrays: Mapping[str, Array],
    frozen: Sequence[str] = (),
    dtype: Any = None,
) -> Moving:
    network = kind.from_config(config, dtype=dtype).to(backend)
    network.load_arrays(arrays)
    if frozen:
        network.freeze(*frozen)
    return network
