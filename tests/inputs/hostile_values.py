"""Values of every kind that a caller may give by mistake, for each kind of argument.

An argument's `Kind` gives a valid value, and hostile ones that take its place. Each of these has a
verdict: `REFUSED`, an exception of xpdl; `SAME`, the result of the plain value; `EITHER`, one or
the other: an exception, or a result that is sound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpdl.backends import Backend, get_backend

REFUSED, SAME, EITHER = "refused", "same", "either"

NAN, INF = float("nan"), float("inf")
BEYOND = 10**400  # no float is as large
RAGGED = [[1.0, 2.0], [3.0]]


class Subclass(np.ndarray):
    """An array of a type of its own."""


@dataclass(frozen=True)
class Hostile:
    """A value, what to call it, and what should come of it.

    Attributes
    ----------
    plain : object
        Of a value that means the `SAME`, the valid value it should be as good as.
    finite : bool
        Whether all its numbers are.
    """

    label: str
    value: Any
    verdict: str = REFUSED
    plain: Any = None
    finite: bool = True


@dataclass(frozen=True)
class Made:
    """A value that is made anew for each call, since a call may change it."""

    make: Callable[[], Any]


@dataclass(frozen=True)
class Kind:
    """What an argument is: how to make a valid value of it, and the hostile ones for a backend."""

    valid: Callable[[Backend], Any]
    hostile: Callable[[Backend], Iterable[Hostile]]


def refused(*values: Any) -> list[Hostile]:
    return [Hostile(shown(value), value) for value in values]


def either(*values: Any) -> list[Hostile]:
    return [Hostile(shown(value), value, EITHER) for value in values]


def same(plain: Any, *values: Any) -> list[Hostile]:
    return [
        Hostile(f"{type(value).__name__} {shown(value)}", value, SAME, plain) for value in values
    ]


def shown(value: Any) -> str:
    """Return a short name of a value, the same in every run."""
    if type(value) is object:
        return "object()"
    if isinstance(value, np.ndarray):
        return f"array {value.shape} of {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    text = repr(value).replace(repr(BEYOND), "10**400").replace(str(10**30), "10**30")
    return text if len(text) < 40 else f"{text[:36]} ..."


def _constant(value: Any, hostile: list[Hostile], *, none: bool) -> Kind:
    """Return a kind of one value on the host; `none` says whether None is another."""
    given = [*hostile, Hostile("None", None, EITHER if none else REFUSED)]
    return Kind(lambda _: value, lambda _: given)


def junk() -> list[Any]:
    """Return what is neither a number, a name, a shape nor an array of numbers."""
    return [object(), {}, {"a": 1}, RAGGED, dict, 1j, np.array(["a"]), np.array([None])]


def number(value: float, *, none: bool = False) -> Kind:
    """Return the kind of a real number."""
    wrong = refused(*junk(), "text", "0.5", True, np.True_, NAN, [], [value], np.array([value] * 2))
    extreme = either(-1, -0.5, 0, -0.0, 1e-320, INF, -INF, 10**30, BEYOND, np.array(value))
    alike = same(value, np.float32(value), np.float64(value), np.float16(value))
    if value == int(value):
        alike += same(value, int(value), np.int8(value))
    return _constant(value, [*wrong, *extreme, *alike], none=none)


def whole(value: int, *, none: bool = False, more: list[Hostile] | None = None) -> Kind:
    """Return the kind of a whole number."""
    wrong = refused(*junk(), "text", "3", True, 1.5, NAN, INF, [], RAGGED, np.array([1, 2]))
    extreme = either(-1, 0, 2**33, 2**50, 10**30, BEYOND, np.array(value), float(value))
    alike = same(value, np.int64(value), np.uint8(value))
    return _constant(value, [*wrong, *extreme, *alike, *(more or [])], none=none)


def sides(value: Any, *, none: bool = False) -> Kind:
    """Return the kind of one whole number or two: height and width."""
    wrong = refused(
        *(*junk(), "text", "22", True, 1.5, NAN, INF, [], [1, 2, 3], (1.5, 1), (True, 1)),
        *(("a", "b"), (None, 1), np.ones((2, 2)), (NAN, NAN)),
    )
    extreme = either(-1, 0, (0, 0), (-1, 1), 2**33, 10**30, BEYOND, np.array([1, 1]))
    alike = []
    if isinstance(value, int):
        alike = same(value, np.int64(value), (value, value), [value, np.uint8(value)])
    return _constant(value, [*wrong, *extreme, *alike], none=none)


def flag(value: bool) -> Kind:
    """Return the kind of True or False."""
    wrong = refused(*junk(), "text", "False", 2, -1, 1.5, NAN, [], [True], np.array([True, False]))
    return _constant(value, [*wrong, *either(0, 1, 0.0), *same(value, np.bool_(value))], none=False)


def truth(value: bool) -> Kind:
    """Return the kind of a value of which only the truth counts, as in ``if train:``."""
    alike = [
        *same(True, 1, "text", [0], np.True_, 2.5),
        *same(False, 0, "", [], None, np.False_),
    ]
    return Kind(lambda _: value, lambda _: alike)


def name(value: str, *, none: bool = False, numbers: bool = False) -> Kind:
    """Return the kind of one of some names; `numbers` says whether a number will do as well."""
    wrong = refused(*junk(), "text", "", "\x00", "a" * 1000, True, NAN, [], [value], value.encode())
    extreme = (either if numbers else refused)(1.5, 0, -1, INF, 10**30, BEYOND)
    alike = same(value, type("Name", (str,), {})(value))
    return _constant(value, [*wrong, *extreme, *alike], none=none)


def shape(value: tuple[int, ...], *, least: int = 1, none: bool = False) -> Kind:
    """Return the kind of a shape of `least` axes at least."""
    wrong = (refused if least else either)([], ())
    wrong += refused(
        *(*junk(), "text", 1.5, NAN, (0,), (-1, *value[1:]), (1.5,), ("a",), (None,)),
        *((NAN,), (INF,), RAGGED, ((1, 2), (3, 4)), (True, *value[1:]), "12", b"ab", {1, 2}),
    )
    extreme = either(True, 2**50, (2**33,), (10**30,), (BEYOND,), (*value, 1), (1,) * 70)
    # Sizes that fit, but not into any memory.
    extreme += either((*value[:-1], 2**40))
    alike = same(value, list(value), np.array(value), tuple(map(np.int32, value)))
    return _constant(value, [*wrong, *extreme, *alike], none=none)


def dtype(value: str | None = None, *, none: bool = True) -> Kind:
    """Return the kind of a float policy."""
    wrong = refused(
        *(*junk(), "text", "", "int32", "complex64", int, complex, object, str, np.dtype("U3")),
        *(1.5, NAN, [], ["float32"], True, np.ones(2), np.int8, "f8,f4", "datetime64[s]"),
    )
    alike = same(value, np.float32, np.dtype("float32")) if value == "float32" else []
    return _constant(value, [*wrong, *either("float16", "float64"), *alike], none=none)


def rng() -> Kind:
    """Return the kind of a generator of random numbers on the host."""
    wrong = refused(*junk(), "text", 0, True, 1.5, NAN, [], np.random.Generator, np.ones(3))
    wrong += refused(np.random.RandomState(0))
    wrong = [*wrong, Hostile("None", None)]
    return Kind(lambda _: np.random.default_rng(0), lambda _: wrong)


def thing(
    make: Callable[[Backend], Any], *others: Any, none: bool = False, alike: Any = None
) -> Kind:
    """Return the kind of an object that must be of some class, with further wrong `others`."""
    wrong = refused(*junk(), "text", 0, True, 1.5, NAN, [], np.ones((2, 2)), *others)
    wrong += [Hostile("None", None, EITHER if none else REFUSED)]
    return Kind(make, lambda _: wrong)


# ---- arrays ------------------------------------------------------------------------------------


def array(
    host: Callable[[], np.ndarray[Any, Any]] | np.ndarray[Any, Any],
    *,
    lists: str = EITHER,
    kinds: str = "f",
    none: bool = False,
    dtype: str = "float32",
    elsewhere: str = REFUSED,
    numbers: str = REFUSED,
) -> Kind:
    """Return the kind of an array of real numbers.

    Parameters
    ----------
    host : array
        A valid one.
    lists : {REFUSED, SAME, EITHER}
        What becomes of nested lists.
    kinds : str
        The kinds of element types that are documented to serve; all others are refused.
    numbers : {REFUSED, EITHER}
        What becomes of True and NaN in place of an array.
    elsewhere : {REFUSED, EITHER}
        What becomes of an array of another backend; where no other array is, it decides.
    """
    made = np.asarray(host() if callable(host) else host)

    def valid(backend: Backend) -> Any:
        return backend.asarray(made.copy(), dtype=dtype)

    def hostile(backend: Backend) -> list[Hostile]:
        a = made.astype(dtype)
        wrong = [object(), {}, {"a": 1}, dict, "text", 1j, b"bytes", {1.0}]
        found = [*refused(*wrong), Hostile("True", True, numbers)]
        found += [Hostile("nan", NAN, numbers, finite=False), Hostile("a ragged list", RAGGED)]
        found += [Hostile("None", None, EITHER if none else REFUSED)]
        found += either(1.5, 3)
        found += [
            Hostile("an empty list", [], EITHER),
            Hostile("a list", a.tolist(), lists, a),
            Hostile("an array of another backend", _elsewhere(backend, a), elsewhere),
        ]
        on_device = [
            *_shapes(a, dtype),
            *_types(a, kinds, backend),
            *_contents(a, kinds),
            *_orders(a, backend),
        ]
        for entry in on_device:
            if isinstance(entry.value, np.ndarray) and entry.value.dtype.kind in "biuf":
                value = _put(backend, entry.value)
                entry = Hostile(entry.label, value, entry.verdict, entry.plain, entry.finite)
            found.append(entry)
        return found

    return Kind(valid, hostile)


def _put(backend: Backend, a: np.ndarray[Any, Any]) -> Any:
    """Return `a` on the backend, on the host with its memory order and type as they are."""
    if backend.owns(a):
        return a
    base = backend.asarray(np.ascontiguousarray(a), dtype=a.dtype)
    return base.reshape(a.shape)


def _elsewhere(backend: Backend, a: np.ndarray[Any, Any]) -> Any:
    return get_backend("strict").asarray(a) if backend.owns(a) else a


def _shapes(a: np.ndarray[Any, Any], dtype: Any) -> list[Hostile]:
    zero_d = np.ones((), dtype)
    found = [
        Hostile("a 0-d array", zero_d, EITHER),
        Hostile("an axis too many", a[..., None], EITHER),
        Hostile("an axis too many in front", a[None], EITHER),
        Hostile("64 axes", a.reshape((1,) * (64 - a.ndim) + a.shape), EITHER),
    ]
    if a.ndim:
        found += [
            Hostile("no examples", a[:0], EITHER),
            Hostile("no columns", a[..., :0], EITHER),
            Hostile("one example more", np.concatenate([a, a[:1]]), EITHER),
            Hostile("one column less", a[..., 1:], EITHER),
            Hostile("one column more", np.concatenate([a, a[..., :1]], axis=-1), EITHER),
            Hostile("flat", a.reshape(-1), EITHER),
        ]
    return found


def _types(a: np.ndarray[Any, Any], kinds: str, backend: Backend) -> list[Hostile]:
    found = []
    for type_ in ("bool", "int8", "int64", "uint64", "float16", "float32", "float64"):
        if a.dtype != type_:
            verdict = EITHER if np.dtype(type_).kind in kinds else REFUSED
            found.append(Hostile(f"dtype {type_}", _converted(a, type_), verdict))
    if np.longdouble != np.float64 and isinstance(backend.xp.float32, type) and backend.owns(a):
        found.append(Hostile("dtype longdouble", a.astype(np.longdouble), EITHER))
    for type_ in ("complex64", "U8", "S8", "object"):
        found.append(Hostile(f"dtype {type_}", a.astype(type_)))
    found.append(Hostile("dtype datetime64", np.zeros(a.shape, "datetime64[s]")))
    found.append(Hostile("dtype structured", np.zeros(a.shape, [("a", "f4"), ("b", "i4")])))
    return found


def _converted(a: np.ndarray[Any, Any], type_: str) -> np.ndarray[Any, Any]:
    return np.abs(a).astype(type_)


def _contents(a: np.ndarray[Any, Any], kinds: str) -> list[Hostile]:
    found = []
    if a.dtype.kind == "f" and a.size:
        for number_ in (NAN, INF, -INF):
            changed = a.copy()
            changed.reshape(-1)[-1] = number_
            found.append(Hostile(f"holding {number_}", changed, EITHER, finite=False))
        found.append(Hostile("numbers of 1e300", np.full(a.shape, 1e300), EITHER, finite=False))
        found.append(Hostile("numbers of 1e30", np.full(a.shape, 1e30, "f4"), EITHER, finite=False))
        found.append(Hostile("numbers of -1e4", np.full(a.shape, -1e4, a.dtype), EITHER))
        found.append(Hostile("zeros", np.zeros_like(a), EITHER))
    elif a.dtype.kind in "iu":
        for number_ in (-1, 10**6, 2**62):
            changed = a.astype("int64")
            changed.reshape(-1)[-1] = number_
            found.append(Hostile(f"holding {number_}", changed, EITHER))
        huge = a.astype("uint64")
        huge.reshape(-1)[-1] = 2**64 - 1
        found.append(Hostile("holding 2**64 - 1", huge, EITHER))
    return found


def _orders(a: np.ndarray[Any, Any], backend: Backend) -> list[Hostile]:
    """Return the same numbers lying otherwise in memory."""
    if not a.ndim:
        return []
    wide = np.full((*a.shape[:-1], 2 * a.shape[-1]), 99, a.dtype)
    wide[..., ::2] = a
    backward, turned = a[::-1].copy("C"), a.T.copy("C")
    found = {
        "every other number of a buffer": backend.asarray(wide)[..., ::2],
        "backwards in memory": backend.asarray(backward)[::-1],
        "Fortran order": backend.asarray(turned).transpose(),
    }
    if backend.owns(a):
        still = a.copy()
        still.flags.writeable = False
        found |= {
            "read-only": still,
            "unaligned": np.frombuffer(bytearray(b"\0" + a.tobytes()), a.dtype, offset=1).reshape(
                a.shape
            ),
            "a subclass": a.copy().view(Subclass),
            "the other byte order": a.astype(a.dtype.newbyteorder()),
        }
    return [Hostile(label, value, SAME, a) for label, value in found.items()]
