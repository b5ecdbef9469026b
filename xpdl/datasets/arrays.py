"""A data set made of arrays: pictures in any usual layout, labels in any usual form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl.arguments import check_finite
from xpdl.datasets.picture_data import Part, PictureData, expect_names_of_a_line
from xpdl.datasets.progress import say
from xpdl.errors import DataError

MOST_CLASSES = 100_000
_CHANNELS = (1, 3)


def data_of_arrays(
    parts: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    *,
    class_names: Sequence[str] | None = None,
    split: float | None = 0.1,
    seed: int = 0,
    notes: Sequence[str] = (),
    quiet: bool = False,
) -> PictureData:
    """Return a data set of the arrays of its parts, 'train' and perhaps 'test' and 'validation'.

    Parameters
    ----------
    parts : mapping of str to (x, t)
        Pictures (N, H, W), (N, C, H, W) or (N, H, W, C), of bytes, or floats; labels (N,) or (N, 1)
        of whole numbers or texts, or one-hot (N, classes).
    class_names : sequence of str, optional
        What the labels 0, 1 ... stand for; by default the labels themselves.
    split : float, optional
        Where there are no test pictures, the share to set aside for them; None sets none aside.
    seed : int
        For that.
    quiet : bool
        Whether to leave it at `notes`, rather than to print them.

    Raises
    ------
    DataError, NonFiniteError
        If the arrays are no such pictures and labels.
    ArgumentError
        If `split` leaves none on one side.
    """
    import hashlib  # brings in OpenSSL, which only this needs

    said = list(notes)
    pictures = {part: _pictures(part, x, said) for part, (x, _) in parts.items()}
    classes = {part: _classes(part, t, len(pictures[part])) for part, (_, t) in parts.items()}
    shapes = {x.shape[1:] for x in pictures.values()}
    if len(shapes) > 1:
        raise DataError(f"the parts have pictures of several shapes: {sorted(shapes)}.")
    labels, names = _numbered(classes, class_names)
    expect_names_of_a_line(names)
    digest = hashlib.sha256(repr(names).encode())
    for part in sorted(pictures):
        for a in (pictures[part], labels[part]):
            digest.update(f"{part} {a.dtype} {a.shape}".encode())
            digest.update(np.ascontiguousarray(a).data)
    made: dict[str, Part] = {part: (pictures[part], labels[part]) for part in pictures}
    train = made["train"][0]
    said.insert(0, _told(train, len(names)))
    data = PictureData(
        made["train"],
        made.get("test"),
        names,
        digest.hexdigest(),
        made.get("validation"),
        tuple(said),
    )
    if data.test is None and split is not None:
        data = data.with_test(split, seed)
    for note in () if quiet else said:
        say(note)
    return data


def _told(x: npt.NDArray[Any], classes: int) -> str:
    channels, height, width = x.shape[1:]
    shade = {1: "grey", 3: "in colour"}.get(channels, f"{channels} channels")
    size = f"{height} x {width} pixels"
    return f"{len(x):,} training pictures of {classes:,} classes, {size}, {shade}"


def _pictures(part: str, x: npt.NDArray[Any], said: list[str]) -> npt.NDArray[Any]:
    """Return pictures (N, C, H, W), of bytes or of float32 from 0 to 1."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"the {part} pictures must be numbers, got dtype {x.dtype}.")
    check_finite(f"the {part} pictures", x)
    if not x.size:
        raise DataError(f"the {part} pictures are none: their shape is {x.shape}.")
    if x.ndim == 3:
        x = x[:, np.newaxis]
    elif x.ndim == 4 and x.shape[1] not in _CHANNELS and x.shape[3] in _CHANNELS:
        x = x.transpose(0, 3, 1, 2)
    elif x.ndim != 4:
        raise DataError(
            f"the {part} pictures must be of shape (N, H, W), (N, C, H, W) or (N, H, W, C), "
            f"got {x.shape}."
        )
    x = np.ascontiguousarray(x)
    least, greatest = x.min(), x.max()
    if x.dtype.kind == "f":
        if least >= 0 and 1 < greatest <= 255 and bool((x == np.rint(x)).all()):
            return x.astype(np.uint8)
        if part == "train" and not 0 <= least <= greatest <= 1:
            said.append(f"pixels are from {least:g} to {greatest:g}, and are left so")
        return x.astype(np.float32, copy=False)
    if 0 <= least <= greatest <= 1:  # black and white
        return x.astype(np.uint8) * np.uint8(255)
    if 0 <= least <= greatest <= 255:
        return x.astype(np.uint8, copy=False)
    raise DataError(
        f"the {part} pictures must be whole numbers from 0 to 255, or floats, got {x.dtype} from "
        f"{least} to {greatest}; divide them by the greatest."
    )


def _classes(part: str, t: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return one label for each picture, (N,): whole numbers, or texts."""
    if t.ndim == 2 and t.shape[1] == 1:
        t = t[:, 0]
    elif t.ndim == 2 and t.dtype.kind in "biuf":
        if not (((t == 0) | (t == 1)).all() and (t.sum(axis=1) == 1).all()):
            raise DataError(f"the {part} labels of shape {t.shape} must be one-hot.")
        t = t.argmax(axis=1)
    if t.shape != (length,):
        raise DataError(
            f"the {part} labels must be one for each of {length:,} pictures, got shape {t.shape}."
        )
    if t.dtype.kind in "SU":
        return t.astype(str)
    if t.dtype.kind not in "biuf" or not (t == np.rint(t)).all():
        raise DataError(f"the {part} labels must be whole numbers or texts, got dtype {t.dtype}.")
    return t.astype(np.int64)


def _numbered(
    classes: Mapping[str, npt.NDArray[Any]], names: Sequence[str] | None
) -> tuple[dict[str, npt.NDArray[np.int64]], tuple[str, ...]]:
    """Return the labels as numbers from 0 on, and what they stand for."""
    used = np.unique(np.concatenate([*classes.values()]))
    trained = np.unique(classes["train"])
    if missing := sorted(set(used.tolist()) - set(trained.tolist())):
        raise DataError(f"there is nothing to train with of the labels {missing[:5]}.")
    if len(used) < 2 or len(used) > MOST_CLASSES:
        raise DataError(
            f"there must be 2 classes at least and {MOST_CLASSES:,} at most, got {len(used):,}."
        )
    if used.dtype.kind == "i" and names is not None and 0 <= used[0] <= used[-1] < len(names):
        return dict(classes), tuple(names)
    if names is not None:
        raise DataError(f"there are {len(names):,} class names, and the labels {used[-5:]}.")
    numbered = {part: np.searchsorted(used, t) for part, t in classes.items()}
    return numbered, tuple(map(str, used.tolist()))
