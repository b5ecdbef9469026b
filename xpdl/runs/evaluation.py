"""What a run left: read it again, and measure it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl import functions
from xpdl.backends import Array, backend_of
from xpdl.datasets import Batches, StoredPictures
from xpdl.datasets.idx_files import has_idx_files
from xpdl.datasets.picture_data import Part
from xpdl.errors import ArgumentError
from xpdl.network import Network
from xpdl.runs.data import TrainedOn, as_taken, is_own, load_pictures, place_of, title_of
from xpdl.runs.folder import HISTORY, MODEL, read_record, resuming
from xpdl.runs.result import Result
from xpdl.storage import load_with_notes
from xpdl.training.data import training_batches
from xpdl.tuning.answers import Predictor, count_hits
from xpdl.tuning.ensemble import INDEX, Ensemble, load_ensemble_with_notes
from xpdl.tuning.shifts import Looks, answering


def load_trained(
    path: str | Path, *, dtype: Any = None
) -> tuple[Network | Ensemble, dict[str, Any]]:
    """Read what a run left, and what it keeps about it.

    Parameters
    ----------
    path : str or path
        A run's folder, or a network's file.
    dtype : str or dtype, optional
        Another float policy than the file's.

    Raises
    ------
    FileAccessError, ModelFileError
        If it cannot be read, or is not by xpdl.
    ArgumentError
        If it is an ensemble of which not all members are trained.
    """
    place = Path(path)
    if (place / INDEX).exists():
        return load_ensemble_with_notes(place, dtype=dtype)
    single = not place.is_dir() or (place / MODEL).exists()
    if not single and (place / HISTORY).exists() and "members" in read_record(place):
        raise ArgumentError(
            f"not all members of the ensemble in {str(path)!r} are trained; go on with "
            f"{resuming(place)}, or give the file of one of them."
        )
    return load_with_notes(path, dtype=dtype)


def load_to_test(
    model: Network | Ensemble,
    about: Mapping[str, Any],
    data: str | None = None,
    *,
    skip_broken: bool = False,
) -> tuple[Part, list[str]]:
    """Return the pictures to measure a model on, labelled by its own classes, and say which.

    They are the test pictures of `data`. Where it has none: of what the model was trained on, those
    that were set aside for that; of other data, all.

    Parameters
    ----------
    model : Network or Ensemble
    about : mapping
        What its file keeps about it.
    data : str, optional
        A name or a path, as of `load_pictures`; by default what it was trained on.
    skip_broken : bool
        Whether to leave out what cannot be read.

    Raises
    ------
    ArgumentError
        If there are classes that the model does not know, or pictures of another form.
    XpdlError
        As `load_pictures`.
    """
    network = model if isinstance(model, Network) else model.members[0]
    own = TrainedOn.from_notes(about)
    place = place_of(about.get("data", "mnist") if data is None else data)
    its_own = own is not None and place == about.get("data")
    form: dict[str, Any] = {}
    if own is not None and its_own:
        form |= own.asked
    elif is_own(place) and os.path.isdir(place) and not has_idx_files(Path(place)):
        form = _form_of(network, own)
    if skip_broken:
        form["skip_broken"] = True
    pictures = load_pictures(place, test=None, **form)
    told, notes = "test pictures", list(pictures.notes)
    if pictures.test is None and own is not None and (its_own or pictures.digest == own.digest):
        pictures, told = pictures.with_test(own.test), "test pictures, which were set aside"
    elif pictures.test is None:
        pictures = replace(pictures, test=pictures.train)
        told = "pictures, all that there are"
    assert pictures.test is not None
    x, t = pictures.test
    names = network.class_names or about.get("class_names")
    if not names:
        return (x, t), [*notes, f"{len(t):,} {told}"]
    lacking = [name for name in names if name not in pictures.class_names]
    told += f"; none of {_listed(lacking)}" if lacking else ""
    t = _in_order_of(names, pictures.class_names, t, title_of(place))
    return (x, t), [*notes, f"{len(t):,} {told}"]


def _form_of(network: Network, own: TrainedOn | None) -> dict[str, Any]:
    """Return the form of the pictures that a network takes, as `load_pictures` wants it."""
    shape = network.input_shape if len(network.input_shape) == 3 else None
    if shape is None and own is not None:
        shape = own.shape
    if shape is None:
        raise ArgumentError(
            f"{network.name} takes {network.input_shape}, and its file does not say which pictures."
        )
    return {"channels": shape[0], "picture_size": tuple(shape[1:])}


def _in_order_of(
    known: Sequence[str], names: Sequence[str], t: npt.NDArray[Any], data: str
) -> npt.NDArray[Any]:
    """Return labels, numbers of `names`, as numbers of those that a network knows."""
    foreign = [name for name in names if name not in known]
    if foreign:
        lacking = [name for name in known if name not in names]
        there = f"; {_listed(lacking)} of its classes are not there" if lacking else ""
        raise ArgumentError(
            f"{data} has pictures of {_listed(foreign)}, which the network does not know{there}. "
            f"It knows {_listed(known)}."
        )
    return np.array([list(known).index(name) for name in names], np.int64)[t]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8:,} more" if len(names) > 8 else ""
    return ", ".join(map(repr, names[:8])) + more


def evaluate(
    model: Network | Ensemble, part: Part, folder: Path, looks: Looks
) -> tuple[Result, float]:
    """Return how a model does on pictures and labels, and its mean loss.

    That of a network is the loss it was trained on; that of an ensemble, and of an average over
    several looks, is the cross entropy of its probabilities.
    """
    network = model if isinstance(model, Network) else model.members[0]
    item = network.backend.item
    batches = training_batches("test", network, _scaled(network, as_taken(network, part)), 100, 0)
    start = time.perf_counter()
    y, t = _scores(model, batches)
    single_look_accuracy = None
    if looks.several:
        single_look_accuracy = item(count_hits(y, t)) / len(t)
        y, _ = _scores(answering(model, looks), batches)
    wrong = len(t) - int(item(count_hits(y, t)))
    seconds = time.perf_counter() - start
    if isinstance(model, Network) and not looks.several:
        loss = network.loss_layer.forward(y, t)
    else:
        loss = functions.cross_entropy_error(y, t)
    result = Result(folder, 1 - wrong / len(t), wrong, len(t), seconds, single_look_accuracy)
    return result, item(loss)


def _scaled(network: Network, part: Part) -> Part:
    """Return pictures as floats from 0 to 1 for a network that does not know what bytes are."""
    x, t = part
    if network.normalize is not None or x.dtype.kind == "f":
        return part
    if isinstance(x, StoredPictures):
        raise ArgumentError(
            f"{network.name} has no Normalize layer, and these pictures are more than the memory "
            "holds."
        )
    return x / np.float32(255), t


def _scores(model: Predictor, batches: Batches) -> tuple[Array, Array]:
    """Return what a model says of all examples, (N, classes), and their labels, in order."""
    pairs = [(model.predict(x), t) for x, t in batches.in_order()]
    concatenate = backend_of(pairs[0][0]).xp.concatenate
    return concatenate([y for y, _ in pairs]), concatenate([t for _, t in pairs])
