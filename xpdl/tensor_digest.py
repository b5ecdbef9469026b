"""What tells that named arrays are those that were written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

DIGEST = "sha256_of_all"
"""Under what name a file's text has it."""


def digest_of(text: str, arrays: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """Return the SHA-256, in hexadecimal, of a text, and of arrays by name."""
    import hashlib  # brings in OpenSSL, and `import xpdl` shall be quick

    digest = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        a = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1)
        digest.update(f"\0{name}\0{a.dtype.str}{array.shape}\0".encode())
        digest.update(a.view(np.uint8).data)
    return digest.hexdigest()
