"""A network to and from a file, which needs nothing but the file."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpdl import files, pickles
from xpdl.arguments import expect_network, flag, one_of, real_array, whole_number
from xpdl.backends import Array, Shape
from xpdl.errors import ArgumentError, FileAccessError, ModelFileError, NonFiniteError, shown
from xpdl.files import HostArray
from xpdl.layers import Affine, Graph, layer_from_config
from xpdl.network import FILE_FORMAT, Network, described
from xpdl.state_dicts import StateDict, open_state_dict

# Which network the book saved in a file, by the shapes of its weights.
BOOK_NETWORKS = {
    ((784, 50), (50, 100), (100, 10)): 'MultiLayerNet(784, [50, 100], activation="sigmoid")',
    ((30, 1, 5, 5), (4320, 100), (100, 10)): "SimpleConvNet()",
    (
        *((16, 1, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3)),
        *((32, 32, 3, 3), (64, 32, 3, 3), (64, 64, 3, 3)),
        *((1024, 50), (50, 10)),
    ): "DeepConvNet()",
}
# What PyTorch calls the arrays of a layer; the others are called as ours.
IN_TORCH = {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias"}
MOST_DIFFERENCES = 8  # in one message
LONGEST_REASON = 500  # characters, as it may quote what a stranger wrote


def load(path: str | os.PathLike[str], *, dtype: Any = None) -> Network:
    """Read a network that `Network.save` wrote; it is born on the active backend.

    Parameters
    ----------
    path : str or path
        A safetensors file, or a run's folder, whose ``model.safetensors`` is read.
    dtype : str or dtype, optional
        Another float policy than the file's.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it is foreign, damaged, or its arrays are not those of its architecture.
    """
    return load_with_notes(path, dtype=dtype)[0]


def load_with_notes(
    path: str | os.PathLike[str], *, dtype: Any = None
) -> tuple[Network, dict[str, Any]]:
    """Read a network as `load` does, and what `Network.save` was told about it."""
    if os.path.isdir(path):
        inside = os.path.join(path, "model.safetensors")
        if not os.path.exists(inside):
            raise FileAccessError(
                f"the folder {str(path)!r} holds no model.safetensors; give the folder of a run, "
                "or a file. An ensemble is read by xpdl.tuning.load_ensemble."
            )
        path = inside
    try:
        arrays, description = files.read_tensors(path, _expect_network)
        network = Network.from_config(description["architecture"], dtype=dtype)
        network.load_arrays(as_finite(arrays, network.arrays()))
    except ModelFileError:
        raise
    except (
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        reason = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(
            f"{str(path)!r} does not describe a network: {reason[:LONGEST_REASON]}"
        ) from error
    return network, description["about"]


def load_book_parameters(network: Network, path: str | os.PathLike[str]) -> None:
    """Copy parameters that the book's own code saved, with pickle, into a network.

    - ``sample_weight.pkl`` (chapter 3, 93.52 %):
      ``MultiLayerNet(784, [50, 100], activation="sigmoid")``
    - ``params.pkl`` (chapter 7, 98.96 %): ``SimpleConvNet()``
    - ``deep_convnet_params.pkl`` (chapter 8, 99.38 %): ``DeepConvNet()``

    Wn and bn of the file go to the network's n-th layer that has parameters, in the network's own
    type; ``dtype="float64"`` computes as the book does. Which activations belong to them, and
    which dropout, the file does not say. No code in the file is run: see `xpdl.pickles`.

    Parameters
    ----------
    network : Network
        Of layers with W and b, and others without parameters.
    path : str or path
        A pickled dict of NumPy arrays, of any pickle protocol: {"W1": ..., "b1": ..., "W2": ...}.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it holds anything but arrays, or not just those that the network wants, finite and in
        its shapes; the message lists what differs. The network is unchanged then.
    ArgumentError
        If the network has parameters that the book's files do not hold, such as the running
        statistics of batch normalisation.

    Examples
    --------
    With the book's ``sample_weight.pkl`` in the working folder:

    >>> from xpdl.models import MultiLayerNet
    >>> from xpdl.storage import load_book_parameters
    >>> network = MultiLayerNet(784, [50, 100], activation="sigmoid", dtype="float64")
    >>> load_book_parameters(network, "sample_weight.pkl")
    """
    names = _book_names(network)
    arrays = pickles.read_arrays(path)
    dtype = network.precision.parameters
    differences = []
    for name, ours in names.items():
        wanted = network.params[ours].shape
        if name not in arrays:
            differences.append(f"{name} is missing, wanted {wanted} for {ours}")
        elif arrays[name].shape != wanted:
            differences.append(f"{name} is {arrays[name].shape}, wanted {wanted} for {ours}")
        elif arrays[name].dtype.kind != "f":
            differences.append(f"{name} is of {arrays[name].dtype}, wanted floats for {ours}")
        else:
            arrays[name] = _convert(arrays[name], dtype)
            if not np.isfinite(arrays[name]).all():
                differences.append(f"{name} holds NaN, infinity or numbers beyond {dtype}")
    differences += [f"{name!r} is not wanted" for name in arrays if name not in names]
    if differences:
        weights = tuple(a.shape for name, a in sorted(arrays.items()) if name.startswith("W"))
        fits = BOOK_NETWORKS.get(weights)
        hint = f" Its weights are shaped as those of {fits}." if fits else ""
        raise ModelFileError(
            f"{str(path)!r} does not fit {network.name}: {_first(differences)}.{hint}"
        )
    network.load_arrays({ours: arrays[name] for name, ours in names.items()})


def _book_names(network: Network) -> dict[str, str]:
    """Return {the book's name: the network's name} of its parameters: {"W1": "affine1.W", ...}."""
    expect_network("network", network)
    names: dict[str, str] = {}
    layers = [item for item in network.leaves().items() if item[1].specs or item[1].state_specs]
    for n, (name, layer) in enumerate(layers, start=1):
        holds = [*layer.specs, *layer.state_specs]
        if sorted(holds) != ["W", "b"]:
            raise ArgumentError(
                f"network: the book's files hold W and b of each layer and no running statistics; "
                f"{name} of {network.name}, {layer!r}, has {', '.join(holds)}. "
                "Use a network of layers with W and b alone."
            )
        names |= {f"W{n}": f"{name}.W", f"b{n}": f"{name}.b"}
    return names


def load_torch(
    network: Network,
    path: str | os.PathLike[str],
    names: Mapping[str, str] | str = "in order",
    *,
    leave: Sequence[str] = (),
) -> None:
    """Copy weights that PyTorch saved into a network, without PyTorch.

    Of a state dictionary: a ``.pth`` or ``.pt`` file of any version of ``torch.save``, or
    safetensors. Weights of affine layers, which PyTorch keeps as (out, in), are turned; those of
    convolutions, biases and what normalisation knows are alike; PyTorch's is
    ``BatchNormalization(epsilon=1e-5, unbiased=True)``. No code in the file is run: see
    `xpdl.state_dicts`. One array at a time is read, twice, so that there is no second copy in
    memory, and nothing of the network is changed before all is seen to fit.

    Parameters
    ----------
    network : Network
        Of the same layers.
    path : str or path
        The file.
    names : dict of str to str, or "in order"
        What each layer of the network that holds arrays is called in the file:
        ``{"conv1": "features.0", ...}``. Or the n-th takes what the file holds as the n-th, which
        is right where both are a chain, and which a safetensors file cannot tell.
    leave : sequence of str
        What in the file is not wanted, by the beginnings of names: ``["fc.", "aux"]``.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it holds anything but arrays, or not just those that the network wants, finite and in
        its shapes; the message lists what differs. The network is unchanged then.
    ArgumentError
        If names are not those of the network's layers.

    Examples
    --------
    >>> from xpdl.models import SimpleConvNet
    >>> from xpdl.storage import load_torch
    >>> load_torch(SimpleConvNet(), "simple.pth")
    """
    expect_network("network", network)
    if isinstance(leave, str) or not all(isinstance(start, str) for start in leave):
        raise ArgumentError(
            f"leave must be a list of str, the beginnings of names, got {shown(leave)}."
        )
    arrays = network.arrays()
    with open_state_dict(path) as held:
        shapes = {
            name: shape
            for name, shape in held.shapes.items()
            if not name.startswith(tuple(leave)) and not name.endswith("num_batches_tracked")
        }
        matches = _matches(network, shapes, names, ordered=held.ordered)
        differences = _other_shapes(shapes, matches, arrays)
        for match in [] if differences else matches:
            differences += match.read(held, arrays)[1]
        if differences:
            raise ModelFileError(
                f"{str(path)!r} does not fit {network.name}: {_first(differences)}."
            )
        for match in matches:
            arrays[match.ours][...] = network.backend.asarray(match.read(held, arrays)[0])


@dataclass(frozen=True)
class _Match:
    """An array of a network, what it is called in a state dictionary, and whether it is turned."""

    ours: str
    theirs: str
    turned: bool

    def read(self, held: StateDict, arrays: Mapping[str, Array]) -> tuple[HostArray, list[str]]:
        """Return the array as the network wants it, and what is wrong with it."""
        array, dtype = held.read(self.theirs), arrays[self.ours].dtype
        if array.dtype.kind != "f":
            return array, [f"{self.theirs} is of {array.dtype}, wanted floats for {self.ours}"]
        array = _convert(array.T if self.turned else array, dtype)
        if not np.isfinite(array).all():
            return array, [f"{self.theirs} holds NaN, infinity or numbers beyond {dtype}"]
        return array, []


def _matches(
    network: Network, shapes: Mapping[str, Shape], names: Mapping[str, str] | str, *, ordered: bool
) -> list[_Match]:
    """Return what belongs together of a network and a state dictionary of such shapes."""
    layers = {n: leaf for n, leaf in network.leaves().items() if leaf.specs or leaf.state_specs}
    if not isinstance(names, Mapping):
        one_of("names", names, ("in order",))
        if not ordered:
            raise ArgumentError(
                "names must say what each layer is called in the file: of a safetensors file, "
                f"which keeps no order. It holds {_first(list(shapes))}."
            )
        modules = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
        if len(modules) != len(layers):
            raise ModelFileError(
                f"the file holds arrays of {len(modules)} layers ({_first(modules)}), and "
                f"{network.name} has {len(layers)}; say with names which is which, or with leave "
                "what is not wanted."
            )
        names = dict(zip(layers, modules, strict=True))
    if names.keys() != layers.keys():
        lone = _first(sorted(map(shown, names.keys() ^ layers.keys())))
        raise ArgumentError(
            f"names must name each layer of {network.name} with arrays, and no other: {lone}."
        )
    return [
        _Match(
            f"{layer}.{key}",
            f"{names[layer]}.{IN_TORCH.get(key, key)}".lstrip("."),
            turned=isinstance(leaf, Affine) and key == "W",
        )
        for layer, leaf in layers.items()
        for key in (*leaf.specs, *leaf.state_specs)
    ]


def _other_shapes(
    shapes: Mapping[str, Shape], matches: list[_Match], arrays: Mapping[str, Array]
) -> list[str]:
    """Return what a state dictionary lacks, has too much, or in another shape."""
    differences = []
    for match in matches:
        wanted, name = arrays[match.ours].shape[:: -1 if match.turned else 1], match.theirs
        if name not in shapes:
            differences.append(f"{name} is missing, wanted {wanted} for {match.ours}")
        elif shapes[name] != wanted:
            differences.append(f"{name} is {shapes[name]}, wanted {wanted} for {match.ours}")
    known = {match.theirs for match in matches}
    return differences + [f"{name[:80]!r} is not wanted" for name in shapes if name not in known]


def _expect_network(shapes: Mapping[str, Shape], description: Mapping[str, Any]) -> None:
    """See, before any array is read or made, that a file describes a network and holds its arrays.

    Raises
    ------
    ValueError, and what the layers raise
        If it does not.
    """
    if description.get("format") != FILE_FORMAT:
        raise ValueError(
            f"it is no network: its format is {str(description.get('format'))[:40]!r}, "
            f"wanted {FILE_FORMAT!r}."
        )
    config = description["architecture"]
    expect_notes(description["about"])
    body, shapes_of_input = described(layer_from_config(config["body"]), config["input_shape"])
    body.plan(*shapes_of_input.values())
    wanted, stored = _shapes(body), sum(map(math.prod, shapes.values()))
    total = sum(map(math.prod, wanted.values()))
    if total > stored:
        raise ValueError(f"its layers want {total:,} parameters, it holds {stored:,} numbers.")
    differences = [f"{name} {wanted[name]} is missing" for name in wanted if name not in shapes]
    differences += [f"{name[:80]!r} is not wanted" for name in shapes if name not in wanted]
    differences += [
        f"{name} has the shape {shapes[name]}, wanted {wanted[name]}"
        for name in wanted
        if name in shapes and shapes[name] != wanted[name]
    ]
    if differences:
        raise ValueError(f"of its arrays, {_first(differences)}.")


def _shapes(body: Graph) -> dict[str, Shape]:
    """Return the shapes of all that is saved of a network, by name, when its layers are planned."""
    shapes: dict[str, Shape] = {}
    for name, leaf in body.leaves():
        shapes |= {f"{name}.{key}": spec.shape for key, spec in leaf.specs.items()}
        shapes |= {f"{name}.{key}": shape for key, (shape, _) in leaf.state_specs.items()}
    return shapes


def expect_notes(about: Any) -> None:
    """See that what is known of a network is of the types that its readers count on."""
    if not isinstance(about, dict):
        raise ValueError("its notes are no names with values.")
    names = about.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class_names must be a list of str.")
    if not isinstance(about.get("data", ""), str):
        raise ValueError("its data must be the name of a data set, a str.")
    whole_number("shifts", about.get("shifts", 0), least=0)
    flag("mirrored", about.get("mirrored", False))


def as_finite(arrays: Mapping[str, HostArray], like: Mapping[str, Array]) -> dict[str, HostArray]:
    """Return host arrays in the types of those of `like` by their names.

    Raises
    ------
    DTypeError, NonFiniteError
        If one holds no floats, or not only finite ones in that type.
    """
    converted = {}
    for name, array in arrays.items():
        dtype = like[name].dtype
        converted[name] = _convert(real_array(name, array, "f"), dtype)
        if not np.isfinite(converted[name]).all():
            raise NonFiniteError(
                f"{name} holds NaN, infinity or numbers beyond {dtype}: a training that diverged?"
            )
    return converted


def _convert(array: HostArray, dtype: np.dtype[Any]) -> HostArray:
    """Return an array in another type; what that cannot hold becomes infinite without a word."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return array.astype(dtype, copy=False)


def _first(differences: list[str]) -> str:
    """Return the first few differences as one text, and how many more there are."""
    text = "; ".join(differences[:MOST_DIFFERENCES])
    more = len(differences) - MOST_DIFFERENCES
    return f"{text}; and {more} more" if more > 0 else text
