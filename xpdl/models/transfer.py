"""Transfer learning: a network that has learned much is given something else to tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpdl.architecture.random_numbers import WEIGHT_STREAM
from xpdl.arguments import expect_network, sizes, whole_number
from xpdl.errors import ArgumentError, shown
from xpdl.layers import Affine, Convolution
from xpdl.losses import Loss
from xpdl.network import Network

UNITS: dict[type, str] = {Affine: "units", Convolution: "filters"}


def new_head(
    network: Network,
    classes: Sequence[str] | int,
    *,
    input_shape: Sequence[int] | None = None,
    loss: Loss | None = None,
    seed: int = 0,
) -> Network:
    """Return a copy of a network whose last layer with parameters tells other classes apart.

    All of it but this new head is frozen, so that training begins with the head: the gradient of
    one that knows nothing yet would spoil what the others know. `Network.unfreeze` then lets all
    learn, which wants a lower rate, the lower the further from the head::

        net = new_head(pretrained("mobilenet_v2"), ["daisy", "rose"], input_shape=(3, 96, 96))
        Trainer(net, train, test, optimizer="adam", epochs=5).fit()
        net.unfreeze()
        adam = Adam(1e-4, rate_factors={head_of(net): 10})
        Trainer(net, train, test, optimizer=adam, epochs=10).fit()

    Frozen batch normalisation computes with its running statistics and leaves them as they are.
    Once it is unfrozen it goes by the batch, which wants batches that are not small; to leave it as
    it is, freeze the layers of that class again.

    Parameters
    ----------
    network : Network
        With one output, and an `Affine` or a `Convolution` as its last layer with parameters.
    classes : sequence of str, or int
        What the new classes are called, or how many they are.
    input_shape : (C, H, W), optional
        Of one image, if it is another. A network that ends in the mean of each channel takes any
        size; of others the layers behind must see what they saw.
    loss : Loss, optional
        The network's own by default.
    seed : int
        For the head's first weights.

    Raises
    ------
    ArgumentError
        If the network has several outputs, or ends otherwise.
    ShapeError
        If its other layers do not fit the new input shape.
    """
    head, names = head_of(network), None
    if len(network.output_shapes) > 1:
        raise ArgumentError(
            f"{network.name} has several outputs, {', '.join(network.output_shapes)}; make it "
            "without auxiliary heads, or build a new network on network.upto(...)."
        )
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        names, classes = list(classes), len(classes)
    config = network.config() | {"class_names": names}
    if input_shape is not None:
        config["input_shape"] = list(sizes("input_shape", input_shape))
    if loss is not None:
        if not isinstance(loss, Loss):
            raise ArgumentError(f"loss must be a Loss, got {shown(loss)}.")
        config["loss"] = loss.config()
    layer = _layer_in(config["body"], head)
    layer[UNITS[type(network.leaves()[head])]] = whole_number("classes", classes, least=2)
    other = Network.from_config(config).to(network.backend)
    arrays = network.host_arrays()
    rng = np.random.default_rng([WEIGHT_STREAM, whole_number("seed", seed, least=0)])
    for key, spec in other.leaves()[head].specs.items():
        arrays[f"{head}.{key}"] = spec.draw(rng)
    other.load_arrays(arrays)
    other.freeze(*(name for name in other.leaves() if name != head))
    return other


def head_of(network: Network) -> str:
    """Return the name of the last layer with parameters, which makes scores of features.

    Raises
    ------
    ArgumentError
        If there is none, or it is neither an `Affine` nor a `Convolution`.
    """
    expect_network("network", network)
    learning = {name: leaf for name, leaf in network.leaves().items() if leaf.specs}
    name = next(reversed(learning), "")
    if not name or type(learning[name]) not in UNITS:
        raise ArgumentError(
            "network must end in an Affine or a Convolution, which is its head, got "
            f"{shown(learning.get(name))}."
        )
    return name


def _layer_in(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what describes a layer in the config of a graph, however deep it stands."""
    found: Any = config
    for part in name.split("."):
        if "layers" in found:
            found = found["layers"][part]
        else:
            found = found["nodes"][part]["layer"]
    layer: dict[str, Any] = found
    return layer
