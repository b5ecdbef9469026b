"""Run a script of the book, unchanged, with this room's modules in the place of the book's."""

from __future__ import annotations

import os
import runpy
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from xpdl.book.figures import saving_figures
from xpdl.book.modules import another_books_module, book_modules
from xpdl.book.pickle_files import reading_pickles_safely
from xpdl.errors import ArgumentError, FileAccessError, XpdlError
from xpdl.files import make_folder

OURS = f"{Path(__file__).parents[1]}{os.sep}"
STANDARD_LIBRARY = tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib"))

GONE_FROM_NUMPY = {"int": int, "float": float, "object": object}
"""Names of Python's types that NumPy had when the book was written, and the scripts may use."""


def run_script(
    script: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    *,
    dtype: str | None = None,
    figures: str | os.PathLike[str] | None = None,
) -> int:
    """Run a Python file as ``python SCRIPT ARGUMENTS`` does, in its own folder; return its status.

    It finds this room's modules as ``common`` and ``dataset``, and what lies beside it. An error
    of its own is shown as Python shows it, without what lies between its lines and those of xpdl.

    Parameters
    ----------
    arguments : sequence of str
        What the script finds in ``sys.argv`` behind its name.
    dtype : {"float32", "float64"}, optional
        What a convolution of float32 images is computed in; ``XPDL_DTYPE`` by default.
    figures : path, optional
        A folder in which figures are saved that the script would show.

    Returns
    -------
    int
        0; 1 after an error of the script; or the status that it exits with.

    Raises
    ------
    FileAccessError, ArgumentError
        If the script is missing or no Python, or imports a ``common`` or ``dataset`` that is not
        the book's.
    XpdlError
        What the modules raise where it is no error of the script: data that cannot be had, a pickle
        that is refused.
    """
    path = _find(script)
    folder = None if figures is None else make_folder(figures, "--save").resolve()
    is_of_reader = partial(_is_of_reader, path.parent.parent)
    try:
        with _surroundings(path, arguments, dtype, folder), reading_pickles_safely(is_of_reader):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (XpdlError, BrokenPipeError):
        raise
    except Exception as error:
        report = traceback.TracebackException.from_exception(error)
        _keep_frames_of_script(report, is_of_reader)
        if not report.stack and isinstance(error, SyntaxError | ValueError):
            raise ArgumentError(f"{path.name} is no Python: {error}.") from error
        if isinstance(error, ImportError) and (why := another_books_module(error, path)):
            raise ArgumentError(f"{path.name} {why}") from error
        print(*report.format(), sep="", end="", file=sys.stderr)
        return 1
    return 0


def _find(script: str | os.PathLike[str]) -> Path:
    path = Path(script)
    if not path.is_file():
        what = "is a folder; name a file in it" if path.is_dir() else "does not exist"
        raise FileAccessError(f"the script {str(path)!r} {what}.")
    if path.suffix != ".py":
        raise ArgumentError(f"{path.name} is no Python script: its name does not end in .py.")
    return path.resolve()


@contextmanager
def _surroundings(
    path: Path, arguments: Sequence[str], dtype: str | None, figures: Path | None
) -> Iterator[None]:
    """Give a script, for as long as it runs, what it may count on; then put all back."""
    before = sys.argv, sys.path[:], os.environ.get("XPDL_DTYPE")
    with ExitStack() as stack:
        stack.callback(_put_back, *before)
        sys.argv = [str(path), *arguments]
        sys.path.insert(0, str(path.parent))
        if dtype is not None:
            os.environ["XPDL_DTYPE"] = dtype
        stack.enter_context(chdir(path.parent))
        stack.enter_context(book_modules(path))
        stack.enter_context(_names_gone_from_numpy())
        if figures is not None:
            stack.enter_context(saving_figures(figures, path.stem))
        yield


def _put_back(argv: list[str], search_path: list[str], dtype: str | None) -> None:
    sys.argv, sys.path[:] = argv, search_path
    os.environ.pop("XPDL_DTYPE", None)
    if dtype is not None:
        os.environ["XPDL_DTYPE"] = dtype


@contextmanager
def _names_gone_from_numpy() -> Iterator[None]:
    gone = {name: kind for name, kind in GONE_FROM_NUMPY.items() if name not in vars(np)}
    vars(np).update(gone)
    try:
        yield
    finally:
        for name in gone:
            del vars(np)[name]


def _is_of_reader(home: Path, file: str) -> bool:
    """Tell whether a source file is the reader's: in the folder above the script's, and no library.

    Libraries may be anywhere, in a reader's environment within that folder as well.
    """
    path = os.path.abspath(file)
    installed = {"site-packages", "dist-packages"} & {*Path(path).parts}
    within = Path(path).is_relative_to(home) and not file.startswith("<")
    return within and not installed and not path.startswith((OURS, *STANDARD_LIBRARY))


def _keep_frames_of_script(
    report: traceback.TracebackException, is_of_reader: Callable[[str], bool]
) -> None:
    """Take out of a traceback what is ours, and what ours has called, up to the script's lines."""
    kept, called_by_us = [], True
    for frame in report.stack:
        if is_of_reader(frame.filename):
            called_by_us = False
        elif frame.filename.startswith(OURS):
            called_by_us = True
        if not called_by_us:
            kept.append(frame)
    report.stack[:] = kept
    for name in ("__cause__", "__context__"):
        other = getattr(report, name)
        if other is not None:
            _keep_frames_of_script(other, is_of_reader)
            if not other.stack:
                setattr(report, name, None)
