"""The folder of a run: its record, and pictures of what its network sees."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xpdl import files, plots
from xpdl.backends import Backend
from xpdl.errors import ArgumentError, FileAccessError, ModelFileError, RanksError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODEL, BEST = "model.safetensors", "best.safetensors"
BESTS = "best*.safetensors"  # of one network, or of each member
HISTORY, CHECKPOINT = "history.json", "checkpoint.safetensors"
CURVES, MISCLASSIFIED, CONFUSION = "curves.png", "misclassified.png", "confusion.png"
# All that a run leaves but its record, of one network or of several.
OF_A_RUN = (
    *(MODEL, BEST, CHECKPOINT, CURVES, MISCLASSIFIED, CONFUSION),
    *("best-*.safetensors", "member-*.safetensors", "checkpoint-*.safetensors", "ensemble.json"),
)

MOST_SHOWN = 48  # of the pictures that were misclassified

HostArray = np.ndarray[Any, np.dtype[Any]]


def new_folder(name: str, folder: str | Path | None, overwrite: bool = False) -> Path:
    """Return a new folder, or one that is there and empty; ``runs/<name>`` by default.

    With `overwrite` it may hold a run, which is left as it is.

    Raises
    ------
    ArgumentError
        If there is something else in it, or its name is empty.
    FileAccessError
        If it cannot be made, or not be looked into.
    """
    if folder is None:
        stem = Path("runs") / name
        folder, number = stem, 2
        while folder.exists():
            folder, number = stem.with_name(f"{stem.name}-{number}"), number + 1
    path = files.make_folder(folder, "--out")
    expect_free(path, overwrite)
    return path


def expect_free(path: Path, overwrite: bool = False) -> None:
    """See that a folder is not there, or empty; with `overwrite` it may hold a run.

    Raises
    ------
    ArgumentError, FileAccessError
        As `new_folder`.
    """
    try:
        occupied = path.is_dir() and any(path.iterdir())
    except OSError as error:
        raise FileAccessError(f"cannot look into the folder {str(path)!r}: {error}.") from error
    if occupied and not (path / HISTORY).exists():
        raise ArgumentError(f"the folder {str(path)!r} is not empty; choose another.")
    if occupied and not overwrite:
        raise ArgumentError(
            f"the folder {str(path)!r} is not empty; choose another, add --overwrite to train "
            f"anew in its place{_or_go_on(path)}"
        )


def _or_go_on(folder: Path) -> str:
    """Return the end of a message: how to go on with the run in `folder`, if that is possible."""
    if read_record(folder).get("finished") is not True:
        return f", or go on with the run in it: {resuming(folder)}"
    if (folder / CHECKPOINT).exists():
        return f", or go on with the finished run in it: {resuming(folder)} --epochs N"
    return "; the run in it is finished."


def remove_run(folder: Path) -> None:
    """Remove the files of a run; ``history.json`` last, as it says that they are a run's."""
    for pattern in (*OF_A_RUN, HISTORY):
        for path in folder.glob(pattern):
            path.unlink()


def resuming(folder: Path) -> str:
    """Return the command, for a POSIX shell, that goes on with the run in `folder`."""
    return f"xpdl train --resume {shlex.quote(str(folder))}"


def going_on(error: RanksError, folder: Path) -> RanksError:
    """Return an error that also says how the run in `folder` goes on."""
    return RanksError(f"{error} Go on, with any number of processes, by {resuming(folder)}")


class FolderLock:
    """Keeps a run's folder for one process, until `release`, or until the process is gone.

    No file is left: the folder itself is locked, wherever it is moved to. A ``with`` block lets go
    of it if an exception leaves the block, and only then.

    Raises
    ------
    ArgumentError
        If another process has it.
    FileAccessError
        If there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self._descriptor = -1
        if sys.platform == "win32":  # has no way to lock a folder
            return
        import fcntl

        try:
            self._descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise FileAccessError(
                f"cannot open the folder {str(folder)!r}: {error.strerror}."
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise ArgumentError(
                f"another process is training in {str(folder)!r}; wait for it, or stop it."
            ) from error
        except OSError as error:
            warnings.warn(
                f"the folder {str(folder)!r} cannot be locked ({error.strerror}): see that no "
                "other process trains in it.",
                stacklevel=3,
            )

    def release(self) -> None:
        """Let others have the folder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.release()

    def __del__(self) -> None:
        self.release()


def read_record(folder: Path) -> dict[str, Any]:
    """Return what ``history.json`` says."""
    if not (folder / HISTORY).exists():
        raise ModelFileError(
            f"the folder {str(folder)!r} holds no run: it has no {HISTORY}. Give one that xpdl "
            "train made."
        )
    record = files.read_json(folder / HISTORY)
    if not isinstance(record, dict):
        raise ModelFileError(f"{str(folder / HISTORY)!r} is not the record of a run.")
    return record


def write_record(
    folder: Path, options: Mapping[str, Any], backend: Backend, told: Mapping[str, Any]
) -> None:
    """Write ``history.json``: the options, the machine, and what else is told."""
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        **backend.describe(),
    }
    files.write_json(folder / HISTORY, {"options": options, "machine": machine, **told})


def draw_mistakes(
    x: HostArray,
    labels: HostArray,
    answers: HostArray,
    names: tuple[str, ...] | None,
    *,
    inked: bool = True,
) -> dict[str, Figure]:
    """Return the first pictures that were misclassified and the confusion of classes, by file.

    Parameters
    ----------
    x : array (N, C, H, W), or StoredPictures
        The whole test set.
    labels, answers : array of int, (N,)
        Of it.
    names : tuple of str, optional
        Of the classes; their numbers by default.
    inked : bool
        Whether 0 is white paper and not black.
    """
    wrong = (answers != labels).nonzero()[0]
    told = f"{len(wrong):,} of {len(labels):,} misclassified"
    first = wrong[:MOST_SHOWN]
    only = f", the first {len(first)}" if len(first) < len(wrong) else ""
    return {
        MISCLASSIFIED: plots.misclassified(
            x[first],
            labels[first].tolist(),
            answers[first].tolist(),
            names,
            f"{told}{only}: ",
            cmap="gray_r" if inked else "gray",
        ),
        CONFUSION: plots.confusion_matrix(labels, answers, names, told),
    }


def save_figures(folder: Path, figures: Mapping[str, Figure]) -> None:
    """Write each figure to the file of its name, as PNG."""
    for name, figure in figures.items():
        with files.replacing(folder / name) as stream:
            figure.savefig(stream, format="png", dpi=110)
