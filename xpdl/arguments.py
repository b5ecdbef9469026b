"""Checks of arguments: each error names the argument, what it got and what it wants."""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from xpdl.errors import ArgumentError, DTypeError, NonFiniteError, ShapeError, shown

LARGEST = 10**9
"""No layer has more units, and no sample more numbers along an axis."""
MOST_AXES = 32

Construct = TypeVar("Construct", bound=Callable[..., None])


def whole_number(argument: str, value: object, least: int = 1, most: int | None = None) -> int:
    """Return `value` as an int of at least `least`; NumPy's integers will do.

    Raises
    ------
    ArgumentError
        If it is none, or above `most`.
    """
    if isinstance(value, Integral) and not isinstance(value, bool):
        found = int(value)
        if found >= least and (most is None or found <= most):
            return found
    wanted = f"of at least {least}" if most is None else f"from {least} to {most:,}"
    raise ArgumentError(f"{argument} must be an int {wanted}, got {shown(value)}.")


def number(
    argument: str,
    value: object,
    *,
    least: float = 0.0,
    above: float | None = None,
    below: float = math.inf,
) -> float:
    """Return `value` as a float in [least, below), or in (above, below) if `above` is given.

    Raises
    ------
    ArgumentError
        If it is no number, or not in that range.
    """
    if isinstance(value, Real) and not isinstance(value, bool):
        try:
            found = float(value)
        except OverflowError:  # an int that no float is as large as
            found = math.nan
        if (found >= least if above is None else found > above) and found < below:
            return found
    lower = f"of at least {least:g}" if above is None else f"above {above:g}"
    bounds = [bound for bound in (lower,) if not bound.endswith("-inf")]
    bounds += [f"below {below:g}"] if below < math.inf else []
    wanted = f"a number {' and '.join(bounds)}" if bounds else "a finite number"
    raise ArgumentError(f"{argument} must be {wanted}, got {shown(value)}.")


def one_number(argument: str, value: Any) -> Any:
    """Return `value`, if it is a finite number, or an array () of some backend.

    Raises
    ------
    ArgumentError
        If it is neither.
    """
    if not hasattr(value, "dtype") or isinstance(value, np.generic):
        return number(argument, value, above=-math.inf)
    if real_array(argument, value, "iuf").shape:
        raise ShapeError(f"{argument} must be a number or an array (), got shape {value.shape}.")
    return value


def flag(argument: str, value: object) -> bool:
    """Return `value` as a bool, if it is True or False, or the 1 or 0 that stands for it.

    Raises
    ------
    ArgumentError
        If it is none; so that the text "False" is not taken for true.
    """
    if isinstance(value, bool | np.bool_ | Integral) and value in (0, 1):
        return bool(value)
    raise ArgumentError(f"{argument} must be True or False, got {shown(value)}.")


def one_of(argument: str, value: object, choices: Sequence[str]) -> str:
    """Return `value`, if it is one of the texts `choices`.

    Raises
    ------
    ArgumentError
        If it is none of them.
    """
    if isinstance(value, str) and value in choices:
        return choices[choices.index(value)]
    wanted = " or ".join(map(repr, choices))
    raise ArgumentError(f"{argument} must be {wanted}, got {shown(value)}.")


def path_of(argument: str, value: object) -> Path:
    """Return `value`, the name of a file or a folder, as a path.

    Raises
    ------
    ArgumentError
        If it is none, or an empty one.
    """
    if isinstance(value, str | os.PathLike) and isinstance(os.fspath(value), str) and str(value):
        return Path(value)
    raise ArgumentError(f"{argument} must be the name of a file or folder, got {shown(value)}.")


def sizes(argument: str, value: object, axes: int = 1) -> tuple[int, ...]:
    """Return a shape, an int or several, `axes` of them at least, as a tuple of ints.

    Raises
    ------
    ArgumentError
        If it is none, or has more axes, or longer ones, than an array can have.
    """
    if isinstance(value, Integral):
        value = (value,)
    listed = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim)
    given: tuple[Any, ...] = tuple(value) if listed else ()  # type: ignore[arg-type]
    whole = all(isinstance(n, Integral) and not isinstance(n, bool) for n in given)
    if not listed or not whole or len(given) < axes or isinstance(value, str | bytes):
        raise ArgumentError(f"{argument} must be ints such as (1, 28, 28), got {shown(value)}.")
    if not all(1 <= n <= LARGEST for n in given) or len(given) > MOST_AXES:
        raise ArgumentError(
            f"{argument} must be at most {MOST_AXES} sizes from 1 to {LARGEST:,}, "
            f"got {shown(value)}."
        )
    return tuple(int(n) for n in given)


