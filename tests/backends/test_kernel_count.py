"""How much a captured step gives a GPU to do: so many kernels, so many bytes, and no more."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rehearsal import counting

import xpdl
from xpdl.models import DeepConvNet

sys.path.append(str(Path(xpdl.__file__).parents[1]))  # the bench is not part of what is installed

from bench.graph_nodes import count_kinds, count_nodes, nodes_in_words
from bench.programs import whole_step

# Of a step of DeepConvNet at batch 100, from the choice of its examples to the notes on it. What
# comes later keeps them, or has fewer.
MOST = {
    "float32": {"kernels": 61, "products": 26, "copies": 1, "fills": 0, "bytes": 830_400_000},
    "float16": {"kernels": 63, "products": 23, "copies": 2, "fills": 0, "bytes": 419_200_000},
}


def nodes_of(backend, step):
    """Return the nodes of a step's graph."""
    stream = backend.xp.cuda.Stream(non_blocking=True)
    backend.synchronize()
    with stream:
        stream.begin_capture()
        step()
        return stream.end_capture().nodes


@pytest.mark.parametrize("dtype", MOST)
def test_a_step_of_the_deep_network(rehearsed, dtype):
    with whole_step(DeepConvNet, 100, rehearsed, dtype) as step:
        step()
        found = counting.count(nodes_of(rehearsed, step))
    assert all(found[what] <= most for what, most in MOST[dtype].items()), found


def test_what_is_counted(rehearsed):
    xp = rehearsed.xp
    a, b = xp.ones((4, 6), np.float32), xp.ones((6, 4), np.float32)
    row = xp.ones(6, np.float32)

    def step():
        a[...] = a * 2  # a kernel, and a copy of what it made
        a[...] = b.T  # a kernel, since the numbers lie in another order
        row[...] = 0
        row[...] = 1  # a kernel
        b.reshape(4, 6)  # nothing to do
        b.T.reshape(2, 12)  # a kernel
        rehearsed.matmul(a, b)
        rehearsed.sum(a, axis=0)
        xp.zeros(3, np.float32)

    found = nodes_of(rehearsed, step)
    assert counting.count(found[:2]) == {"kernels": 1, "copies": 1, "bytes": 4 * 24 * 4}
    counted = counting.count(found)
    assert counted.pop("bytes") == sum(node.bytes for node in found)
    assert counted == {"kernels": 5, "copies": 1, "fills": 2, "products": 1}
    assert [node.name for node in found][-4:-1] == ["reshape", "product", "sum_rows"]


def test_the_bench_counts_the_nodes_of_a_graph(rehearsed):
    a = rehearsed.xp.ones((4, 4), np.float32)
    calls = []

    def step():
        calls.append(None)
        a[...] = 0
        a[...] = rehearsed.matmul(a, rehearsed.relu(a))

    nodes = count_nodes(rehearsed, step)
    assert nodes == {"kernels": 2, "copies": 1, "fills": 1}
    assert nodes_in_words(nodes) == "2 kernels, 1 copies, 1 fills"
    assert len(calls) == 3
    assert nodes_in_words(nodes + Counter(host=1)) == "2 kernels, 1 copies, 1 fills, 1 host"


def test_the_bench_reads_what_cuda_prints():
    """As CUDA's graphs print themselves: a node's kind begins its label."""

    class Graph:
        def debug_dot_str(self, flags):
            assert flags == 1
            return (
                'digraph dot {\nsubgraph cluster_1 {\nlabel="graph_1" graph[style="dashed"];\n'
                '"graph_1_node_0"[style="bold" shape="record" label="{KERNEL\n'
                '| {ID | 0 (topoId: 3) | add_bias\\<\\<\\<1,128,0\\>\\>\\>}\n}"];\n'
                '"graph_1_node_1"[style="solid" shape="record" label="{\nMEMSET\n| {{ID}}\n}"];\n}'
            )

    assert count_kinds(Graph()) == Counter(kernels=1, fills=1)
