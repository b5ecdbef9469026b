"""Every public callable, given values of every kind for each of its arguments.

Each call either works as documented or raises an exception of `xpdl.errors` before it has changed
anything. What is called lies in `calls_of_layers`, `calls_of_functions`, `calls_of_networks` and
`calls_of_data`; what is given in `hostile_values`; how it is judged in `verdicts`.

The messages are for people. To read them all, as a table::

    pytest -rP tests/inputs -k table
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from calls_of_data import DATA_CALLS
from calls_of_functions import FUNCTION_CALLS
from calls_of_layers import LAYER_CALLS
from calls_of_networks import NETWORK_CALLS
from verdicts import Findings, examine

import xpdl
from xpdl import (
    datasets,
    functions,
    gradient,
    initializers,
    layers,
    losses,
    models,
    optimizers,
    schedules,
)
from xpdl.backends import Backend
from xpdl.datasets import Batches
from xpdl.layers import Layer
from xpdl.network import Network
from xpdl.training import step
from xpdl.tuning import Ensemble, ShiftAverage

TABLE = (*LAYER_CALLS, *FUNCTION_CALLS, *NETWORK_CALLS, *DATA_CALLS)
CALLS = {call.name: call for call in TABLE}

# Of a device or of compiled code, every so many of the cases, other ones for each call.
SELDOM = {"numba": 5, "strict": 3, "cupy-on-cpu": 12}


@cache
def findings(name: str) -> Findings:
    """Return what came of a call on NumPy's arrays."""
    with xpdl.use_backend("numpy") as backend, pytest.MonkeyPatch.context() as patch:
        # Other tests make layers of their own, whose names would stand in messages.
        ours = {name: kind for name, kind in Layer.classes.items() if is_ours(kind)}
        patch.setattr(Layer, "classes", ours)
        return examine(CALLS[name], backend)


def is_ours(kind: type) -> bool:
    return kind.__module__.startswith("xpdl.")


@pytest.mark.parametrize("name", CALLS)
def test_every_kind_of_value_works_or_is_refused(name: str) -> None:
    failures = findings(name).failures
    assert not failures, "\n".join(["", *failures])


# What takes arrays, or makes them.
WITH_ARRAYS = ("forward", "backward", ".update", "Network.", "(x, gen", "Affine(W", "Convolution(W")
WITH_ARRAYS += ("Batches", "Step(x", "two outputs", "gradient_", "cross_", "sum_sq")
ON_ARRAYS = [
    name for name in CALLS if name in dir(functions) or any(part in name for part in WITH_ARRAYS)
]


@pytest.mark.parametrize("backend", SELDOM, indirect=True)
def test_arrays_of_other_backends(backend: Backend, request: pytest.FixtureRequest) -> None:
    seldom = SELDOM[request.node.callspec.params["backend"]]
    failures = []
    for first, name in enumerate(ON_ARRAYS):
        failures += examine(CALLS[name], backend, seldom, first).failures
    assert not failures, "\n".join(["", *failures])


# ---- nothing is forgotten ------------------------------------------------------------------------

# Where the names that a person may use stand; a module without `__all__` has its own.
MODULES = (datasets, functions, gradient, initializers, layers, models, optimizers, schedules)
MODULES += (losses, step)
VERBS = (Batches, Network, Ensemble, ShiftAverage)
NO_CALLS = {
    # Data, and types of it.
    "CLASS_NAMES", "DATA_SETS", "MODELS", "FileStatus", "MnistArrays", "CifarArrays",
    "PictureData", "BY_NAME", "PRETRAINED",
    # Fetches what is large; its own tests try its arguments.
    "pretrained",
    # What checks the arguments of others.
    "check_distributions", "check_labels", "check_targets", "window_counts",
    # Bases, whose calls are those of what derives from them.
    "Augmentation", "Layer", "Loss",
    # Take nothing, or what Network.config or Ensemble.save made.
    "Network.config", "Network.arrays", "Network.forget", "Network.random_state", "Ensemble.save",
    "Network.host_arrays", "Network.as_layer", "Network.leaves", "Network.settings",
    "Batches.first", "Batches.arrays",
    # What a layer called on nodes makes.
    "Node",
    # For a step, which has looked at its batch before.
    "Network.propagate", "Network.mean_loss", "Network.decayed", "Network.decay_gradients",
    "Network.loss_weight",
    # For a `with` block within the others.
    "Network.explaining_memory",
}  # fmt: skip


