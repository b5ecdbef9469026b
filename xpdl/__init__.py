"""xpdl: deep learning whole, on an array module chosen at run time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from xpdl import errors
from xpdl.arguments import real_dtype
from xpdl.backends import (
    Array,
    array_module,
    available_backends,
    backend_of,
    get_backend,
    use_backend,
)
from xpdl.precision import get_precision
from xpdl.version import __version__ as __version__

if TYPE_CHECKING:  # the rooms are opened when somebody asks for them
    from xpdl import (
        datasets,
        distributed,
        functions,
        initializers,
        layers,
        losses,
        measures,
        models,
        network,
        optimizers,
        plots,
        schedules,
        storage,
        training,
        tuning,
    )
    from xpdl.gradient import gradient_check, numerical_gradient
    from xpdl.layers import Input
    from xpdl.network import Network
    from xpdl.runs.classify import classify
    from xpdl.storage import load
    from xpdl.training import History, Step, Trainer

_ROOMS = (
    *("datasets", "distributed", "functions", "initializers", "layers", "losses", "measures"),
    *("models", "network", "optimizers", "plots", "schedules", "storage", "training", "tuning"),
)
_STANDS_IN = {
    "History": "training", "Input": "layers", "Network": "network", "Step": "training",
    "Trainer": "training", "classify": "runs.classify", "gradient_check": "gradient",
    "load": "storage", "numerical_gradient": "gradient",
}  # fmt: skip

__all__ = [
    "Array",
    "History",
    "Input",
    "Network",
    "Step",
    "Trainer",
    "array_module",
    "asarray",
    "available_backends",
    "backend_of",
    "classify",
    "datasets",
    "distributed",
    "errors",
    "functions",
    "get_backend",
    "gradient_check",
    "initializers",
    "layers",
    "load",
    "losses",
    "measures",
    "models",
    "network",
    "numerical_gradient",
    "optimizers",
    "plots",
    "schedules",
    "storage",
    "to_numpy",
    "training",
    "tuning",
    "use_backend",
]


def asarray(a: Any, dtype: Any = None) -> Array:
    """Return `a`, a host array, list or number, as an array of the active backend.

    An array keeps its type if `dtype` is None; Python floats become the float type of
    ``XPDL_DTYPE``, float32 by default.
    """
    array = get_backend().asarray(a, None if dtype is None else real_dtype("dtype", dtype))
    if dtype is None and not hasattr(a, "dtype") and array.dtype.kind == "f":
        return array.astype(get_precision().compute)
    return array


def to_numpy(a: Array) -> Array:
    """Return a host copy of `a`, from whatever backend it lives on.

    A number of NumPy's, as a sum of a host array is, becomes an array () like that of a device.
    """
    return np.array(a) if isinstance(a, np.generic) else backend_of(a).to_numpy(a)


def __getattr__(name: str) -> Any:
    """Open the room `name`, or the one that `name` stands in: `import xpdl` alone is quick."""
    if name in _ROOMS:
        return import_module(f"xpdl.{name}")
    if name in _STANDS_IN:
        found = getattr(import_module(f"xpdl.{_STANDS_IN[name]}"), name)
        globals()[name] = found  # so that it is looked for once
        return found
    raise AttributeError(f"module 'xpdl' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return what the package is for, without what it is written with."""
    return [*__all__, "__version__"]
