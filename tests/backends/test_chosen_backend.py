"""What holds of every backend's arrays and primitives, once one is chosen."""

from __future__ import annotations

import numpy as np

import xpdl
from xpdl.backends import array_module, backend_of
from xpdl.backends.providers import PRIMITIVES


def test_an_array_knows_its_backend(backend):
    x = backend.asarray(np.zeros(3, np.float32))
    assert backend_of(x) is backend
    assert backend_of(None, 3, 2.5, [x], "x", x, x) is backend
    assert array_module(x) is backend.xp
    assert array_module(1, x) is backend.xp


def test_a_sum_comes_to_the_host_from_every_backend(backend):
    # NumPy gives a number of its own there, a device an array ().
    total = xpdl.to_numpy(backend.asarray(np.arange(4, dtype=np.float32)).sum())
    assert isinstance(total, np.ndarray)
    assert (total.shape, total.dtype, float(total)) == ((), np.float32, 6.0)


def test_each_primitive_names_the_backend_whose_code_it_is(backend):
    providers = backend.providers()
    assert tuple(providers) == PRIMITIVES
    for primitive, name in providers.items():
        owner = next(kind for kind in type(backend).__mro__ if primitive in vars(kind))
        assert name == (vars(owner).get("provider") or vars(owner).get("name", "generic"))
