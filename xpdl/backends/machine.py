"""What a device is, and how much memory it has left."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Machine:
    """A backend that tells of its device; this class speaks of the host."""

    def has_room_for(self, size: int) -> bool:
        """Tell whether `size` bytes of data can stay here and leave room to compute with."""
        return True

    def free_memory(self) -> int | None:
        """Return how many bytes new arrays can have, or None where the system does not say."""
        try:
            for line in Path("/proc/meminfo").read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return 1024 * int(line.split()[1])
        except OSError:
            pass  # another system than Linux
        return None

    def describe(self) -> dict[str, str]:
        """Return what a person wants to know of this device, as label -> text."""
        return {"NumPy": np.__version__}

    def ways(self) -> dict[str, str]:
        """Return the variables of the environment that change the last digits, and their values."""
        return {}
