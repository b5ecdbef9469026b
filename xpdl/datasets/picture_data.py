"""A data set of pictures, as a training takes it: parts, classes, and what is known of it."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from xpdl.datasets.splitting import Keys, keys_of, set_aside
from xpdl.datasets.stored import StoredPictures
from xpdl.errors import ArgumentError, DataError

Part: TypeAlias = tuple[Any, Any]
"""Pictures (N, C, H, W) and their labels (N,) of int64."""

_OF_VALIDATION = 2**63  # keeps which pictures are for validation apart from which are for testing


@dataclass(frozen=True, eq=False)
class PictureData:
    """Pictures and labels, on the host.

    Attributes
    ----------
    train : (x, t)
        Pictures (N, C, H, W), bytes or floats from 0 to 1, in memory or as `StoredPictures`; and
        labels (N,) in int64, numbers of `class_names`.
    test, validation : (x, t) or None
    class_names : tuple of str
    digest : str
        The SHA-256 of what all of it was made of.
    notes : tuple of str
        What there is to say of it, in a line each: the form it was brought to, what was left out.
    keys : array (N,) of uint64, optional
        What tells the training pictures apart; see `splitting.keys_of`.
    """

    train: Part
    test: Part | None
    class_names: tuple[str, ...]
    digest: str
    validation: Part | None = None
    notes: tuple[str, ...] = ()
    keys: Keys | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """The pictures' channels, height and width."""
        channels, height, width = self.train[0].shape[1:]
        return channels, height, width

    def with_validation(self, share: float, seed: int = 0) -> PictureData:
        """Return this data with about a share of the training pictures set aside.

        Which ones is told by what they hold, so that copies of one picture are together, on every
        machine alike; see `splitting.set_aside`.

        Raises
        ------
        ArgumentError
            If there are validation pictures already, or the share leaves none on one side.
        """
        if self.validation is not None:
            raise ArgumentError("the data has validation pictures already; leave share out.")
        # Otherwise all that one seed draws first would be gone into the test pictures.
        rest, aside, keys = divide(self.train, self._keys(), share, seed + _OF_VALIDATION)
        return replace(self, train=rest, validation=aside, keys=keys)

    def with_test(self, share: float, seed: int = 0) -> PictureData:
        """Return this data with about a share of the training pictures for testing, likewise.

        Raises
        ------
        ArgumentError
            If there are test pictures already, or the share leaves none on one side.
        """
        if self.test is not None:
            raise ArgumentError("the data has test pictures already; leave share out.")
        rest, aside, keys = divide(self.train, self._keys(), share, seed)
        return replace(self, train=rest, test=aside, keys=keys)

    def _keys(self) -> Keys:
        return keys_of(self.train[0]) if self.keys is None else self.keys


def expect_names_of_a_line(names: Iterable[str]) -> None:
    """See that the names of classes can be printed in a line, and kept in a file.

    Raises
    ------
    DataError
        If one has a line break, another control character, or bytes that are no text.
    """
    for name in names:
        if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name):
            raise DataError(
                f"the name of a class must be of letters that can be printed, got {name!r}; "
                "rename it."
            )


def divide(part: Part, keys: Keys, share: float, seed: int) -> tuple[Part, Part, Keys]:
    """Return the rest of a part, what is set aside of it, and the keys of the rest."""
    x, t = part
    aside = set_aside(keys, share, seed)

    def of(which: np.ndarray[Any, Any]) -> Part:
        return (x.part(which) if isinstance(x, StoredPictures) else x[which]), t[which]

    return of(~aside), of(aside), keys[~aside]
