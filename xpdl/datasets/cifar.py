"""CIFAR-10: 60,000 small photographs in colour, of ten classes (Krizhevsky 2009)."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from xpdl.datasets.idx import ByteArray
from xpdl.datasets.sources import read_files
from xpdl.errors import DataFileError

SHAPE = (3, 32, 32)
_ROW = 1 + 3 * 32 * 32  # a label, then the pixels
_TRAIN = tuple(f"cifar-10-batches-bin/data_batch_{k}.bin" for k in range(1, 6))
_TEST = ("cifar-10-batches-bin/test_batch.bin",)


class CifarArrays(NamedTuple):
    """The data set as it was published: uint8 arrays on the host.

    Images are (N, 3, 32, 32), red, green and blue; labels are (N,), 0 to 9.
    """

    x_train: ByteArray
    t_train: ByteArray
    x_test: ByteArray
    t_test: ByteArray


def read_cifar10(offline: bool | None = None) -> CifarArrays:
    """Return the images and labels of CIFAR-10 as they were published.

    The archive, of 170 MB, is fetched from its publisher into the local data folder if it is not
    there; see `xpdl.datasets.sources`. ``CLASS_NAMES["cifar-10"]`` says what the classes are.

    Parameters
    ----------
    offline : bool, optional
        True never uses the network; None lets the variable ``XPDL_OFFLINE`` say so.

    Returns
    -------
    CifarArrays
        50,000 training images (N, 3, 32, 32) and labels (N,), then 10,000 test images and labels.

    Raises
    ------
    DataFileError
        If the archive in the data folder is truncated or altered.
    DataUnavailableError
        If its publisher does not answer.
    FileAccessError
        If the data folder cannot be read or written.
    """
    import tarfile  # brings in much that only this needs

    (content,) = read_files("cifar-10", offline)
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:

        def read(*members: str) -> tuple[ByteArray, ByteArray]:
            rows = np.concatenate([_rows(archive.extractfile(name)) for name in members])
            return rows[:, 1:].reshape(-1, *SHAPE), rows[:, 0].copy()

        return CifarArrays(*read(*_TRAIN), *read(*_TEST))


def _rows(member: object) -> npt.NDArray[np.uint8]:
    if not isinstance(member, io.BufferedIOBase):
        raise DataFileError("a member of the archive is no file.")
    return np.frombuffer(member.read(), np.uint8).reshape(-1, _ROW)
