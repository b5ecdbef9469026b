"""The book's modules in `sys.modules` while one of its scripts runs, and who else's they may be."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

BOOK = {
    "common": {
        "functions": "functions",
        "gradient": "gradient",
        "layers": "layers",
        "multi_layer_net": "multi_layer_net",
        "multi_layer_net_extend": "multi_layer_net_extend",
        "optimizer": "optimizer",
        "trainer": "trainer",
        "util": "arrays",
    },
    "dataset": {"mnist": "mnist"},
}
"""The book's packages, their modules, and the files of this room that stand for them."""

UNMISTAKABLE = {"common": "multi_layer_net", "dataset": "mnist"}
"""A module that is in the book's package, and in no other book's of that name."""


@contextmanager
def book_modules(script: Path) -> Iterator[None]:
    """For a block, let ``import common`` and ``import dataset`` find this room's modules.

    Where a package of that name lies beside the script, or in the folder above, and is not the
    book's, importing it is an ImportError, which `another_books_module` explains. What else the
    reader's own copy of the book's package holds can be imported from it.

    What the script imports from where it lies is forgotten afterwards.
    """
    aside = {name: sys.modules.pop(name) for name in list(sys.modules) if _package(name) in BOOK}
    before = set(sys.modules)
    try:
        for name, files in BOOK.items():
            folder = _find(name, script)
            if folder is None or _is_the_books(name, folder):
                _install(name, files, [] if folder is None else [str(folder)])
            else:
                sys.modules[name] = None  # type: ignore[assignment]  # an ImportError, in Python
        yield
    finally:
        home = (str(script.parent), str(script.parent.parent))
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if _package(name) in BOOK or str(Path(file).parent) in home:
                del sys.modules[name]
        sys.modules.update(aside)


def _install(name: str, files: dict[str, str], search_path: list[str]) -> None:
    package = ModuleType(name)
    package.__path__ = search_path
    sys.modules[name] = package
    for module, file in files.items():
        ours = importlib.import_module(f"xpdl.book.{file}")
        sys.modules[f"{name}.{module}"] = ours
        setattr(package, module, ours)


def _package(name: str) -> str:
    return name.partition(".")[0]


def _find(name: str, script: Path) -> Path | None:
    """Return where a script of the book would find a package: beside it, or one folder up."""
    for folder in (script.parent, script.parent.parent):
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
        if any((folder / name).glob("*.py")):
            return folder / name
    return None


def _is_the_books(name: str, folder: Path) -> bool:
    """Tell whether a package is a copy of the book's, or of a part of it."""
    modules = {file.stem for file in folder.glob("*.py")}
    return bool(modules) and (UNMISTAKABLE[name] in modules or modules <= {"__init__", *BOOK[name]})


def another_books_module(error: ImportError, script: Path) -> str:
    """Return why a script's import failed, if it asks the book's packages for what they lack."""
    ours = {
        f"xpdl.book.{file}": f"{package}.{module}"
        for package, files in BOOK.items()
        for module, file in files.items()
    }
    asked = ours.get(error.name or "", error.name or "")
    package = _package(asked)
    if package not in BOOK:
        return ""
    folder = _find(package, script)
    if folder is not None and not _is_the_books(package, folder):
        return (
            f"asks for a {package} of its own, {str(folder)!r}, which is not the book's. "
            "Run it with python."
        )
    if str(error).startswith("cannot import name"):
        asked = f"{asked}.{str(error).split(chr(39))[1]}"
    return (
        f"asks for {asked}, which the book has not, or not in this edition; its {package} has "
        f"{', '.join(BOOK[package])}. Run it with python."
    )
