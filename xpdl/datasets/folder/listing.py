"""What lies in a folder of pictures: its parts, its classes, their files, and what is none."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from xpdl.datasets.opening import readable_suffixes
from xpdl.datasets.picture_data import expect_names_of_a_line
from xpdl.errors import DataError, FileAccessError

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The parts of a data set, and how their folders are called, in small or large letters."""

DEEPEST = 20  # folders in folders
MOST_FILES = 10_000_000
_NAMES_SHOWN = 5


class File(NamedTuple):
    """A picture's file: its part, '' if there are none; its class; and its path below that."""

    part: str
    label: str
    name: str
    path: str
    size: int
    changed: int
    """When, in nanoseconds."""


@dataclass
class Listing:
    """The files of a folder, in the order of their names, and what was left out of it."""

    folder: Path
    files: list[File] = field(default_factory=list)
    foreign: Counter[str] = field(default_factory=Counter)
    """How many files that are no pictures there are, by the endings of their names."""

    empty: list[str] = field(default_factory=list)
    """Folders without a picture, where one of a class might be."""

    links: int = 0
    """How many links to folders, and to files elsewhere, there are."""

    def notes(self) -> Iterator[str]:
        """Say what was left out, in a line each."""
        if self.foreign:
            kinds = [f"{count:,} {kind}" for kind, count in self.foreign.most_common(_NAMES_SHOWN)]
            more = ", ..." if len(self.foreign) > _NAMES_SHOWN else ""
            yield (
                f"{self.foreign.total():,} files that are no pictures are left out: "
                f"{', '.join(kinds)}{more}"
            )
        if self.empty:
            shown = ", ".join(map(repr, self.empty[:_NAMES_SHOWN]))
            yield f"{len(self.empty):,} folders without a picture are left out: {shown}"
        if self.links:
            yield f"{self.links:,} links that lead to folders or out of this one are left out"


def list_folder(folder: Path) -> Listing:
    """Return what lies in a folder of a folder a class, or of such folders for each part.

    Hidden files and folders are passed over.

    Raises
    ------
    FileAccessError
        If it, or a folder in it, is missing or cannot be read.
    DataError
        If there are no classes in it, fewer than two, or in one part others than in training.
    """
    listing = Listing(folder)
    tops = {entry.name: entry for entry in _entries(folder, listing) if _is_folder(entry, listing)}
    parts = _parts(tops)
    if parts and len(parts) < len(tops):
        others = ", ".join(map(repr, sorted(set(tops) - set(parts.values()))[:_NAMES_SHOWN]))
        raise DataError(
            f"{str(folder)!r} has folders of parts, {', '.join(sorted(parts.values()))}, and "
            f"others, {others}. Put the others into one of the parts, or elsewhere."
        )
    for part in parts or [""]:
        top = Path(tops[parts[part]].path) if part else folder
        for entry in _entries(top, listing) if part else tops.values():
            if not part or _is_folder(entry, listing):
                files = [File(part, entry.name, *file) for file in _below(entry.path, listing)]
                listing.files += files
                if not files:
                    listing.empty.append(entry.name)
    listing.files.sort()
    check_classes(folder, listing.files)
    return listing


def list_pictures(folder: Path) -> Listing:
    """Return the pictures in a folder and in those below it, in the order of their names.

    Raises
    ------
    FileAccessError
        If it, or a folder in it, is missing or cannot be read.
    DataError
        If there are none.
    """
    listing = Listing(folder)
    listing.files = sorted(File("", "", *file) for file in _below(str(folder), listing))
    if not listing.files:
        raise DataError(f"{str(folder)!r} holds no pictures.")
    return listing


def check_classes(folder: Path, files: Sequence[File]) -> tuple[str, ...]:
    """Return the classes of the files, in the order of their names.

    Raises
    ------
    DataError
        If there are fewer than two, or some of which there is nothing to train with.
    """
    names = tuple(sorted({file.label for file in files}))
    if len(names) < 2:
        found = f"those of one class, {names[0]!r}" if names else "none"
        example = os.path.join(folder, "rose", "1.jpg")
        raise DataError(
            f"{str(folder)!r} must hold a folder of pictures for each class, two at least, as in "
            f"{example!r}; it holds {found}."
        )
    expect_names_of_a_line(names)
    trained = {file.label for file in files if file.part in ("", "train")}
    if unknown := [name for name in names if name not in trained]:
        raise DataError(
            f"{str(folder)!r} has pictures of {', '.join(map(repr, unknown[:_NAMES_SHOWN]))} to "
            "test with, and none to train with."
        )
    return names


def _parts(names: Iterable[str]) -> dict[str, str]:
    """Return which folder holds which part; none if there is no folder of training pictures."""
    found: dict[str, str] = {}
    for name in sorted(names):
        for part, called in PARTS.items():
            if name.lower() in called:
                if part in found:
                    raise DataError(
                        f"{found[part]!r} and {name!r} are both the {part} part; leave one."
                    )
                found[part] = name
    return found if "train" in found else {}


def _entries(folder: str | Path, listing: Listing) -> list[os.DirEntry[str]]:
    """Return what lies in a folder, but for hidden things, in the order of its names."""
    try:
        with os.scandir(folder) as entries:
            seen = [entry for entry in entries if entry.name[0] != "." and entry.name != "__MACOSX"]
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileAccessError(f"cannot read the folder {str(folder)!r}: {reason}.") from error
    if len(seen) + len(listing.files) > MOST_FILES:
        raise DataError(f"{str(listing.folder)!r} holds more than {MOST_FILES:,} files.")
    return sorted(seen, key=lambda entry: entry.name)


def _is_folder(entry: os.DirEntry[str], listing: Listing) -> bool:
    """Say whether this is a folder that is looked into; count what is left out instead."""
    if entry.is_symlink():
        listing.links += 1
        return False
    if not entry.is_dir():
        listing.foreign["beside the classes' folders"] += 1
        return False
    return True


def _below(
    folder: str, listing: Listing, deepest: int = DEEPEST
) -> Iterator[tuple[str, str, int, int]]:
    """Yield the name below `folder`, the path, the size and the time of each picture's file."""
    if not deepest:
        raise DataError(f"{folder!r} is more than {DEEPEST} folders deep; make it flatter.")
    for entry in _entries(folder, listing):
        if entry.is_dir():
            if entry.is_symlink():
                listing.links += 1
                continue
            for name, path, size, changed in _below(entry.path, listing, deepest - 1):
                yield f"{entry.name}/{name}", path, size, changed
        elif entry.is_symlink() and _leads_out(entry.path, listing.folder):
            listing.links += 1
        else:
            yield from _file(entry, listing)


def _leads_out(path: str, folder: Path) -> bool:
    target, home = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    return not target.exists() or not target.is_relative_to(home)


def _file(entry: os.DirEntry[str], listing: Listing) -> Iterator[tuple[str, str, int, int]]:
    ending = os.path.splitext(entry.name)[1].lower()
    if ending and ending not in readable_suffixes():
        listing.foreign[repr(ending)[1:-1][:20]] += 1
        return
    try:
        about = entry.stat()
    except OSError as error:
        raise FileAccessError(f"cannot look at {entry.path!r}: {error.strerror}.") from error
    if stat.S_ISREG(about.st_mode):
        yield entry.name, entry.path, about.st_size, about.st_mtime_ns
    else:
        listing.foreign["devices or pipes"] += 1