# False would ask the network.
UNTRIED = {"read_mnist": ["offline"], "load": ["offline"], "read_cifar10": ["offline"]}
UNTRIED |= {"StoredPictures": ["source"], "Network.asarray": ["argument"]}  # any text
UNTRIED |= {"Batches.parts": ["rows"], "Batches.in_order": ["part"]}  # of a rank, as it says itself


def public_names() -> Iterable[str]:
    for module in MODULES:
        yield from getattr(module, "__all__", None) or own_names(module)
    for kind in VERBS:
        for name, _ in inspect.getmembers(kind, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{kind.__name__}.{name}"


def own_names(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__ == module.__name__
    ]


def test_every_public_name_is_called() -> None:
    # "Affine of images.forward" is a call of Affine, "He(...).draw" one of He.
    whole = {name.split(" ")[0].split("(")[0] for name in CALLS}
    called = whole | {part for name in whole for part in name.split(".")}
    assert len(CALLS) == len(TABLE)  # no name stands for two
    forgotten = [name for name in public_names() if name not in called | NO_CALLS]
    assert not forgotten, f"give these a Call in tests/inputs: {', '.join(forgotten)}"


def test_every_layer_is_built_and_passed_through() -> None:
    kinds = [kind for kind in vars(layers).values() if inspect.isclass(kind)]
    for kind in kinds:
        if issubclass(kind, layers.Layer) and kind is not layers.Layer:
            for verb in ("build", "forward", "backward"):
                assert f"{kind.__name__}.{verb}" in CALLS


def test_every_argument_is_replaced() -> None:
    """A parameter that a constructor or a function has is an argument of its call."""
    lacking = []
    for name, call in CALLS.items():
        called = getattr_of(name)
        if not callable(called):
            continue
        parameters = inspect.signature(called).parameters.values()
        wanted = {
            p.name
            for p in parameters
            if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name != "self"
        }
        wanted -= {*call.arguments, *UNTRIED.get(name, ())}
        if wanted:
            lacking.append(f"{name}: {', '.join(sorted(wanted))}")
    assert not lacking, "\n".join(["", *lacking])


def getattr_of(name: str) -> Any:
    """Return the function or class of that very name."""
    first, _, verb = name.partition(".")
    for module in (*MODULES, xpdl):
        found = getattr(module, first, None)
        if found is not None:
            return getattr(found, verb, None) if verb else found
    return None


def test_every_excuse_is_needed() -> None:
    given = {where for call in CALLS.values() for where in call.documented}
    needed = {where for name in CALLS for where in findings(name).excused}
    assert not given - needed


# ---- what a person reads -------------------------------------------------------------------------


def test_the_table_of_messages() -> None:
    """Print, for each call and argument, each message once, with what was given first."""
    answers = [answer for name in CALLS for answer in findings(name).answers]
    rows: dict[tuple[str, str, str], tuple[str, str]] = {}
    for answer in answers:
        plain = answer.message.partition(", got")[0].partition("; got")[0]
        rows.setdefault((answer.name, answer.argument, plain), (answer.given, answer.message))
    for (name, argument, _), (given, message) in rows.items():
        print(f"{name:<32.32} {argument:<14.14} {given:<28.28} {message}")
    cases = sum(findings(name).cases for name in CALLS)
    print(f"{len(CALLS)} calls, {cases:,} cases, {len(answers):,} errors, {len(rows):,} messages")
    assert len(rows) > 500
