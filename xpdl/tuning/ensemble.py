"""Several networks that answer together: the mean of their probabilities. Book, section 8.1.2."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xpdl import files, functions
from xpdl.arguments import array_or_list, expect_network, whole_number
from xpdl.backends import Array, backend_of
from xpdl.distributed.ranks import Ranks
from xpdl.errors import ArgumentError, BackendMismatchError, ModelFileError, ShapeError, shown
from xpdl.network import Network
from xpdl.storage import expect_notes, load, load_with_notes
from xpdl.training.history import Epoch
from xpdl.training.settings import differences, training_settings
from xpdl.training.trainer import Trainer
from xpdl.tuning.answers import count_hits
from xpdl.tuning.members import SharedMembers

FILE_FORMAT = "xpdl-ensemble-1"
INDEX = "ensemble.json"
# Keeps the members' seeds apart from other random numbers of the same seed.
ENSEMBLE_STREAM = 6


class Ensemble:
    """Networks whose probabilities are averaged.

    p_k = 1/M sum_m softmax(scores of member m)_k

    Parameters
    ----------
    networks : iterable of Network
        One at least, each for itself, of the same input shape and classes, on one backend. Their
        architectures and float types may differ.

    Attributes
    ----------
    members : tuple of Network

    Raises
    ------
    ArgumentError, ShapeError, BackendMismatchError
        If they do not go together; the message says which.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        if isinstance(networks, Network):
            raise ArgumentError("networks must be a list of networks; for one, give [network].")
        try:
            given = iter(networks)
        except TypeError as error:
            raise ArgumentError(
                f"networks must be a list of networks, got {shown(networks)}."
            ) from error
        self.members = tuple(given)
        if not self.members:
            raise ArgumentError("networks is empty; an ensemble has one member at least.")
        for i, member in enumerate(self.members):
            expect_network(f"networks[{i}]", member)
            if not member.loss_layer.classifies:
                raise ArgumentError(
                    f"networks[{i}], {member.name}, does not tell classes apart: "
                    "it is a regression."
                )
            if any(member is other for other in self.members[:i]):
                raise ArgumentError(f"networks[{i}] is there twice; give another one.")
            first = self.members[0]
            for what in ("input_shape", "output_shape"):
                mine, wanted = getattr(member, what), getattr(first, what)
                if mine != wanted:
                    raise ShapeError(
                        f"networks[{i}], {member.name}, has the {what} {mine}, the first has "
                        f"{wanted}; members must have the same."
                    )
            if member.backend is not first.backend:
                raise BackendMismatchError(
                    f"networks[{i}] is on {member.backend.name!r}, the first on "
                    f"{first.backend.name!r}; use network.to({first.backend.name!r})."
                )
            same = [j for j, other in enumerate(self.members[:i]) if _twins(member, other)]
            if same:
                warnings.warn(
                    f"networks[{i}] has the same parameters as networks[{same[0]}], and so the "
                    "same answers. Give each network, and its Trainer, a seed of its own.",
                    stacklevel=2,
                )

    def predict(self, x: Array, *, batch_size: int = 100) -> Array:
        """Return probabilities (N, classes) for x (N, *input_shape), in float32 at least.

        A network's own `predict` returns scores; those of different networks have no common scale.

        Raises
        ------
        ShapeError, ArgumentError, NonFiniteError, BackendMismatchError
            As `Network.predict`.
        """
        wide = np.result_type(*(member.precision.accumulate for member in self.members))
        parts = [
            functions.softmax(member.predict(x, batch_size=batch_size).astype(wide, copy=False))
            for member in self.members
        ]
        return sum(parts[1:], start=parts[0]) / len(parts)

    def accuracy(self, x: Array, t: Array, *, batch_size: int = 100) -> float:
        """Return the share of samples whose most probable class is theirs, over all of x.

        Parameters
        ----------
        x : array, (N, *input_shape)
        t : array
            Class numbers (N,) or one-hot (N, classes).
        """
        return share_of_hits(self.predict(x, batch_size=batch_size), t)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write each member to member-<i>.safetensors, from 0; `load_ensemble` reads them.

        Raises
        ------
        ArgumentError
            If the folder holds members of another ensemble, or its name is empty.
        FileAccessError
            If the place is read-only or full.
        """
        place = files.make_folder(folder)
        if (place / INDEX).exists() or any(place.glob("member-*.safetensors")):
            raise ArgumentError(f"the folder {str(folder)!r} holds an ensemble; choose another.")
        for i, member in enumerate(self.members):
            member.save(member_path(place, i))
        _write_index(place, len(self.members), {})

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self.members)

    def __repr__(self) -> str:
        return f"Ensemble({list(self.members)})"


def _twins(network: Network, other: Network) -> bool:
    """Say whether two networks are one, made twice."""
    same = _alike(network.params.buffer, other.params.buffer)
    return same and network.config() == other.config()


def _alike(one: Array, other: Array) -> bool:
    """Say whether two buffers of parameters, not empty ones, hold the same."""
    if not one.size or one.shape != other.shape:
        return False
    return bool(backend_of(one, other).item((one == other).all()))


def share_of_hits(y: Array, t: Array) -> float:
    """Return the share of rows of y (N, classes) that are highest at their target.

    Parameters
    ----------
    t : array
        Class numbers (N,) or one-hot (N, classes), on the backend of y.
    """
    t = array_or_list("t", t, backend_of(y).asarray)
    backend = backend_of(y, t)
    functions.check_targets(t, y.shape)
    if t.ndim == 1 and isinstance(t, np.ndarray):
        functions.check_labels(t, y.shape[1])
    return backend.item(count_hits(y, t)) / len(y)


def load_ensemble(folder: str | os.PathLike[str], *, dtype: Any = None) -> Ensemble:
    """Read what `Ensemble.save` or `train_ensemble` wrote; it is born on the active backend.

    Parameters
    ----------
    folder : str or path
    dtype : str or dtype, optional
        Another float policy than the files'.

    Raises
    ------
    FileAccessError
        If a file is missing or cannot be read, as in a folder where `train_ensemble` has not
        come to its end.
    ModelFileError
        If one is foreign or damaged.
    """
    return load_ensemble_with_notes(folder, dtype=dtype)[0]


def load_ensemble_with_notes(
    folder: str | os.PathLike[str], *, dtype: Any = None
) -> tuple[Ensemble, dict[str, Any]]:
    """Read an ensemble as `load_ensemble` does, and what `train_ensemble` was told about it."""
    index = files.read_json(Path(folder) / INDEX)
    count = index.get("members") if isinstance(index, dict) else None
    if count is None or index.get("format") != FILE_FORMAT:
        raise ModelFileError(f"{str(Path(folder) / INDEX)!r} is not the index of an ensemble.")
    try:
        whole_number("members", count)
    except ArgumentError as error:
        raise ModelFileError(f"{str(Path(folder) / INDEX)!r} is damaged: {error}") from error
    about = index.get("about", {})
    try:
        expect_notes(about)
    except ValueError as error:
        raise ModelFileError(f"{str(Path(folder) / INDEX)!r} is damaged: {error}") from error
    first = load(member_path(folder, 0), dtype=dtype)
    others = (load(member_path(folder, i), dtype=dtype) for i in range(1, count))
    return Ensemble([first, *others]), about


def train_ensemble(
    make: Callable[[int], Trainer],
    n: int,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    progress: bool = True,
    about: Mapping[str, Any] | None = None,
    callback: Callable[[int, Trainer], object] | None = None,
    ranks: Ranks | None = None,
) -> Ensemble:
    """Train n networks, each from its own seed, and return their ensemble.

    Parameters
    ----------
    make : callable
        ``make(seed)`` returns a new `Trainer` of a new network; both should use the seed, which
        is all in which the members differ. It is called for one member after another, for those
        too that are in the folder.
    n : int
        How many.
    seed : int
        From which the members' seeds are drawn; that of member i does not depend on n.
    folder : str or path, optional
        Where each member is saved when it is trained, as member-<i>.safetensors; until then, a
        Trainer that has no checkpoint of its own has one there. A later call goes on from that,
        trains the members that are missing (and more, if n has grown), and ends as it would have
        without the interruption.
    progress : bool
        Whether to print a line before and after each member; a Trainer has its own.
    about : mapping, optional
        More to keep in each member's file, as of `Network.save`, and in the index of them all.
    callback : callable, optional
        Called as ``callback(i, trainer)`` when member i is trained, before its file is written; not
        for one from the folder.
    ranks : Ranks, optional
        Processes that each train a member at a time, of which this is rank 0; see `SharedMembers`.

    Raises
    ------
    ArgumentError
        If `make` returns no new Trainer, or the folder holds members of another training; the
        message says in what they differ.
    ModelFileError
        If a file in the folder is foreign or damaged.
    """
    n, seed = whole_number("n", n), whole_number("seed", seed, least=0)
    place = None if folder is None else files.make_folder(folder)
    if place is not None and member_path(place, n).exists():
        raise ArgumentError(
            f"{str(place)!r} holds more than n={n} members; ask for all, or choose another folder."
        )
    members: list[Network] = []
    shared = None
    if ranks is not None:
        there = (place is not None and member_path(place, i).exists() for i in range(n))
        shared = SharedMembers(ranks, [i for i, trained in enumerate(there) if not trained])
    for i in range(n):
        own_seed = member_seed(seed, i)
        trainer = make(own_seed)
        if not isinstance(trainer, Trainer):
            raise ArgumentError(f"make must return a Trainer, got {shown(trainer)}.")
        network = trainer.network
        if trainer.optimizer.iteration or trainer.history.epochs or trainer.stop:
            raise ArgumentError(
                "make must make a new Trainer and a new optimizer each time; this one has "
                "trained, or is to stop."
            )
        Ensemble([*members, network])  # now, rather than after a training, it shows if it cannot
        begin = network.params.buffer.copy()
        if i == 0:
            first, first_seed = begin, trainer.seed
        elif trainer.seed == first_seed and _alike(begin, first):
            raise ArgumentError(
                "make must use its seed: two members begin with the same parameters and see the "
                "data in the same order. Give it to the network and to the Trainer."
            )
        title = f"member {i + 1:>{len(str(n))}}/{n}"
        settings: dict[str, Any] = {}
        path = checkpoint = None
        if place is not None:
            path, checkpoint = member_path(place, i), place / f"checkpoint-{i}.safetensors"
            data = trainer.data_digest()
            settings = {"member_seed": own_seed, **training_settings(trainer), "sha256": data}
        if path is not None and path.exists():
            network = _load_member(path, settings).to(network.backend)
            told = f"from {path}"
        else:
            trainer.checkpoint = trainer.checkpoint or checkpoint
            if progress:
                print(f"{title}  seed {own_seed}", flush=True)
            history = trainer.fit() if shared is None else shared.fit(i, trainer)
            if callback is not None:
                callback(i, trainer)
            if path is not None:
                network.save(path, {**(about or {}), "training": settings})
            told = _accuracy_told(history.epochs[-1])
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        members.append(network)
        if progress:
            print(f"{title}  {told}", flush=True)
    if place is not None:
        _write_index(place, n, about or {})
    return Ensemble(members)


def _accuracy_told(epoch: Epoch) -> str:
    for part, found in (("test", epoch.test), ("validation", epoch.validation)):
        if found is not None and "accuracy" in found:
            return f"{part} accuracy {found['accuracy']:.2%}"
    return "trained"


def member_seed(seed: int, number: int) -> int:
    """Return the seed of member `number`, from 0, of an ensemble that is trained from `seed`."""
    return int(np.random.default_rng([ENSEMBLE_STREAM, seed, number]).integers(2**31))


def member_path(folder: str | os.PathLike[str], number: int) -> Path:
    """Return the file of member `number`, from 0, in an ensemble's folder."""
    return Path(folder) / f"member-{number}.safetensors"


def _load_member(path: Path, settings: dict[str, Any]) -> Network:
    network, about = load_with_notes(path)
    if "training" not in about:
        raise ArgumentError(
            f"{str(path)!r} is not by train_ensemble; choose another folder, or load_ensemble."
        )
    differ = differences(about["training"], settings)
    if differ:
        raise ArgumentError(
            f"{str(path)!r} is of another training: {', '.join(differ)}. "
            "Go on with the same, or start anew elsewhere."
        )
    return network


def _write_index(folder: Path, members: int, about: Mapping[str, Any]) -> None:
    files.write_json(
        folder / INDEX, {"format": FILE_FORMAT, "members": members, "about": dict(about)}
    )