def real_array(argument: str, a: Any, kinds: str = "biuf") -> Any:
    """Return `a`, if it is an array of real numbers, of any backend.

    Parameters
    ----------
    kinds : str
        The kinds of element types that will do, as NumPy names them: "f" for floats alone.

    Raises
    ------
    DTypeError
        If it is not.
    """
    expect_array(argument, a)
    if a.dtype.kind not in kinds:
        wanted = "floats" if kinds == "f" else "real numbers"
        raise DTypeError(f"{argument} must hold {wanted}, got dtype {a.dtype}.")
    return a


def expect_array(argument: str, a: Any) -> None:
    """See that `a` is an array of NumPy or CuPy, and not of another library.

    Raises
    ------
    DTypeError
        If it is not.
    """
    if isinstance(getattr(a, "dtype", None), np.dtype) and hasattr(a, "strides"):
        return
    if hasattr(a, "dtype") and hasattr(a, "shape"):
        library = type(a).__module__.partition(".")[0]
        dense = "a.toarray()" if hasattr(a, "toarray") else "numpy.asarray(a)"
        raise DTypeError(
            f"{argument} must be an array of NumPy or CuPy, got a {type(a).__name__} of {library}; "
            f"{dense} makes one."
        )
    raise DTypeError(
        f"{argument} must be an array, got {shown(a)}; make one with xpdl.asarray(...)."
    )


def array_or_list(argument: str, a: Any, asarray: Callable[[Any], Any]) -> Any:
    """Return `a` as it is, if it is an array; of a number or nested lists, what `asarray` makes.

    Raises
    ------
    ArgumentError, DTypeError, ShapeError
        If they hold no numbers, or have rows of several lengths.
    """
    if hasattr(a, "dtype"):
        expect_array(argument, a)
        return a
    try:
        return asarray(a)
    except ArgumentError as error:
        raise type(error)(
            f"{argument} must be an array, or a rectangular list of numbers, got {shown(a)}."
        ) from error


def real_dtype(argument: str, dtype: Any) -> np.dtype[Any]:
    """Return a type of real numbers, given as NumPy takes it.

    Raises
    ------
    DTypeError
        If it is none.
    """
    try:
        found = None if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        found = None
    if found is None or found.kind not in "biuf":
        raise DTypeError(f"{argument} must be a type such as 'float32', got {shown(dtype)}.")
    return found


