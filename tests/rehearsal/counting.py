"""What a captured step gives a GPU to do: the nodes of its graph, as CuPy and CUDA make them.

A function of CuPy's that only copies, in one piece, is a copy (MEMCPY), zeros are a fill (MEMSET),
and all else is a kernel (KERNEL). CuPy does some functions, such as `var`, by several kernels; each
counts as one here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rehearsal import device


class Node(NamedTuple):
    """One thing to do."""

    kind: str
    name: str
    bytes: int
    """The size of all arrays that it is given, those that it writes included."""


PRODUCT = "product"
"""The name of cuBLAS's kernels."""

_ZEROS = {"zeros", "zeros_like"}
_COPYING = {"array", "ascontiguousarray", "astype", "copy", "copyto", "flatten", "ravel", "reshape"}


def nodes_of(recording: Any) -> list[Node]:
    """Return what was noted during a capture, in order."""
    return recording.__dict__.setdefault("_nodes", [])


def count(nodes: Sequence[Node]) -> Counter[str]:
    """Return how many kernels ("kernels"), products, copies and fills there are, and "bytes"."""
    names = {"KERNEL": "kernels", "MEMCPY": "copies", "MEMSET": "fills"}
    counted = Counter("products" if node.name == PRODUCT else names[node.kind] for node in nodes)
    counted["bytes"] = sum(node.bytes for node in nodes)
    return counted


def note(kind: str, name: str, size: int) -> None:
    """Keep in mind what the capture that is going on was given to do."""
    nodes_of(device.recording()).append(Node(kind, name, size))


def _arrays(values: Any) -> list[np.ndarray]:
    found = []
    for value in values:
        if isinstance(value, device.DeviceArray):
            found.append(value._host)
        elif isinstance(value, list | tuple):
            found += _arrays(value)
    return found


def _in_one_piece(source: np.ndarray, target: np.ndarray) -> bool:
    same = source.dtype == target.dtype and source.size == target.size
    flags = source.flags, target.flags
    return same and (
        all(f.c_contiguous for f in flags)
        or (source.shape == target.shape and all(f.f_contiguous for f in flags))
    )


def _watch_functions() -> None:
    call = device.Function.__call__

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        if not device.is_recording():
            return call(self, *arguments, **options)
        before = len(device.recording()._redo)
        result = call(self, *arguments, **options)
        if len(device.recording()._redo) > before:
            name, given = self.__name__, _arrays((*self._bound, *arguments))
            made = _arrays((result, options.get("out")))[:1]
            kind = "MEMSET" if name in _ZEROS else "KERNEL"
            target, source = (given[:1], given[1:2]) if name == "copyto" else (made, given[:1])
            if name in _COPYING and source and _in_one_piece(source[0], target[0]):
                kind = "MEMCPY"
            note(kind, name, sum(a.nbytes for a in given + made))
        return result

    device.Function.__call__ = watched


def _watch_indices() -> None:
    read, write = device.DeviceArray.__getitem__, device.DeviceArray.__setitem__

    def watched_reading(self: Any, key: Any) -> Any:
        if not device.is_recording():
            return read(self, key)
        before = len(device.recording()._redo)
        found = read(self, key)
        if len(device.recording()._redo) > before:
            indices = _arrays(key if isinstance(key, tuple) else (key,))
            note("KERNEL", "take", 2 * found.nbytes + sum(a.nbytes for a in indices))
        return found

    def watched_writing(self: Any, key: Any, value: Any) -> None:
        write(self, key, value)
        if not device.is_recording():
            return
        target, source = read(self, key)._host, _arrays((value,))
        if not source:
            fills = value == 0 and target.flags.c_contiguous
            note("MEMSET" if fills else "KERNEL", "fill", target.nbytes)
        else:
            alike = source[0].strides == target.strides and target.flags.c_contiguous
            copies = alike and _in_one_piece(source[0], target)
            note("MEMCPY" if copies else "KERNEL", "copy", source[0].nbytes + target.nbytes)

    device.DeviceArray.__getitem__ = watched_reading
    device.DeviceArray.__setitem__ = watched_writing


_watch_functions()
_watch_indices()
