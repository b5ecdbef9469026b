"""What pictures show, by a trained network: files, folders, arrays, in the order asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from xpdl.architecture.shapes import advice
from xpdl.arguments import flag, whole_number
from xpdl.backends import backend_of
from xpdl.datasets import StoredPictures, prepare_digit, prepare_picture
from xpdl.datasets.opening import Picture
from xpdl.datasets.progress import say
from xpdl.errors import ArgumentError, DataError, FileAccessError, ShapeError, XpdlError, shown
from xpdl.network import Network
from xpdl.runs.data import TrainedOn
from xpdl.runs.evaluation import load_trained
from xpdl.tuning.ensemble import Ensemble
from xpdl.tuning.shifts import Looks, ShiftAverage, answering

Model: TypeAlias = "str | os.PathLike[str] | Network | Ensemble | ShiftAverage"
Named: TypeAlias = tuple[str, npt.NDArray[Any]]
OnError: TypeAlias = Callable[[str, XpdlError], object]


@dataclass(frozen=True, eq=False)
class Answer:
    """What a network sees in a picture.

    Attributes
    ----------
    picture : str
        The file; of what has no name, its number among all, "picture 3".
    class_names : tuple of str, (K,)
    probabilities : array (K,) of float32 or float64, on the host
    """

    picture: str
    class_names: tuple[str, ...]
    probabilities: npt.NDArray[Any]

    def top(self, n: int = 5) -> list[tuple[str, float]]:
        """Return the n most probable classes and their probabilities, the first first."""
        order = np.argsort(-self.probabilities, kind="stable")[: whole_number("n", n)]
        return [(self.class_names[i], float(self.probabilities[i])) for i in order]

    def __str__(self) -> str:
        name = self.picture if self.picture.isprintable() else repr(self.picture)
        return f"{name}: {', '.join(f'{label} ({p:.1%})' for label, p in self.top())}"

    __repr__ = __str__


def classify(
    model: Model,
    pictures: Picture | Iterable[Any],
    *,
    batch_size: int = 100,
    shifts: int | None = None,
    mirrored: bool | None = None,
    digits: bool | None = None,
    about: Mapping[str, Any] | None = None,
    on_error: OnError | None = None,
) -> Iterator[Answer]:
    """Yield what a trained network sees in each picture, in the order asked.

    Pictures are read and answered a batch at a time. They are brought to the form that the network
    takes as `load_folder` brings a folder's, by `prepare_picture`; for a network of MNIST as
    MNIST's digits were, by `prepare_digit`.

    Parameters
    ----------
    model : path, Network, Ensemble or ShiftAverage
        That tells classes apart; or a run's folder, or a network's file.
    pictures : picture, or iterable of pictures
        Each a file's or a folder's name, of whose pictures all are meant; the bytes of a file, or
        one that is open for reading bytes; a ``PIL.Image.Image``; or an array: (H, W) or
        (H, W, C), or several (N, C, H, W); or samples (N, *input_shape), or one, which are given to
        the network as they are.
    batch_size : int
        How many the network is given at once.
    shifts : int, optional
        Answer by the average over pictures moved so far, see `ShiftAverage`; by default as the
        run's network was trained for.
    mirrored : bool, optional
        Answer by the average over pictures and their mirror images; by default the same.
    digits : bool, optional
        Whether pictures are brought to MNIST's form. By default where `about` says that the
        network is of MNIST; and where nothing tells of its data, if it takes pictures of 28 x 28,
        grey, tells ten classes apart and gives them no names.
    about : mapping, optional
        What the file of a network that was read before keeps about it, as `load_trained` returns.
    on_error : callable, optional
        Called with the name of what cannot be read, and the error; there is no answer then.
        Without it the error is raised.

    Raises
    ------
    ArgumentError, ShapeError
        If an argument does not fit, or the network takes no pictures of this kind.
    FileAccessError, ModelFileError
        If the model cannot be read.
    FileAccessError, DataError, ImageError
        As answers are asked for, if a file, a folder or a picture cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> from xpdl import Network
    >>> from xpdl.layers import Affine
    >>> net = Network([Affine(2)], (3, 8, 8), class_names=["rose", "tulip"])
    >>> [answer] = classify(net, np.zeros((60, 80, 3), "uint8"))
    >>> answer.top(1)
    [('rose', 0.5)]
    """
    if isinstance(model, str | os.PathLike):
        model, read = load_trained(os.fspath(model))
        about = read if about is None else about
    about = {} if about is None else about
    if isinstance(model, ShiftAverage):
        predictor: Ensemble | ShiftAverage = model
        model = model.model
    else:
        predictor = answering(model, Looks.asked(about, shifts, mirrored))
    network = model if isinstance(model, Network) else model.members[0]
    digits = _of_digits(network, about) if digits is None else flag("digits", digits)
    takes = _Form(network, digits, about)
    reader = _Reader(takes, on_error)
    batches = _batches(reader.samples(_listed(pictures)), whole_number("batch_size", batch_size))
    names = _class_names(network, about)

    def answers() -> Iterator[Answer]:
        for labels, x in batches:
            p = network.backend.to_numpy(predictor.predict(network.backend.asarray(x)))
            yield from (Answer(*told) for told in zip(labels, [names] * len(p), p, strict=True))

    return answers()


class _Form:
    """What a network takes: how pictures are brought to it."""

    def __init__(self, network: Network, digits: bool, about: Mapping[str, Any]) -> None:
        self.shape = network.input_shape
        if isinstance(self.shape, dict) or len(network.output_shapes) > 1:
            raise ArgumentError(
                f"{network.name} has several inputs or outputs; use its predict, with arrays."
            )
        if len(network.output_shape) != 1:
            raise ArgumentError(
                f"{network.name} ends in {network.output_shape}, not in a score for each class."
            )
        self._name, self._digits, self._normalize = network.name, digits, network.normalize
        own = TrainedOn.from_notes(about)  # a flat network does not say what pictures it takes
        flat = (1, 28, 28) if self.shape == (784,) else self.shape
        self._picture = flat if own is None or len(self.shape) == 3 else own.shape
        if digits and self._picture != (1, 28, 28):
            raise ArgumentError(
                f"digits is True, and {network.name} takes {self.shape}; MNIST's are (1, 28, 28)."
            )

    def sample(self, picture: Picture) -> npt.NDArray[Any]:
        """Return a picture as the network takes it, in the numbers that it takes."""
        if self._digits:
            divisor = 255.0 if self._normalize is None else self._normalize.divisor
            return (prepare_digit(picture) * np.float32(255 / divisor)).reshape(self.shape)
        if len(self._picture) != 3 or self._picture[0] not in (1, 3):
            raise ArgumentError(
                f"{self._name} takes inputs of shape {self.shape}, and pictures are (C, H, W) with "
                "C of 1 or 3; give it arrays of that shape."
            )
        pixels = prepare_picture(picture, self._picture).reshape(self.shape)
        return pixels if self._normalize else pixels.astype(np.float32) / np.float32(255)


class _Reader:
    """Goes through what is given, and makes samples of it."""

    def __init__(self, form: _Form, on_error: OnError | None) -> None:
        self._form, self._on_error, self._seen = form, on_error, 0

    def samples(self, given: Iterable[Any]) -> Iterator[Named]:
        """Yield a name and a sample for each picture."""
        for item in given:
            if isinstance(item, str | os.PathLike) and os.path.isdir(item):
                yield from self._folder(Path(item))
            elif _is_array(item) and item.shape[1:] == self._form.shape:
                for i in range(len(item)):
                    yield self._number(), _on_host(item[i : i + 1])[0]
            elif _is_array(item) and item.shape == self._form.shape:
                yield self._number(), _on_host(item)
            elif _is_array(item) and item.ndim == 4 and item.shape[1] in (1, 3):
                for i in range(len(item)):
                    yield from self._picture(_on_host(item[i : i + 1])[0].transpose(1, 2, 0))
            else:
                yield from self._picture(item)

    def _folder(self, folder: Path) -> Iterator[Named]:
        from xpdl.datasets.folder.decoding import look  # `import xpdl` shall be quick
        from xpdl.datasets.folder.listing import list_pictures

        try:
            listing = list_pictures(folder)
        except (DataError, FileAccessError) as error:
            self._give_up(str(folder), error)
            return
        for note in listing.notes():
            say(f"{str(folder)!r}: {note}")
        for file in listing.files:
            if os.path.splitext(file.name)[1] or "foreign" not in look(file.path):
                yield from self._picture(file.path)

    def _picture(self, picture: Any) -> Iterator[Named]:
        number = self._number()
        if _is_array(picture) and not _is_picture(picture.shape):
            raise ShapeError(
                "an array must be a picture (H, W) or (H, W, C), or samples "
                f"(N, {', '.join(map(str, self._form.shape))}), got {picture.shape}."
                f"{advice(picture, self._form.shape)}"
            )
        name = _name_of(picture) or number
        try:
            yield name, self._form.sample(picture)
        except (DataError, FileAccessError) as error:
            self._give_up(name, error)

    def _number(self) -> str:
        self._seen += 1
        return f"picture {self._seen}"

    def _give_up(self, name: str, error: XpdlError) -> None:
        if self._on_error is None:
            raise error
        self._on_error(name, error)


def _of_digits(network: Network, about: Mapping[str, Any]) -> bool:
    """Say whether a network learned from MNIST, of which old files hold no word."""
    if "data" in about:
        return bool(about["data"] == "mnist")
    fits = network.input_shape in ((784,), (1, 28, 28)) and network.output_shape == (10,)
    return fits and network.class_names is None and not about.get("class_names")


def _class_names(network: Network, about: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what the classes are called; those without names by their numbers."""
    (classes,) = network.output_shape
    names = network.class_names or tuple(about.get("class_names") or ())
    return names if len(names) == classes else tuple(map(str, range(classes)))