def random_numbers(argument: str, rng: object) -> np.random.Generator:
    """Return `rng`, if it is a generator of random numbers on the host.

    Raises
    ------
    ArgumentError
        If it is none.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    raise ArgumentError(f"{argument} must be a numpy.random.Generator, got {shown(rng)}.")


def expect_network(argument: str, value: object) -> None:
    """See that `value` is a network: what computes a loss and its gradients.

    Raises
    ------
    ArgumentError
        If it is none, or the class of one.
    """
    if isinstance(value, type) or not hasattr(value, "forward_backward"):
        raise ArgumentError(f"{argument} must be a Network, got {shown(value)}.")


def check_writable(argument: str, a: Any) -> None:
    """See that the array `a` can be changed; those of a device always can.

    Raises
    ------
    ArgumentError
        If it is read-only.
    """
    if isinstance(a, np.ndarray) and not a.flags.writeable:
        raise ArgumentError(f"{argument} is read-only and would be changed; give a copy of it.")


def plainly(error: Exception) -> str:
    """Return what Python says of a call that does not fit a class, without its own words for it."""
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    text = re.sub(r"^[\w.]+\(\) |\.?__init__\(\) ?", "", str(error))
    text = re.sub("^takes", "it takes", text).replace(
        "got an unexpected keyword argument", "there is no option"
    )
    return re.sub(r"missing \d+ required \S+ arguments?:", "it lacks", text)


def on_host(a: object) -> bool:
    """Tell whether `a` is an array of the host, whose values can be seen without waiting."""
    return isinstance(a, np.ndarray)


def in_our_words(
    expect: Callable[..., None] | None = None, **words: str
) -> Callable[[Construct], Construct]:
    """Let a constructor that is called in the book's words say what to write here instead.

    Parameters
    ----------
    expect : callable, optional
        Is given the arguments, and raises where they are the book's, or not ours.
    **words : str
        What is written here, by the book's name of an option.
    """

    def decorate(construct: Construct) -> Construct:
        @functools.wraps(construct)
        def constructing(self: Any, *arguments: Any, **options: Any) -> None:
            for word in words.keys() & options.keys():
                raise ArgumentError(
                    f"{type(self).__name__} has no option {word!r}: what the book calls {word} is "
                    f"{words[word]} here. See docs/from-the-book.md."
                )
            if expect is not None:
                expect(*arguments, **options)
            construct(self, *arguments, **options)

        return cast(Construct, constructing)

    return decorate


def check_finite(argument: str, a: object) -> None:
    """See that the host array a (N, ...) is finite; arrays of a device are taken on trust.

    Raises
    ------
    NonFiniteError
        If it is not; the message gives the first example that holds NaN or infinity.
    """
    if not isinstance(a, np.ndarray) or a.dtype.kind != "f":
        return
    # In parts, so that the check needs no second copy of the data.
    a = np.atleast_1d(a)
    for start in range(0, len(a), 1000):
        part = a[start : start + 1000]
        bad = np.flatnonzero(~np.isfinite(part).reshape(len(part), -1).all(axis=1))
        if len(bad):
            raise NonFiniteError(
                f"{argument} holds NaN or infinity, first in example {start + bad[0]}; "
                "clean it first."
            )


def largest_on_host(a: object) -> float:
    """Return the largest size of a number in the host array `a`; 0 for one of a device."""
    if not isinstance(a, np.ndarray) or not a.size:
        return 0.0
    return float(max(a.max(), -a.min()))


def dictionary(argument: str, value: object, of: str = "") -> dict[Any, Any]:
    """Return `value` as a dictionary.

    Raises
    ------
    ArgumentError
        If it is none; the message says `of` what it should be.
    """
    if not isinstance(value, Mapping):
        wanted = f"a dictionary {of}".strip()
        raise ArgumentError(f"{argument} must be {wanted}, got {shown(value)}.")
    return dict(value)


def arrays_of_floats(argument: str, arrays: Any, changes: bool = False) -> None:
    """See that `arrays` is a dictionary of arrays of floats, and not empty.

    Parameters
    ----------
    changes : bool
        Whether they are to be changed, and so must be writable.

    Raises
    ------
    ArgumentError, DTypeError
        If it is none.
    """
    if not dictionary(argument, arrays, "of arrays"):
        raise ArgumentError(f"{argument} is empty; give one array at least.")
    for name, a in arrays.items():
        real_array(f"{argument}[{name!r}]", a, "f")
        if changes:
            check_writable(f"{argument}[{name!r}]", a)


OFTEN_CALLED = {"lr": "learning_rate", "eta": "learning_rate", "eps": "epsilon"}


def no_such_option(kind: type, name: str) -> ArgumentError:
    """Return the error for an option that a class does not have; it names those that it has."""
    signatures = [inspect.signature(vars(base)["__init__"]) for base in kind.__mro__[:-1]
                  if "__init__" in vars(base)]  # fmt: skip
    parameters = [p for signature in signatures for p in list(signature.parameters.values())[1:]]
    options = list(dict.fromkeys(p.name for p in parameters if p.kind is not p.VAR_KEYWORD))
    close = [OFTEN_CALLED.get(name), *get_close_matches(name.lower(), options, n=1)]
    hint = next((f"; did you mean {option}?" for option in close if option in options), ".")
    return ArgumentError(
        f"{kind.__name__} has no option {name!r}{hint} Its options are {', '.join(options)}."
    )
