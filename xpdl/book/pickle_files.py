"""The pickle files of a script of the book: written by Python's own module, read as data alone."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import IO, Any

from xpdl.pickles import arrays_in


@contextmanager
def reading_pickles_safely(is_of_reader: Callable[[str], bool]) -> Iterator[None]:
    """For a block, let ``import pickle`` in a reader's file give a module that runs no code.

    Libraries that pickle for themselves keep Python's own.
    """
    python_import = builtins.__import__

    def import_module(name: str, *arguments: Any, **options: Any) -> ModuleType:
        module = python_import(name, *arguments, **options)
        importer = arguments[0] if arguments else options.get("globals")
        file = (importer or {}).get("__file__")
        return _safe(module) if name == "pickle" and file and is_of_reader(file) else module

    builtins.__import__ = import_module
    try:
        yield
    finally:
        builtins.__import__ = python_import


def _safe(pickle: ModuleType) -> ModuleType:
    """Return the module with the same names, whose functions that read, read arrays alone."""
    module = ModuleType(pickle.__name__, pickle.__doc__)
    vars(module).update(vars(pickle), load=load, loads=loads, Unpickler=Unpickler)
    return module


def load(file: IO[bytes], **options: Any) -> Any:
    """Return what a file holds; `ModelFileError` if that is not a dict of arrays."""
    return arrays_in(file.read(), str(getattr(file, "name", "a pickle")))


def loads(data: bytes, **options: Any) -> Any:
    """Return what bytes hold; `ModelFileError` if that is not a dict of arrays."""
    return arrays_in(bytes(data), "a pickle")


class Unpickler:
    """`load` as an object, as Python has it."""

    def __init__(self, file: IO[bytes], **options: Any) -> None:
        self._file = file

    def load(self) -> Any:
        """Return what the file holds."""
        return load(self._file)
