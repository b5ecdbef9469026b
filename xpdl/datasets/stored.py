"""Pictures that stay in a file, of which as many are read as a batch needs."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl.arguments import path_of, real_array, sizes
from xpdl.errors import DataFileError, FileAccessError, ShapeError


class StoredPictures:
    """Pictures (N, C, H, W) of uint8 in a file of nothing but pixels; more than memory may hold.

    It has an array's shape, dtype and nbytes, and is indexed along its first axis, by a slice or by
    an array of numbers, which reads those pictures; `numpy.asarray` reads all.

    Parameters
    ----------
    path : str or path
        The file, whose rows of C * H * W bytes are pictures.
    rows : array (N,) of int
        Which of its rows these are.
    shape : (int, int, int)
        (C, H, W).
    source : str
        What tells the file's pictures from others, so that they need not be read for it: a digest.

    Raises
    ------
    FileAccessError, DataFileError
        If the file cannot be read, or has not all of these rows.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        path: str | os.PathLike[str],
        rows: npt.NDArray[Any],
        shape: Sequence[int],
        source: str = "",
    ) -> None:
        self.path = path_of("path", path)
        self.source = source
        self._rows = real_array("rows", rows, "iu").astype(np.int64, copy=False)
        shape = sizes("shape", shape)
        if self._rows.ndim != 1 or len(shape) != 3:
            raise ShapeError(
                f"rows must be (N,) and shape (C, H, W), got {self._rows.shape} and {shape}."
            )
        try:
            content = np.memmap(path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FileAccessError(f"cannot read {str(path)!r}: {reason}.") from error
        whole = len(content) // math.prod(shape)
        if len(self._rows) and not 0 <= self._rows.min() <= self._rows.max() < whole:
            raise DataFileError(
                f"{str(path)!r} holds {whole:,} pictures of shape {shape}, and not all rows."
            )
        self._pictures = content[: whole * math.prod(shape)].reshape(whole, *shape)
        self.shape: tuple[int, ...] = (len(self._rows), *shape)

    @property
    def nbytes(self) -> int:
        """How many bytes all would take."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, which: Any) -> npt.NDArray[np.uint8]:
        return np.take(self._pictures, self._rows[which], axis=0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("pictures of a file cannot be an array without being read")
        return self[:].astype(dtype or np.uint8, copy=False)

    def digest(self) -> str:
        """Return the SHA-256 of the source and of which rows these are, in hexadecimal."""
        import hashlib  # brings in OpenSSL, which only this needs

        told = f"{self.source} {self.shape}".encode()
        return hashlib.sha256(told + self._rows.tobytes()).hexdigest()

    def part(self, which: npt.NDArray[Any]) -> StoredPictures:
        """Return those of the numbers `which`, (M,), or where it is true, (N,), not read yet."""
        return StoredPictures(self.path, self._rows[which], self.shape[1:], self.source)
