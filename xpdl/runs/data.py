"""The pictures of a run: a data set by name or a person's own, in the form its network takes."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl.arguments import number, sizes
from xpdl.backends import get_backend
from xpdl.datasets import (
    CLASS_NAMES,
    DATA_SETS,
    PictureData,
    StoredPictures,
    load,
    load_fashion_mnist,
    load_mnist,
)
from xpdl.errors import ArgumentError, ModelFileError, shown
from xpdl.layers import Normalize
from xpdl.network import Network

LOADERS: dict[str, Callable[..., Any]] = {
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
}
"""The data sets of ink on a ground of 0, whose pixels are scaled and not normalised."""

SHARE = 0.1
"""Of a person's own pictures, set aside for testing, and of the rest for validation."""

_SEEN = 315_000 * 32 * 32  # pixels in a training, which takes minutes
_FEW, _LARGEST_SMALL = 2000, 64
_MOST_MEASURED = 2**26  # numbers, of pictures spread over all: the mean is exact to four digits


def is_own(data: str) -> bool:
    """Say whether data is somebody's own, and no data set by name."""
    return data not in DATA_SETS


def place_of(data: str) -> str:
    """Return a name of a data set as it is, and a path so that it holds wherever one works."""
    return os.path.abspath(data) if is_own(data) and Path(data).exists() else data


def title_of(data: str) -> str:
    """Return what data is called: the name of a data set, or of a file or folder."""
    return Path(data).name or data if is_own(data) else data


def run_name(model: str, data: str) -> str:
    """Return what the folder of a run is called by default: after its time, or one's own data."""
    if not is_own(data):
        return f"{model}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path(data)
    if path.is_file():  # one of IDX is called as all others are
        path = path.with_suffix("") if path.suffix.lower() == ".npz" else path.parent
    return re.sub(r"[^\w.-]+", "-", path.name).strip("-.") or "pictures"


def load_pictures(
    data: str,
    *,
    picture_size: tuple[int, int] | None = None,
    channels: int | None = None,
    skip_broken: bool = False,
    test: float | None = SHARE,
    validation: float = 0.0,
) -> PictureData:
    """Return the pictures of a name or a path, on the host, in their parts.

    Which are set aside is told by what each holds, on every machine alike.

    Parameters
    ----------
    data : str
        What `datasets.load` takes.
    picture_size : (int, int), optional
        Height and width, of a folder's pictures.
    channels : int, optional
        1 or 3, of a folder's pictures.
    skip_broken : bool
        Whether to leave out what cannot be read in a folder.
    test : float, optional
        The share to set aside for testing where there are no such pictures; None sets none aside.
    validation : float
        The share of the training pictures to set aside likewise; 0 sets none aside.

    Raises
    ------
    UnknownNameError, ArgumentError, DataError, FileAccessError, ImageError
        As `datasets.load`.
    """
    given: dict[str, Any] = {"size": picture_size, "channels": channels}
    given = {name: value for name, value in given.items() if value is not None}
    given |= {"skip_broken": True} if skip_broken else {}
    if data in LOADERS and not given:
        pictures = _of_ink(data)
    else:
        pictures = load(data, split=None, quiet=True, **given)
    try:
        if test is not None and pictures.test is None:
            pictures = pictures.with_test(test)
        if validation and pictures.validation is None:
            pictures = pictures.with_validation(validation)
    except ArgumentError as error:
        raise ArgumentError(f"--test {test:g} --validation {validation:g}: {error}") from error
    return pictures


def _of_ink(name: str) -> PictureData:
    to_numpy = get_backend().to_numpy
    train, test = (
        (to_numpy(x), to_numpy(t)) for x, t in LOADERS[name](normalize=False, flatten=False)
    )
    return PictureData(train, test, CLASS_NAMES[name], digest="")


def normalizing(data: str, pictures: PictureData, flat: bool = False) -> Normalize:
    """Return what a network of these pictures does to them first, as its training pictures say.

    y = (x / 255 - mean) / deviation, of each channel, or of all together if the network takes them
    `flat`. Measured are as many pictures, evenly spread, as have 2^26 numbers. MNIST's are scaled
    only.
    """
    if data in LOADERS:
        return Normalize(255)
    x = pictures.train[0]
    each = math.prod(x.shape[1:])
    step = -(-len(x) * each // _MOST_MEASURED)
    some = x[np.arange(0, len(x), step)]
    mean, deviation = _measure(some.reshape(len(some), 1 if flat else x.shape[1], -1))
    return Normalize(255, mean, deviation)


def _measure(x: npt.NDArray[Any]) -> tuple[list[float], list[float]]:
    """Return the mean and the deviation of each channel of x (N, C, P), of bytes scaled to 0..1."""
    means, deviations = [], []
    for channel in range(x.shape[1]):
        pixels = x[:, channel]
        if x.dtype.kind == "f":
            mean, deviation = pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64)
        else:  # whole numbers add up to the same on every machine
            counts = np.zeros(256, np.int64)
            for picture in pixels:
                counts += np.bincount(picture, minlength=256)
            levels = np.arange(256) / 255
            mean = counts @ levels / counts.sum()
            deviation = (counts @ (levels - mean) ** 2 / counts.sum()) ** 0.5
        means.append(round(float(mean), 6))
        deviations.append(round(float(deviation), 6) or 1.0)  # of one shade only
    return means, deviations


