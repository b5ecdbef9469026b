"""``xpdl`` on the small made-up MNIST, as a process that a test can kill: not a test itself.

With SLOW_SAVES in the environment each file is written in two parts with a pause between, so that
it is often a save in which the process ends.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from small_digits import load_small

from xpdl import files
from xpdl.cli.main import main
from xpdl.runs import preparation


def in_two_parts(path: Any, content: bytes) -> None:
    with files.replacing(path) as stream:
        stream.write(content[: len(content) // 2])
        stream.flush()
        time.sleep(float(os.environ["SLOW_SAVES"]))
        stream.write(content[len(content) // 2 :])


if __name__ == "__main__":
    preparation.LOADERS.update({"mnist": load_small, "fashion-mnist": load_small})
    if "SLOW_SAVES" in os.environ:
        files.write_bytes = in_two_parts
    sys.exit(main())
