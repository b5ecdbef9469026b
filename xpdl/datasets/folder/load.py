"""A folder of pictures as a data set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from xpdl.arguments import flag, path_of, whole_number
from xpdl.backends import get_backend
from xpdl.datasets.picture_data import Part, PictureData
from xpdl.datasets.progress import say
from xpdl.datasets.stored import StoredPictures

if TYPE_CHECKING:
    from xpdl.datasets.folder.archive import Archive

_MOST_IN_MEMORY = 2**31  # bytes, where the system does not say how much is free


def load_folder(
    path: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    split: float | None = 0.1,
    seed: int = 0,
    skip_broken: bool = False,
    in_memory: bool | None = None,
    workers: int | None = None,
    quiet: bool = False,
) -> PictureData:
    """Return the pictures of a folder that has a folder for each class.

    Or of one that has such folders as ``train`` and ``test``, or ``train`` and ``val``, which then
    is what is tested with; with all three, ``val`` is for validation. They are decoded once, by
    worker processes, and kept in the data folder (``$XPDL_DATA``) until a name, a size or a time of
    a file there changes. What there is to say is printed, and in `notes`.

    Parameters
    ----------
    path : str or path
        The folder. Hidden files, links to folders and links that lead out of it are left out.
    size : int or (int, int), optional
        Height and width to which pictures are brought, by making them smaller or larger and cutting
        both ends of the longer side; by default what most have, at most 224.
    channels : int, optional
        1 for grey, 3 for colour; by default what most have.
    split : float, optional
        Where the folder has no test pictures, the share to set aside for them, by a digest of their
        bytes; None sets none aside.
    seed : int
        For that.
    skip_broken : bool
        Whether to leave out what cannot be read, which is an error otherwise.
    in_memory : bool, optional
        Whether all pictures are kept in memory; by default if a quarter of what is free is enough.
        Others are read from the disk in each batch.
    workers : int, optional
        How many processes decode; one for each core by default, and 0 does it in this one.
    quiet : bool
        Whether to leave it at `notes`, rather than to print them.

    Raises
    ------
    ArgumentError
        If an argument does not fit, or `split` leaves no pictures on one side.
    FileAccessError
        If the folder cannot be read, or the data folder not written.
    DataError
        If it does not hold pictures of two classes at least.
    ImageError
        If some cannot be read: how many, and the first of them.
    """
    # They bring in much of the standard library, and `import xpdl` shall be quick.
    from xpdl.datasets.folder.archive import find_or_make
    from xpdl.datasets.folder.form import checked_channels, checked_size
    from xpdl.datasets.folder.listing import list_folder

    wanted = checked_size(size), checked_channels(channels)
    skip_broken, quiet = flag("skip_broken", skip_broken), flag("quiet", quiet)
    processes = _cores() if workers is None else whole_number("workers", workers, least=0)
    listing = list_folder(path_of("path", path))
    archive = find_or_make(listing, *wanted, skip_broken, processes)
    if in_memory is None:
        in_memory = len(archive.rows) * archive.form.size <= _most_in_memory()
    notes = (*archive.notes, *listing.notes(), *_left_out(archive))
    data = _as_data(archive, notes, flag("in_memory", in_memory))
    if data.test is None and split is not None:
        data = data.with_test(split, seed)
    for note in () if quiet else notes:
        say(note)
    return data


def _left_out(archive: Archive) -> list[str]:
    return [f"{archive.broken}; they are left out"] if archive.broken else []


def _as_data(archive: Archive, notes: tuple[str, ...], in_memory: bool) -> PictureData:
    height, width, channels = archive.form

    def part(name: str) -> Part | None:
        which = archive.of_part(name)
        if not which.any():
            return None
        x: Any = StoredPictures(
            archive.pixels, archive.rows[which], (channels, height, width), archive.digest
        )
        return (x[:] if in_memory else x), archive.labels[which]

    name = "train" if archive.of_part("train").any() else ""
    train, test, validation = part(name), part("test"), part("validation")
    assert train is not None
    if test is None:
        test, validation = validation, None
    return PictureData(
        train,
        test,
        archive.class_names,
        archive.digest,
        validation,
        notes,
        archive.keys[archive.of_part(name)],
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _most_in_memory() -> int:
    free = get_backend("numpy").free_memory()
    return _MOST_IN_MEMORY if free is None else free // 4