def as_taken(network: Network, part: tuple[Any, Any]) -> tuple[Any, Any]:
    """Return the pictures and labels of a part in the form that a network takes.

    Raises
    ------
    ArgumentError
        If it takes others, or takes them flat and they stay in a file.
    """
    x, t = part
    if len(network.input_shape) == 1:
        if isinstance(x, StoredPictures):
            raise ArgumentError(
                f"{network.name} takes pictures as rows of numbers, and these are more than the "
                "memory holds; choose another model, or a smaller --picture-size."
            )
        x = x.reshape(len(x), -1)
    expect_fitting(network, part[0].shape[1:])
    return x, t


def expect_fitting(network: Network, shape: tuple[int, ...]) -> None:
    """See that a network takes pictures of a shape (C, H, W), and tells classes apart.

    Raises
    ------
    ArgumentError
        If it does not.
    """
    if network.input_shape not in (shape, (math.prod(shape),)):
        raise ArgumentError(
            f"{network.name} takes inputs of shape {network.input_shape}; the pictures are {shape}."
        )
    if not network.loss_layer.classifies:
        raise ArgumentError(f"{network.name} does not tell classes apart: it is a regression.")


@dataclass(frozen=True)
class TrainedOn:
    """What a network's file keeps about the pictures of somebody's own that it was trained on.

    Attributes
    ----------
    shape : (C, H, W)
    digest : str
        Of all of them.
    test : float
        The share that was set aside for testing where there were no such pictures.
    asked : dict
        Of `load_pictures`: the form that was asked for.
    """

    shape: tuple[int, ...]
    digest: str
    test: float = SHARE
    asked: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_notes(cls, about: Mapping[str, Any]) -> TrainedOn | None:
        """Return what a file's notes say; None if they say nothing.

        Raises
        ------
        ModelFileError
            If they are damaged.
        """
        if "pictures" not in about:
            return None
        try:
            told = cls(**about["pictures"])
            number("test", told.test, above=0, below=1)
            asked = dict(told.asked)
            if not asked.keys() <= {"picture_size", "channels", "skip_broken"}:
                raise ValueError(f"what was asked for is {shown(asked)}")
            if "picture_size" in asked:  # a list, from JSON
                asked["picture_size"] = sizes("picture_size", asked["picture_size"], 2)
            return replace(told, shape=sizes("shape", told.shape, 3), asked=asked)
        except (TypeError, ValueError) as error:
            raise ModelFileError(
                f"the file's notes on its pictures are damaged: {error}"
            ) from error


def notes_of(pictures: PictureData, data: str, test: float, **asked: Any) -> dict[str, Any]:
    """Return what a network's file keeps about the pictures that it was trained on."""
    notes = {"data": data, "class_names": list(pictures.class_names)}
    if data in LOADERS:
        return notes
    asked = {name: value for name, value in asked.items() if value is not None}
    return notes | {"pictures": asdict(TrainedOn(pictures.shape, pictures.digest, test, asked))}


def parts_told(pictures: PictureData) -> str:
    """Say how many pictures there are for what."""
    parts = {"to train with": pictures.train, "for validation": pictures.validation}
    parts["to test with"] = pictures.test
    told = [f"{len(part[1]):,} {use}" for use, part in parts.items() if part is not None]
    return f"{', '.join(told)}: {_few(pictures.class_names)}"


def _few(names: tuple[str, ...]) -> str:
    more = f" ... ({len(names):,} classes)" if len(names) > 12 else ""
    return ", ".join(names[:12]) + more


def usual_recipe(data: str, pictures: PictureData) -> tuple[str, Mapping[str, Any]]:
    """Return the recipe that suits pictures if none is named, and what else of it suits these.

    Few pictures are seen more often, in smaller batches, and large ones moved further. Pictures
    with a longer side than 64 go through a network that begins by making them smaller.
    """
    if data in LOADERS:
        return "fast", {}
    colored, sides = pictures.shape[0] == 3, pictures.shape[1:]
    crop = {"crop": {"pad": max(1, min(sides) // 8)}}
    pixels = len(pictures.train[1]) * math.prod(sides)
    suited: dict[str, Any] = {
        "epochs": min(30, max(7, round(_SEEN / pixels))),
        "augment": {"flip": 0.5, **crop} if colored else crop,
    }
    if len(pictures.train[1]) < _FEW:
        suited["batch_size"] = 32
    if max(sides) > _LARGEST_SMALL:
        suited["model"] = "ResNet"
    return "photos" if colored else "drawings", suited
