"""The pictures of a folder as they were decoded once, kept in the data folder.

Two files: one of nothing but pixels, and one that says what they are, which is written last and
without which there is none. Their name holds a digest of the names, sizes and times of all files
in the folder, and of what was asked for: where one of these changes, it is another archive.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl.datasets.folder.decoding import Form
from xpdl.datasets.folder.form import choose_form
from xpdl.datasets.folder.listing import PARTS, File, Listing, check_classes
from xpdl.datasets.folder.workers import share_out
from xpdl.datasets.progress import progress_bar
from xpdl.datasets.sources import data_home
from xpdl.errors import FileAccessError, ImageError, ModelFileError
from xpdl.files import HostArray, make_folder, read_tensors, replacing, write_tensors

VERSION = 2
"""Of how pictures are decoded and kept."""

_PART_NAMES = ("", *PARTS)
_SHOWN = 3  # broken files in a message
_UNFINISHED_AFTER = 600.0  # seconds without a change, after which nobody writes a file any more


@dataclass(frozen=True)
class Archive:
    """Decoded pictures: in which row of the pixels each is, its part, label and key."""

    pixels: Path
    form: Form
    rows: npt.NDArray[np.int64]
    parts: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    class_names: tuple[str, ...]
    digest: str
    notes: tuple[str, ...]
    broken: str
    """What is to be said of files that cannot be read; empty if there are none."""

    def of_part(self, part: str) -> npt.NDArray[np.bool_]:
        """Return which pictures, (N,), are of a part."""
        return self.parts == _PART_NAMES.index(part)


def find_or_make(
    listing: Listing,
    size: tuple[int, int] | None,
    channels: int | None,
    skip_broken: bool,
    workers: int,
) -> Archive:
    """Return the archive of a folder's pictures; decode them if there is none yet.

    Raises
    ------
    ImageError
        If pictures cannot be read, and are not to be skipped.
    DataError, FileAccessError
        If too few are left, or the archive cannot be written.
    """
    home = make_folder(data_home() / "folders")
    # Only the name of the user's folder is in the file's, in letters that every system takes.
    slug = re.sub(r"[^A-Za-z0-9]+", "-", listing.folder.resolve().name)[:40].strip("-") or "folder"
    name = f"{slug}-{_key(listing, size, channels)}"
    about = home / f"{name}.safetensors"
    archive = _read(about)
    if archive is None:
        _remove_unfinished(home)
        _make(about, listing, size, channels, skip_broken, workers)
        archive = _read(about)
        if archive is None:
            raise FileAccessError(f"{str(about)!r} was written and is gone. Try again.")
    if archive.broken and not skip_broken:
        raise _refusal(archive.broken)
    return archive


def _key(listing: Listing, size: tuple[int, int] | None, channels: int | None) -> str:
    files = [(*file[:3], file.size, file.changed) for file in listing.files]
    return hashlib.sha256(json.dumps([VERSION, size, channels, files]).encode()).hexdigest()[:24]


def _read(about: Path) -> Archive | None:
    """Return the archive that was written under a name, if there is a whole one."""
    pixels = about.with_suffix(".pixels")
    if not (about.exists() and pixels.exists()):
        return None
    try:
        arrays, told = read_tensors(about)
        form = Form(*told["form"])
        archive = Archive(
            pixels,
            form,
            arrays["rows"],
            arrays["parts"],
            arrays["labels"],
            arrays["keys"],
            tuple(told["class_names"]),
            told["digest"],
            tuple(told["notes"]),
            told["broken"],
        )
    except (ModelFileError, KeyError, TypeError):  # it is made anew
        return None
    whole = pixels.stat().st_size == told["pictures"] * form.size
    return archive if whole and told["version"] == VERSION else None


def _make(
    about: Path,
    listing: Listing,
    size: tuple[int, int] | None,
    channels: int | None,
    skip_broken: bool,
    workers: int,
) -> None:
    files, broken = list(listing.files), dict[str, str]()
    seen = _look(files, broken, workers)
    foreign = sum("foreign" in told for told in seen)
    files = [file for file, told in zip(files, seen, strict=True) if "digest" in told]
    seen = [told for told in seen if "digest" in told]
    if broken and not skip_broken:
        raise _refusal(_tell_broken(listing, broken))
    check_classes(listing.folder, files)
    form, why = choose_form(seen, size, channels)
    _check_room(about.parent, len(files) * form.size)
    with replacing(about.with_suffix(".pixels")) as stream:
        stream.truncate(len(files) * form.size)
        task = {"pixels": stream.name, "form": form}
        with progress_bar("decoding", len(files), "pictures") as advance:
            done = share_out(task, [file.path for file in files], workers, advance)
    rows = [row for row, answer in enumerate(done) if "broken" not in answer]
    for file, answer in zip(files, done, strict=True):
        if "broken" in answer:
            broken[file.path] = answer["broken"]
    good = [files[row] for row in rows]
    class_names = check_classes(listing.folder, good)
    digests = [seen[row]["digest"] for row in rows]
    told = {
        "version": VERSION,
        "pictures": len(files),
        "form": form,
        "class_names": class_names,
        "digest": _digest(form, good, digests),
        "notes": [
            f"{len(good):,} pictures of {len(class_names):,} classes, {why}",
            *_tell_copies(good, digests),
            *_tell_foreign(foreign),
        ],
        "broken": _tell_broken(listing, broken) if broken else "",
    }
    arrays: dict[str, HostArray] = {
        "rows": np.array(rows, np.int64),
        "parts": np.array([_PART_NAMES.index(file.part) for file in good], np.uint8),
        "labels": np.array([class_names.index(file.label) for file in good], np.int64),
        "keys": np.array([int(digest[:16], 16) for digest in digests], np.uint64),
    }
    write_tensors(about, arrays, told)


def _look(files: Sequence[File], broken: dict[str, str], workers: int) -> list[dict[str, Any]]:
    """Return what `look` tells of each file, and keep why one is broken."""
    with progress_bar("looking", len(files), "pictures") as advance:
        task = {"pixels": None, "form": None}
        seen = share_out(task, [file.path for file in files], workers, advance)
    for file, told in zip(files, seen, strict=True):
        if "broken" in told:
            broken[file.path] = told["broken"]
    return seen


def _refusal(told: str) -> ImageError:
    return ImageError(
        f"{told}. Mend or remove them, or leave them out with skip_broken=True (--skip-broken)."
    )


def _tell_broken(listing: Listing, broken: dict[str, str]) -> str:
    empty = sum(reason.startswith("it is empty") for reason in broken.values())
    examples = [
        f"{path[len(str(listing.folder)) + 1 :]!r} ({reason.rstrip('.')})"
        for path, reason in list(broken.items())[:_SHOWN]
    ]
    more = ", ..." if len(broken) > _SHOWN else ""
    return (
        f"{len(broken):,} of {len(listing.files):,} files in {str(listing.folder)!r} cannot be "
        f"read, {empty:,} of them empty: {', '.join(examples)}{more}"
    )


def _tell_foreign(count: int) -> list[str]:
    if not count:
        return []
    return [f"{count:,} files without an ending that are no pictures are left out"]


def _tell_copies(files: Sequence[File], digests: Sequence[str]) -> list[str]:
    first: dict[str, File] = {}
    copies, labels, parts = 0, set[str](), set[str]()
    for file, digest in zip(files, digests, strict=True):
        other = first.setdefault(digest, file)
        copies += other is not file
        if other.label != file.label:
            labels.add(digest)
        if other.part != file.part:
            parts.add(digest)
    if not copies:
        return []
    told = f"{copies:,} pictures are copies of others"
    if labels:
        told += f"; {len(labels):,} pictures stand in several classes"
    if parts:
        told += f"; {len(parts):,} stand in several parts, so that a test is not of unseen ones"
    return [told]


def _digest(form: Form, files: Sequence[File], digests: Sequence[str]) -> str:
    known = [[file.part, file.label, digest] for file, digest in zip(files, digests, strict=True)]
    return hashlib.sha256(json.dumps([VERSION, form, known]).encode()).hexdigest()


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise FileAccessError(
            f"the decoded pictures take {size / 1e6:,.0f} MB, and {str(folder)!r} has room for "
            f"{free / 1e6:,.0f}. Set XPDL_DATA to a folder with more, or ask for a smaller size."
        )


def _remove_unfinished(home: Path) -> None:
    """Remove what was begun here by processes that were killed."""
    for path in home.glob(".*.part"):
        try:
            if time.time() - path.stat().st_mtime > _UNFINISHED_AFTER:
                path.unlink()
        except OSError:
            continue  # another process was quicker, or it is not ours to remove
