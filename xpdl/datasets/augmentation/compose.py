"""Augmentations one after another, and by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from xpdl.arguments import plainly
from xpdl.backends import Array, RandomGenerator, Shape
from xpdl.datasets.augmentation.base import Augmentation, OfRows
from xpdl.datasets.augmentation.color import ColorJitter
from xpdl.datasets.augmentation.elastic import Elastic
from xpdl.datasets.augmentation.geometric import Crop, Flip, Geometric, Rotate, Shear, Shift, Zoom
from xpdl.datasets.augmentation.mixing import Mixup
from xpdl.datasets.augmentation.pixels import Brightness, Cutout, Erase, Noise
from xpdl.datasets.augmentation.resampling import in_turn, resample
from xpdl.errors import ArgumentError, UnknownNameError, shown


@dataclass(frozen=True)
class Compose(Augmentation):
    """One augmentation after another.

    Geometric ones that follow each other with the same `fill` become one map, with an `Elastic`
    that follows them: pictures are interpolated once, which blurs less, and what one moves out of
    the picture the next can bring back.
    """

    steps: Sequence[Augmentation]

    def __post_init__(self) -> None:
        if not isinstance(self.steps, Iterable) or isinstance(self.steps, type):
            raise ArgumentError(f"steps must be a list of augmentations, got {shown(self.steps)}.")
        steps: list[Augmentation] = []
        for step in self.steps:
            if not isinstance(step, Augmentation):
                raise ArgumentError(
                    f"steps must hold augmentations such as Rotate(10), got {shown(step)}."
                )
            steps += step.steps if isinstance(step, Compose) else [step]
        self._set(steps=tuple(steps))

    def check(self, shape: Shape) -> None:
        super().check(shape)
        for step in self.steps:
            step.check(shape)

    @property
    def mixes(self) -> bool:
        return any(step.mixes for step in self.steps)

    def with_targets(self, x: Array, t: Array, generator: RandomGenerator) -> tuple[Array, Array]:
        # Geometric steps are one map as long as nothing is mixed between them.
        for mixes, steps in groupby(self.steps, lambda step: step.mixes):
            if mixes:
                for step in steps:
                    x, t = step.with_targets(x, t, generator)
            else:
                x = Compose(tuple(steps))(x, generator)
        return x, t

    def change(self, x: Array, generator: RandomGenerator) -> Array:
        def ground(step: Augmentation) -> float | None:
            return step.fill if isinstance(step, Geometric | Elastic) else None

        for fill, steps in groupby(self.steps, ground):
            if fill is None:
                for step in steps:
                    x = step.change(x, generator)
                continue
            maps: list[Array] = []
            for step in steps:
                if isinstance(step, Geometric):
                    maps.append(step.inverse(x, generator))
                elif isinstance(step, Elastic):
                    x = step.bent(x, in_turn(x, maps), generator)
                    maps = []
            if maps:
                x = resample(x, in_turn(x, maps), fill)
        return x


_KINDS: tuple[Callable[..., Augmentation], ...] = (
    *(Rotate, Shift, Zoom, Shear, Crop, Flip, Elastic),
    *(Brightness, ColorJitter, Noise, Erase, Cutout, Mixup),
)

BY_NAME: dict[str, Callable[..., Augmentation]] = {kind.__name__.lower(): kind for kind in _KINDS}


def changes_each_alone(augment: Any) -> bool:
    """Tell whether a picture comes out the same whatever other pictures are in the batch.

    That is known of our own augmentations that mix nothing: they draw by `draw` alone. Another
    function may look at all of the batch, or draw as it likes.
    """
    if isinstance(augment, Compose):
        return all(map(changes_each_alone, augment.steps))
    if isinstance(augment, OfRows):
        return changes_each_alone(augment.augment)
    ours = type(augment).__module__.startswith("xpdl.datasets.augmentation.")
    return isinstance(augment, Augmentation) and ours and not augment.mixes


def make_augmentation(settings: Mapping[str, Any]) -> Compose:
    """Return the augmentations that a dictionary, such as JSON can hold, names in its order.

    Parameters
    ----------
    settings : mapping of str to number, list or mapping
        ``{"rotate": 10, "erase": {"size": [4, 8], "probability": 0.5}}``: what each is made with
        by name, or, for its first setting alone, just that.

    Raises
    ------
    UnknownNameError
        If there is none of a name.
    ArgumentError
        If a setting is not that augmentation's, or does not serve.
    """
    if not isinstance(settings, Mapping):
        raise ArgumentError(
            f'settings must be a dictionary such as {{"rotate": 10}}, got {shown(settings)}.'
        )
    steps = []
    for name, value in settings.items():
        if not isinstance(name, str) or name not in BY_NAME:
            raise UnknownNameError("augmentation", name, BY_NAME)
        kind = BY_NAME[name]
        try:
            steps.append(kind(**value) if isinstance(value, Mapping) else kind(value))
        except ArgumentError as error:
            raise ArgumentError(f"augmentation {name!r}: {error}") from error
        except TypeError as error:
            raise ArgumentError(f"augmentation {name!r}: {plainly(error)}.") from error
    return Compose(steps)
