"""What a captured step is made of: kernels, copies and fills that a GPU is given at each replay."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from xpdl.backends import Backend
from xpdl.backends.cupy.capture import WARM_UP

_VERBOSE = 1  # cudaGraphDebugDotFlagsVerbose: a node's label begins with its kind
_KINDS = {"KERNEL": "kernels", "MEMCPY": "copies", "MEMSET": "fills"}


def count_nodes(backend: Backend, step: Callable[[], Any]) -> Counter[str]:
    """Return how many "kernels", "copies" and "fills" the graph of a step has.

    Matrix products are kernels too. The graph is never launched.

    Parameters
    ----------
    step : callable
        Does one step as it stands, such as `bench.programs.trainer_step` gives it; it is called
        three times.
    """
    for _ in range(WARM_UP):
        step()
    backend.synchronize()
    stream = backend.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        try:
            step()
        finally:
            graph = stream.end_capture()
    return count_kinds(graph)


def count_kinds(graph: Any) -> Counter[str]:
    """Return how many nodes of each kind a graph of CuPy's has."""
    kinds = re.findall(r'label="\{\s*([A-Z_]+)', graph.debug_dot_str(_VERBOSE))
    return Counter(_KINDS.get(kind, kind.lower()) for kind in kinds)


def nodes_in_words(nodes: Counter[str]) -> str:
    """Return a count of nodes in one line."""
    return ", ".join(f"{nodes[kind]} {kind}" for kind in dict.fromkeys([*_KINDS.values(), *nodes]))
