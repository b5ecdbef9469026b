"""Pictures looked at more than once, shifted a little or mirrored: the mean of the answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

from xpdl.arguments import array_or_list, flag, number, whole_number
from xpdl.backends import Array, backend_of
from xpdl.errors import ArgumentError, ShapeError, shown
from xpdl.network import Network
from xpdl.tuning.ensemble import Ensemble, share_of_hits


class ShiftAverage:
    """A network, or an ensemble, whose probabilities are averaged over shifted pictures.

    p = 1/9 sum over i, j in {-k, 0, k} of softmax(scores of x shifted by i rows and j columns)

    Where a picture has moved away there is `fill`. The mistakes at the nine places are partly
    different ones, and the mean makes fewer; it takes nine times as long. With `mirrored` there are
    twice as many looks, at the mirror images as well. (Krizhevsky et al. 2012, section 4.1, average
    over five crops and their mirror images.)

    Parameters
    ----------
    model : Network or Ensemble
        Which tells classes apart and takes pictures (C, H, W).
    shift : int
        How far k a picture is moved, in pixels; 0, with `mirrored`, is not at all.
    fill : float
        What is seen outside of the picture.
    mirrored : bool
        Whether left and right are exchanged, too: for pictures whose mirror image could be one.

    Attributes
    ----------
    shifts : tuple of (int, int)
        The rows and columns by which pictures are moved, down and to the right: nine, with (0, 0)
        the first, or that alone.

    Raises
    ------
    ArgumentError, ShapeError
        If the model takes no pictures or tells no classes apart, or a shift would leave nothing of
        them.
    """

    def __init__(
        self,
        model: Network | Ensemble,
        shift: int = 1,
        *,
        fill: float = 0.0,
        mirrored: bool = False,
    ) -> None:
        if not isinstance(model, Network | Ensemble):
            raise ArgumentError(f"model must be a Network or an Ensemble, got {shown(model)}.")
        self.model = model
        self.mirrored = flag("mirrored", mirrored)
        self.shift = whole_number("shift", shift, least=0 if mirrored else 1)
        self.fill = number("fill", fill, above=-math.inf)
        self._ensemble = model if isinstance(model, Ensemble) else Ensemble([model])
        shape = self._ensemble.members[0].input_shape
        if len(shape) != 3:
            raise ShapeError(
                f"model takes inputs of shape {shape}; only pictures (C, H, W) can be shifted."
            )
        if self.shift >= min(shape[1:]):
            raise ShapeError(
                f"shift must be smaller than the picture, {shape[1]} x {shape[2]}, "
                f"got {shown(self.shift)}."
            )
        steps = (0, -self.shift, self.shift) if self.shift else (0,)
        self.shifts = tuple(product(steps, steps))

    def predict(self, x: Array, *, batch_size: int = 100) -> Array:
        """Return probabilities (N, classes) for pictures x (N, C, H, W), in float32 at least.

        On the device of x, in parts of `batch_size`.

        Raises
        ------
        ShapeError, ArgumentError, NonFiniteError, BackendMismatchError
            As `Network.predict`.
        """
        batch_size = whole_number("batch_size", batch_size)
        member = self._ensemble.members[0]
        x = array_or_list("x", x, member.backend.asarray)
        if x.shape[1:] != member.input_shape or not len(x):
            self._ensemble.predict(x)  # says what it wants instead
        parts = [
            self._average(x[start : start + batch_size]) for start in range(0, len(x), batch_size)
        ]
        return parts[0] if len(parts) == 1 else member.backend.xp.concatenate(parts)

    def _average(self, x: Array) -> Array:
        """Return the mean probabilities for a batch x (N, C, H, W)."""
        backend, k, (h, w) = backend_of(x), self.shift, x.shape[2:]
        padded = backend.pad(x, (k, k), self.fill)
        answers = []
        for down, right in self.shifts:
            place = padded[:, :, k - down : k - down + h, k - right : k - right + w]
            for picture in (place, place[..., ::-1]) if self.mirrored else (place,):
                seen = backend.xp.ascontiguousarray(picture)
                answers.append(self._ensemble.predict(seen, batch_size=len(seen)))
        return sum(answers[1:], start=answers[0]) / len(answers)

    def accuracy(self, x: Array, t: Array, *, batch_size: int = 100) -> float:
        """Return the share of pictures whose most probable class is theirs, over all of x.

        Parameters
        ----------
        x : array, (N, C, H, W)
        t : array
            Class numbers (N,) or one-hot (N, classes).
        """
        return share_of_hits(self.predict(x, batch_size=batch_size), t)

    def __repr__(self) -> str:
        mirrored = ", mirrored=True" if self.mirrored else ""
        return f"ShiftAverage({self.model!r}, shift={self.shift}, fill={self.fill:g}{mirrored})"


class Looks(NamedTuple):
    """How a network looks at a picture that it answers: as it is, or as `ShiftAverage` does."""

    shifts: int = 0
    mirrored: bool = False

    @property
    def several(self) -> bool:
        """Whether there is more than one look."""
        return self.shifts > 0 or self.mirrored

    def __str__(self) -> str:
        over = ["shifts"] * (self.shifts > 0) + ["mirror images"] * self.mirrored
        return " and ".join(over)

    @classmethod
    def asked(
        cls, about: Mapping[str, Any], shifts: int | None = None, mirrored: bool | None = None
    ) -> Looks:
        """Return how a network looks: as is asked for, or else as the notes in its file say."""
        return cls(
            about.get("shifts", 0) if shifts is None else shifts,
            about.get("mirrored", False) if mirrored is None else flag("mirrored", mirrored),
        )

    def notes(self) -> dict[str, Any]:
        """Return what a network's file keeps of it; nothing if there is one look."""
        return {name: value for name, value in self._asdict().items() if value}


def answering(model: Network | Ensemble, looks: Looks) -> Ensemble | ShiftAverage:
    """Return what gives the probabilities by which a model answers that looks so.

    Raises
    ------
    ArgumentError
        If pictures are to be shifted or mirrored, and the model takes none.
    """
    ensemble = model if isinstance(model, Ensemble) else Ensemble([model])
    if not looks.several:
        return ensemble
    first = ensemble.members[0]
    if len(first.input_shape) != 3:
        wrong = f"shifts must be 0, got {looks.shifts}"
        if not looks.shifts:
            wrong = "mirrored must be False, got True"
        raise ArgumentError(
            f"{wrong}: {first.name} takes inputs of shape {first.input_shape}, and only pictures "
            "(C, H, W) can be shifted or mirrored."
        )
    return ShiftAverage(ensemble, looks.shifts, mirrored=looks.mirrored)