def _listed(pictures: Any) -> Iterable[Any]:
    """Return what is given as several, though it be one."""
    alone = isinstance(pictures, str | os.PathLike | bytes | bytearray | memoryview)
    if alone or hasattr(pictures, "read") or hasattr(pictures, "getexif") or _is_array(pictures):
        return [pictures]
    try:
        return iter(pictures)
    except TypeError as error:
        raise ArgumentError(
            f"pictures must be a picture, a folder, or a list of these, got {shown(pictures)}."
        ) from error


def _batches(samples: Iterator[Named], size: int) -> Iterator[tuple[list[str], npt.NDArray[Any]]]:
    """Yield the names and samples (n, *shape) of at most `size`, all of one type."""
    names: list[str] = []
    held: list[npt.NDArray[Any]] = []
    for name, sample in samples:
        if held and (len(held) == size or sample.dtype != held[0].dtype):
            yield names, np.stack(held)
            names, held = [], []
        names.append(name)
        held.append(sample)
    if held:
        yield names, np.stack(held)


def _name_of(picture: Any) -> str:
    """Return the name that a picture has by itself, or none."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    name = getattr(picture, "filename", None) or getattr(picture, "name", None)
    if name == "<stdin>":
        return "-"  # as the command is asked for it
    return name if isinstance(name, str) else ""


def _is_picture(shape: tuple[int, ...]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2, 3, 4))


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _on_host(array: Any) -> npt.NDArray[Any]:
    if isinstance(array, np.ndarray | StoredPictures):
        return np.asarray(array)
    on_host: npt.NDArray[Any] = backend_of(array).to_numpy(array)
    return on_host
