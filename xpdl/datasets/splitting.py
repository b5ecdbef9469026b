"""Which pictures are set aside, by what they hold: the same on every machine, in every order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from xpdl.arguments import number, whole_number
from xpdl.errors import ArgumentError, shown

Keys = npt.NDArray[np.uint64]


def keys_of(x: Any) -> Keys:
    """Return a number for each of the host's examples x (N, ...): the first 8 bytes of its SHA-256.

    Examples of the same bytes have the same number.
    """
    import hashlib  # brings in OpenSSL, which only this needs

    keys = np.empty(len(x), np.uint64)
    for start in range(0, len(x), 1000):  # as x may lie in a file
        for k, example in enumerate(np.ascontiguousarray(x[start : start + 1000]), start):
            digest = hashlib.sha256(example.tobytes()).digest()
            keys[k] = int.from_bytes(digest[:8], "big")
    return keys


def set_aside(keys: Keys, share: float, seed: int = 0) -> npt.NDArray[np.bool_]:
    """Return which examples, (N,), are set aside; those of equal keys are together or not at all.

    An example is, if the hash of its key and the seed is below `share` of all hashes. So about that
    share is, and neither the order nor other examples change which. The hash is that of Steele et
    al. 2014, "Fast splittable pseudorandom number generators".

    Raises
    ------
    ArgumentError
        If `share` is not between 0 and 1, or leaves one of the two sides empty.
    """
    if not 0 < number("share", share) < 1:
        raise ArgumentError(f"share must be a number between 0 and 1, got {shown(share)}.")
    seed = whole_number("seed", seed, least=0)
    mixed = _scramble(keys ^ _scramble(np.array([seed % 2**64], np.uint64)))
    # In 53 bits, which a float holds exactly.
    aside = (mixed >> np.uint64(11)) < np.uint64(share * 2**53)
    if len(keys) and (aside.all() or not aside.any()):
        raise ArgumentError(
            f"of {len(keys):,} pictures, a share of {share:g} leaves none on one side; give "
            "another share or another seed, or more pictures."
        )
    return aside


def _scramble(a: Keys) -> Keys:
    a = a + np.uint64(0x9E3779B97F4A7C15)  # modulo 2^64, as all that follows
    a = (a ^ (a >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    a = (a ^ (a >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return a ^ (a >> np.uint64(31))
