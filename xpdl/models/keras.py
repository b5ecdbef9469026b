"""SqueezeNet's weights as Keras has them: of each layer a list of its arrays, all in one pickle."""

from __future__ import annotations

import io
import os
from typing import Any

from xpdl.errors import ModelFileError
from xpdl.files import HostArray, read_bytes
from xpdl.network import Network
from xpdl.pickles import LARGEST_FILE, ArrayMachine, Built

LAST = "conv10"  # which a list by the alphabet has second


class _Lists(ArrayMachine):
    """The machine that builds a dict of lists of NumPy's arrays."""

    needed_by = "no dict of lists of arrays"

    def step(self, instruction: str, argument: Any, count: int) -> None:
        match instruction:
            case "EMPTY_LIST":
                self.stack.append([])
            case "APPENDS":
                items, target = self.take_to_mark(), self.top()
                if not isinstance(target, list):
                    raise ValueError("it appends to what is no list")
                target += items
            case _:
                super().step(instruction, argument, count)

    def expect_item(self, name: Any, value: Any) -> None:
        if not isinstance(name, str) or not isinstance(value, list):
            raise ModelFileError("it holds something else than lists under names")


def load_keras(network: Network, path: str | os.PathLike[str]) -> None:
    """Copy a convolutional network's weights, as Keras has them, into ours.

    Filters (FH, FW, C, FN) are turned, and those of the first layer, which see blue first, see red
    first here. No code in the file is run: see `xpdl.pickles`.

    Parameters
    ----------
    network : Network
        Of convolutions with biases: `SqueezeNet`.
    path : str or path
        {"conv1": [W, b], ...}, in the network's order but for ``"conv10"``, which is its last.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    ModelFileError
        If it holds anything else, or not what the network wants. The network is unchanged then.
    """
    try:
        layers = _read(read_bytes(path, LARGEST_FILE))
        ordered = [*(name for name in layers if name != LAST), LAST]
        ours = [name for name, leaf in network.leaves().items() if leaf.specs]
        arrays: dict[str, HostArray] = {}
        for name, theirs in zip(ours, ordered, strict=True):
            W, b = layers[theirs]
            W = W.transpose(3, 2, 0, 1)
            arrays |= {f"{name}.W": W if arrays else W[:, ::-1], f"{name}.b": b}
        network.load_arrays(arrays)
    except (ModelFileError, KeyError, ValueError, OverflowError) as error:
        raise ModelFileError(
            f"{str(path)!r} does not hold the weights of {network.name}: {str(error)[:200]}. "
            "Nothing of it was run."
        ) from error


def _read(content: bytes) -> dict[str, list[HostArray]]:
    layers = _Lists(io.BytesIO(content), len(content)).run()
    if not isinstance(layers, dict):
        raise ModelFileError("it holds no dict")
    held = [array for arrays in layers.values() for array in arrays]
    if not all(isinstance(array, Built) and array.values is not None for array in held):
        raise ModelFileError("it holds something else than arrays in lists")
    return {name: [array.values for array in arrays] for name, arrays in layers.items()}
