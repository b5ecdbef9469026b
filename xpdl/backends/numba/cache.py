"""What Numba compiles is kept for the next run, in the user's cache and not beside its sources.

The installed package is pip's. A file of ours in its folders would outlive ``pip uninstall``, and
Python takes a folder that is left without its ``__init__.py`` for a package all the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from numba import __version__ as numba_version
from numba import config, njit
from numba.core import caching

from xpdl.errors import FileAccessError
from xpdl.files import cache_folder
from xpdl.version import __version__

Function: TypeAlias = Callable[..., Any]

KEPT = 4
"""So many versions' folders stay, the newest; those before them are removed."""

# Of all files here: Numba itself looks at a function's own, not at those whose code it takes in.
# And of its version: two of them would each throw away what the other has kept.
_sources = [path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))]
DIGEST = hashlib.sha256(b"\0".join([numba_version.encode(), *_sources])).hexdigest()[:12]


def _say(reason: object) -> None:
    warnings.warn(
        f"what the backend 'numba' compiles is not kept ({reason}), so that each run takes ten "
        "seconds for it. Make that folder writable, delete it if it is damaged, or set "
        "NUMBA_CACHE_DIR to another.",
        stacklevel=2,
    )


def _find_folder() -> Path | None:
    """Return this version's folder, which need not exist; None if the user has none."""
    try:
        base = Path(config.CACHE_DIR, "xpdl") if config.CACHE_DIR else cache_folder() / "compiled"
    except FileAccessError as error:
        _say(error)
        return None
    return base.absolute() / f"{__version__}-{DIGEST}"


def add_version(folder: Path) -> None:
    """Create a version's folder, and remove those of all but the `KEPT` newest versions."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, exist_ok=True)
    versions = [path for path in folder.parent.iterdir() if re.search("-[0-9a-f]{12}$", path.name)]
    with contextlib.suppress(FileNotFoundError):  # another process removes them, too
        versions.sort(key=lambda path: path.stat().st_mtime)
        for path in versions[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)


class _Place(caching._CacheLocator):
    """Tells Numba the folder, for one function; and that only the digest makes it out of date."""

    def __init__(self, function: Function, file: str) -> None:
        self._function = function
        self._py_file = file  # Numba's warnings name it

    @classmethod
    def from_function(cls, py_func: Function, py_file: str) -> _Place:
        return cls(py_func, py_file)

    def ensure_cache_path(self) -> None:
        add_version(Path(self.get_cache_path()))

    def get_cache_path(self) -> str:
        return str(FOLDER)

    def get_source_stamp(self) -> str:
        return DIGEST

    def get_disambiguator(self) -> str:
        return str(self._function.__code__.co_firstlineno)


class _Format(caching.CompileResultCacheImpl):
    _locator_classes: list[type[object]] = [_Place]  # noqa: RUF012  (as Numba declares it)


class _Kept(caching.FunctionCache):
    """The compiled forms of one function; if the folder fails once, it is left alone."""

    _impl_class = _Format
    usable = True

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        return self._try(super().load_overload, sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        self._try(super().save_overload, sig, data)

    def _try(self, access: Callable[..., Any], *arguments: Any) -> Any:
        if not _Kept.usable:
            return None
        try:
            return access(*arguments)
        except Exception as error:  # what a damaged file holds may raise anything
            _Kept.usable = False
            _say(f"{FOLDER}: {getattr(error, 'strerror', None) or repr(error)}")
        return None


FOLDER = _find_folder()


def compiled(function: Function) -> Any:
    """Compile a function when it is first called with arguments of a type, or load what was kept.

    It runs without Python's lock, and divides as NumPy does: by zero, too.
    """
    dispatcher = njit(nogil=True, error_model="numpy")(function)
    if FOLDER is not None:
        dispatcher._cache = _Kept(function)
    return dispatcher
