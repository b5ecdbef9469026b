"""One call with one argument replaced: what comes of it, and whether that may be."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from hostile_values import REFUSED, SAME, Hostile, Kind, Made

from xpdl.backends import Backend, backend_of
from xpdl.errors import (
    BackendMismatchError,
    DeviceMemoryError,
    DeviceRuleError,
    ShapeError,
    XpdlError,
)
from xpdl.layers.kept import Kept
from xpdl.network import Network

SECONDS = 1.0
"""What no case may take, of this process's own time."""


@dataclass(frozen=True)
class Call:
    """A public callable, its arguments, and what else is to be looked at.

    Attributes
    ----------
    name : str
        What the table calls it.
    arguments : dict of str to Kind
    call : callable
        ``call(subject, **arguments)``.
    subject : callable
        Makes, on a backend, the object that is asked; a new one for each case.
    use : callable, optional
        Tries out what a constructor made of a value that it did not refuse.
    words : dict of str to str
        What messages call an argument, where that is not its name.
    documented : dict of str to str
        Of a case that ends otherwise than its verdict says, "argument: label", the reason.
    on_device : dict of str to str
        The same, of other backends than NumPy's, which do not look at values.
    """

    name: str
    arguments: Mapping[str, Kind]
    call: Callable[..., Any]
    subject: Callable[[Backend], Any] = lambda backend: None
    use: Callable[[Backend, Any], object] | None = None
    words: Mapping[str, str] = field(default_factory=dict)
    documented: Mapping[str, str] = field(default_factory=dict)
    on_device: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A row of the table: an error of xpdl and how it came about."""

    name: str
    argument: str
    given: str
    error: str
    message: str


@dataclass
class Findings:
    """What came of a call: how many cases, the errors they ended in, and what must not be.

    `excused` are the cases that would be failures, but are documented.
    """

    cases: int = 0
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)


def examine(call: Call, backend: Backend, seldom: int = 1, first: int = 0) -> Findings:
    """Give each argument of a call its hostile values, or every `seldom`-th from `first` on."""
    found = Findings()
    _attempt(call, backend, "", Hostile("valid", None), found)
    number = first
    for argument, kind in call.arguments.items():
        for hostile in kind.hostile(backend):
            number += 1
            if number % seldom == 0:
                _attempt(call, backend, argument, hostile, found)
    return found


def _attempt(
    call: Call, backend: Backend, argument: str, hostile: Hostile, found: Findings
) -> None:
    found.cases += 1
    given = {name: kind.valid(backend) for name, kind in call.arguments.items()}
    if argument:
        given[argument] = _value(hostile.value)

    def fail(text: str) -> None:
        where = f"{argument}: {hostile.label}" if argument else "as it should be called"
        if where in call.on_device and backend.xp is not np:
            return
        if where in call.documented:
            found.excused.add(where)
        else:
            found.failures.append(f"{call.name}, {where}: {text}")

    subject = call.subject(backend)
    before = facts((subject, given))
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = call.call(subject, **given)
    except XpdlError as error:
        # The rules of a device stop in the middle what a device would go through with.
        ruled = isinstance(error, DeviceRuleError)
        if facts((subject, given)) != before and not ruled:
            fail(f"changed something, then raised {type(error).__name__}: {error}")
        if not argument or hostile.verdict == SAME:
            fail(f"was refused: {type(error).__name__}: {error}")
        for complaint in complaints(str(error), call.words.get(argument, argument), error):
            fail(f"{complaint}: {error}")
        found.answers.append(
            Answer(call.name, argument, hostile.label, type(error).__name__, str(error))
        )
    except RuntimeWarning as warning:
        # NumPy's own word on numbers that are not finite, or not in the type they are wanted in.
        if hostile.finite or " encountered in " not in str(warning):
            fail(f"RuntimeWarning: {warning}")
    except Exception as error:
        fail(f"{type(error).__name__}: {error}"[:300])
    else:
        _judge(call, backend, argument, hostile, (subject, given, result), before, fail)
    # The first time something may be compiled.
    if (taken := time.process_time() - start) > SECONDS and argument:
        fail(f"took {taken:.1f} s")


def _judge(
    call: Call,
    backend: Backend,
    argument: str,
    hostile: Hostile,
    outcome: tuple[Any, dict[str, Any], Any],
    before: Any,
    fail: Callable[[str], None],
) -> None:
    """Look at what a call returned."""
    subject, _, result = outcome
    if argument and hostile.verdict == REFUSED:
        fail(f"was taken, and gave a {type(result).__name__}")
        return
    if hostile.finite and not all(map(_finite, _arrays(result))):
        fail("gave numbers that are not finite")
    if argument and hostile.verdict == SAME:
        plain = {name: kind.valid(backend) for name, kind in call.arguments.items()}
        value = _value(hostile.plain)
        plain[argument] = backend.asarray(value.copy()) if isinstance(value, np.ndarray) else value
        other = call.subject(backend)
        if not alike(facts((subject, result)), facts((other, call.call(other, **plain)))):
            fail("gave another result than its plain equivalent")
    if call.use is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                call.use(backend, result)
        except (ShapeError, DeviceMemoryError, DeviceRuleError):
            pass  # said before anything is computed, or what only a GPU would do
        except RuntimeWarning as warning:
            if " encountered in " not in str(warning) or hostile.verdict == SAME or not argument:
                fail(f"was taken, and in use: RuntimeWarning: {warning}")
        except Exception as error:
            fail(f"was taken, and in use: {type(error).__name__}: {error}"[:300])


def _value(value: Any) -> Any:
    return value.make() if isinstance(value, Made) else value


def complaints(message: str, argument: str, error: Exception) -> Iterator[str]:
    """Yield what a person would have against a message."""
    # These say which two arrays by their backends, and what an operation would do on a GPU.
    unnamed = isinstance(error, BackendMismatchError | DeviceRuleError)
    if argument and not unnamed and not re.search(rf"\b({argument})\b", message):
        yield f"does not name {argument}"
    if not message.endswith((".", "?")):
        yield "is no sentence"
    if len(re.findall(r"[.!?](?=\s+[A-Z]|$)", message)) > 2:
        yield "is more than two sentences"
    if len(re.sub("the choices are [^.]*", "", message)) > 330 or "\n" in message:
        yield "is too long"
    cryptic = re.search(
        r"0x[0-9a-f]{6}|ufunc|operand|broadcast|has no attribute|unhashable|<class|not iterable|"
        r"unsupported|not supported between|unexpected keyword|np\.|positional",
        message,
    )
    if cryptic:
        yield f"is cryptic ({cryptic.group()})"


# ---- what a thing is, to compare it with what it was or should be --------------------------------


def facts(value: Any, seen: set[int] | None = None) -> Any:
    """Return a description of a value and all that it holds, arrays by their bytes."""
    if value is None or isinstance(value, str | bytes | type):
        return value
    if isinstance(value, int | float | complex) and not isinstance(value, np.generic):
        return ("number", repr(value))
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return _array_facts(value)
    if isinstance(value, Backend):
        return ("backend", value.name)
    if isinstance(value, np.random.Generator):
        return ("generator", repr(value.bit_generator.state))
    seen = set() if seen is None else seen
    if id(value) in seen:
        return "again"
    seen.add(id(value))
    if isinstance(value, Network):
        return ("network", _network_facts(value))
    if isinstance(value, Mapping):
        return ("mapping", {repr(k): facts(v, seen) for k, v in value.items()})
    if isinstance(value, tuple | list | set | frozenset):
        return ("items", [facts(v, seen) for v in value])
    if type(value).__module__.startswith("xpdl.") and hasattr(value, "__dict__"):
        kept = _scratch(type(value))
        # When a node was born says in which order they were, and is another each time.
        held = {k: v for k, v in vars(value).items() if k not in kept | {"born"}}
        return (type(value).__name__, {k: facts(v, seen) for k, v in held.items()})
    return type(value).__name__


@cache
def _scratch(kind: type) -> set[str]:
    """Return where objects of a class keep what lives from a forward pass to the next."""
    return {f"_{k}" for c in kind.__mro__ for k, v in vars(c).items() if isinstance(v, Kept)}


def _network_facts(network: Network) -> Any:
    held = [network.parameters.values, network.parameters.gradients, network.parameters.compute]
    leaves = [
        (leaf.frozen, leaf.relu, leaf.owned, getattr(leaf, "_generators", None))
        for _, leaf in network.body.leaves()
    ]
    return [repr(network.config()), facts(network.state), facts(leaves)] + [
        facts(arrays.buffer) for arrays in held
    ]


def _array_facts(a: Any) -> Any:
    host = np.asarray(a) if isinstance(a, np.ndarray | np.generic) else backend_of(a).to_numpy(a)
    if host.dtype.hasobject:
        return ("array", str(host.dtype), host.shape, repr(host.tolist()))
    native = host.astype(host.dtype.newbyteorder("="))
    return ("array", native.dtype.name, native.shape, native.tobytes())


def alike(a: Any, b: Any) -> bool:
    """Tell whether two descriptions are equal, but for the rounding of floats."""
    if type(a) is not type(b):
        return False
    if isinstance(a, tuple) and len(a) == 4 and a[0] == b[0] == "array":
        if a[1:3] != b[1:3]:
            return False
        if not a[1].startswith("float"):
            return a[3] == b[3]
        left, right = (np.frombuffer(v[3], v[1]) for v in (a, b))
        scale = max(1.0, float(np.abs(right[np.isfinite(right)]).max(initial=0)))
        return bool(np.allclose(left, right, rtol=1e-4, atol=1e-5 * scale, equal_nan=True))
    if isinstance(a, tuple) and len(a) == 2 and a[0] == b[0] == "number":
        if a[1] == b[1]:
            return True
        try:
            return math.isclose(float(a[1]), float(b[1]), rel_tol=1e-3, abs_tol=1e-6)
        except ValueError:
            return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(a[k], b[k]) for k in a)
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _arrays(value: Any) -> Iterator[Any]:
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _arrays(part)
    elif isinstance(value, float):
        yield np.asarray(value)


def _finite(a: Any) -> bool:
    if a.dtype.kind != "f":
        return a.dtype.kind in "biu"
    host = a if isinstance(a, np.ndarray | np.generic) else backend_of(a).to_numpy(a)
    return bool(np.isfinite(host).all())
