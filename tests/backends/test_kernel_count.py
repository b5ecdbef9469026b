"""How much a captured step gives a GPU to do: so many kernels, and so many bytes, and no more."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from rehearsal.counting import count

import xpdl
from xpdl.models import DeepConvNet

sys.path.append(str(Path(xpdl.__file__).parents[1]))  # the bench is not part of what is installed

from bench.programs import trainer_step

# At batch 100. Later work keeps them, or has fewer.
MOST = {
    "float32": {"kernels": 54, "products": 26, "copies": 0, "fills": 0, "bytes": 0},
    "float16": {"kernels": 52, "products": 23, "copies": 0, "fills": 0, "bytes": 0},
}


def captured(backend, step):
    """Return the nodes of a step's graph."""
    stream = backend.xp.cuda.Stream(non_blocking=True)
    backend.synchronize()
    with stream:
        stream.begin_capture()
        step()
        return stream.end_capture().nodes


@pytest.mark.parametrize("dtype", MOST)
def test_a_step_of_the_deep_network(rehearsed, dtype):
    with trainer_step(DeepConvNet, 100, rehearsed, dtype, captured=False) as step:
        step()
        nodes = captured(rehearsed, step)
    found = count(nodes)
    print(dtype, dict(found))
    assert all(found[what] <= most for what, most in MOST[dtype].items()), found
