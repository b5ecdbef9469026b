"""The data of a training, seen to fit its network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xpdl.architecture.shapes import advice
from xpdl.arguments import array_or_list, check_finite
from xpdl.backends import backend_of
from xpdl.backends.base.types import host_array
from xpdl.datasets.batches import Batches
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.network import Network


def expect_pairs(*arguments: Any, divisor: Any = None, **_: Any) -> None:
    """See that data comes in pairs, not as the book's Trainer takes it, and without a divisor.

    Raises
    ------
    ArgumentError
        If it does not.
    """
    if len(arguments) > 3 or (len(arguments) > 2 and hasattr(arguments[1], "dtype")):
        raise ArgumentError(
            "Trainer takes a pair of images and labels: the book's Trainer(net, x_train, t_train, "
            "x_test, t_test) is Trainer(net, (x_train, t_train), (x_test, t_test)) here. "
            "See docs/from-the-book.md."
        )
    if divisor is not None:
        raise ArgumentError(
            f"divisor belongs into the network, which then knows what its input means: "
            f"Network([...], input_shape, normalize=xpdl.layers.Normalize({divisor:g}))."
        )


def training_batches(
    argument: str, network: Network, data: Any, batch_size: int | Mapping[int, int], seed: int
) -> Batches:
    """Return the batches of (x, t) or (x, t, weights), for a network that they are seen to fit.

    Targets are looked at once, on the host, and are as the losses want them from then on. What the
    first input's integers are divided by is what the network's `Normalize` says.

    Raises
    ------
    ShapeError, DTypeError, ArgumentError, NonFiniteError
        If they do not fit; labels and finiteness are looked at here, once.
    """
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise ArgumentError(
            f"{argument} must be a pair (x, t), or (x, t, weights), got {shown(data)}."
        )
    _expect_samples(network, data[0])
    x, t = data[0], _targets(network, data[0], data[1], argument == "train")
    layer, accumulate = network.normalize, network.precision.accumulate
    if layer is not None and _holds_floats(x):
        layer = None  # they are scaled already
    batches = Batches(
        x,
        t,
        batch_size,
        backend=network.backend,
        seed=seed,
        dtype=network.precision.compute if network.normalize is None else accumulate,
        divisor=None if layer is None else layer.divisor,
        weights=data[2] if len(data) == 3 else None,
    )
    network.inputs(batches.first())  # one is enough for the network to say what it wants instead
    if batches.weights is not None and not (batches.weights.shape == (batches.examples,)):
        raise ShapeError(f"weights must be ({batches.examples},), got {batches.weights.shape}.")
    return batches


def _expect_samples(network: Network, x: Any) -> None:
    """See that x is (N, *input_shape) as it was given: of an example N would be told as 1."""
    several = x if isinstance(x, Mapping) else {next(iter(network.input_shapes)): x}
    for name, array in several.items():
        wanted, shape = network.input_shapes.get(name), getattr(array, "shape", None)
        if wanted is not None and shape is not None and tuple(shape[1:]) != wanted:
            told, argument = ", ".join(map(str, wanted)), name if x is several else "x"
            raise ShapeError(
                f"{argument} must be (N, {told}), got {tuple(shape)}.{advice(array, wanted)}"
            )


def _holds_floats(x: Any) -> bool:
    first = next(iter(x.values())) if isinstance(x, Mapping) else x
    dtype = first.dtype if hasattr(first, "dtype") else host_array(first).dtype
    return getattr(dtype, "kind", "") == "f"


def _targets(network: Network, x: Any, t: Any, balance: bool) -> Any:
    """Return the targets as the losses want them, looked at on the host."""
    several = isinstance(t, Mapping)
    if several and t.keys() != network.losses.keys():
        raise ArgumentError(f"t must be of {', '.join(network.losses)}, got {', '.join(t)}.")
    given = t if several else {next(iter(network.losses)): t}
    samples = len(next(iter(x.values())) if isinstance(x, Mapping) else x)
    seen = {}
    for name, one in given.items():
        array = array_or_list("t", one, host_array)
        host = backend_of(array).to_numpy(array)
        check_finite("t", host)
        if len(host) != samples:
            raise ShapeError(f"x and t must be of one length, got {samples} and {len(host)}.")
        loss = network.losses[name]
        wanted = loss.target(host, samples, network.output_shapes[name])
        if balance:
            loss.balance(host)
        seen[name] = array.reshape(wanted.shape)
    return seen if several else next(iter(seen.values()))
