"""Every exception that xpdl raises on purpose.

An error names the argument, what it got, what it wants and what to do. All derive from
`XpdlError`; those that have a counterpart among Python's own exceptions derive from it too, so
``except ValueError`` goes on working for people who do not know these names.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import numpy as np

LONGEST_SHOWN = 80  # of a value, in characters
# Of what holds millions of values, a few are looked at.
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 12
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = LONGEST_SHOWN


def shown(value: Any) -> str:
    """Return how a message shows a value that was given: in a few words, on one line."""
    kind = type(value)
    if isinstance(value, np.generic):
        value = value.item()
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"an array of shape {_SHORT.repr(value.shape)} and dtype {value.dtype}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    try:
        text = " ".join(_SHORT.repr(value).split())
    except Exception:  # a repr may do anything; an int of thousands of digits has none
        return f"an object of type {kind.__name__}"
    if re.fullmatch(r"<.* at 0x[0-9a-f]+>", text):
        return f"an object of type {kind.__name__}"
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    text = re.sub(r"\bnp\.\w+\(([^()]*)\)", r"\1", text)  # NumPy's numbers as Python's
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 20]} ... {text[-10:]}"


def nearest(got: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `got` most likely stands for, in any capitals, or None.

    It is spelled nearly so, or its words begin with these letters ("lr" for "learning-rate"), or
    one of its words is it ("rate").
    """
    known = {name.lower(): name for name in names}
    words = {name: re.split("[-_ ]", name) for name in known}
    wanted = got[:LONGEST_SHOWN].lower()
    close = get_close_matches(wanted, known, n=1)
    if not close and len(wanted) > 1:
        close = [name for name in known if "".join(w[:1] for w in words[name]) == wanted]
        close = close or [name for name in known if wanted in words[name]]
    return known[close[0]] if close else None


class XpdlError(Exception):
    """Base of every exception of this package."""


class ArgumentError(XpdlError, ValueError):
    """An argument has a value that the callee cannot use."""


class UnknownNameError(ArgumentError):
    """A name (of an optimizer, model, layer, backend ...) that is not one of the choices."""

    def __init__(self, kind: str, got: object, choices: Iterable[str], advice: str = "") -> None:
        names = list(choices)
        if not isinstance(got, str):
            super().__init__(
                f"unknown {kind} ({shown(got)}){advice}; the choices are {', '.join(names)}."
            )
            return
        close = nearest(got, names)
        hint, more = (f" Did you mean {close!r}?", "") if close else ("", advice)
        super().__init__(
            f"unknown {kind} {shown(got)}{more}; the choices are {', '.join(names)}.{hint}"
        )


class UnknownParameterError(UnknownNameError, KeyError):
    """A parameter's name that the network does not have."""

    def __init__(self, kind: str, got: object, choices: Iterable[str]) -> None:
        names = list(choices)
        super().__init__(kind, got, names)
        word = re.fullmatch(r"(W|b|gamma|beta)([1-9]\d?)", got) if isinstance(got, str) else None
        ours = [name for name in names if word and name.endswith(f".{word[1]}")]
        if word and int(word[2]) <= len(ours):
            self.args = (f"{self} The book's {got!r} is {ours[int(word[2]) - 1]!r} here.",)

    __str__ = Exception.__str__  # a KeyError would show the message's repr


class ShapeError(ArgumentError):
    """An array, or a layer's input, has a shape that does not fit."""


class DTypeError(ArgumentError, TypeError):
    """An array or a policy has an element type that does not fit."""


class NonFiniteError(ArgumentError):
    """Data holds NaN or infinity where only finite numbers make sense."""


class NotReadyError(XpdlError, RuntimeError):
    """Something was used too early: a layer before it was built, backward before forward."""


class DivergenceError(XpdlError, ArithmeticError):
    """Training went to NaN or infinity."""


class BackendError(XpdlError, RuntimeError):
    """Something is wrong with the device or with how it was used."""


class BackendUnavailableError(BackendError):
    """The backend asked for cannot be used on this machine; the message says how to get it."""


class BackendMismatchError(BackendError, TypeError):
    """Arrays of two backends met in one call."""


class DeviceRuleError(BackendError, TypeError):
    """The strict backend saw something that would fail, stall or go wrong on a GPU."""


class CaptureError(BackendError):
    """A step of training cannot be captured as a CUDA graph; it still runs as it stands."""


class DeviceMemoryError(BackendError, MemoryError):
    """A device or the machine has too little memory; the message says what would fit."""


class RanksError(XpdlError, RuntimeError):
    """The processes that train together cannot speak to each other, or one of them is gone."""


class DataError(XpdlError):
    """A data set cannot be had, or is not what it should be."""


class DataUnavailableError(DataError, OSError):
    """No source of a data set answered; the message names what was tried."""


class DataFileError(DataError, ValueError):
    """A data file is truncated, altered or of another format."""


class ImageError(DataError, ValueError):
    """A picture given for prediction cannot be read, or holds nothing to recognise."""


class ModelFileError(XpdlError, ValueError):
    """A model or checkpoint file is unreadable, foreign, damaged or does not fit."""


class FileAccessError(XpdlError, OSError):
    """A file or folder cannot be read or written: missing, read-only, disk full."""
