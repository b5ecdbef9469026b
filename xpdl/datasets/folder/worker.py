"""What a worker process does: pictures looked at or decoded, as lines on its standard input ask.

A line is JSON: the task, the form of the data set, the file that takes the pixels, and pairs of a
row there and a picture's path. For each pair a line of JSON answers. A process of its own program
needs nothing of the user's, so his script need not be fit for being run again.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from xpdl.datasets.folder.decoding import Form, decode, look
from xpdl.errors import FileAccessError, ImageError


def do_task(task: dict[str, Any], row: int, path: str) -> dict[str, Any]:
    """Return what comes of a picture: what `look` finds; or nothing, if its pixels are written.

    What is wrong with the picture is under 'broken', what is wrong with the disk under 'disk'.
    """
    if task["pixels"] is None:
        return look(path)
    form = Form(*task["form"])
    try:
        content = decode(path, form)
    except (ImageError, FileAccessError) as error:
        return {"broken": " ".join(str(error).split())[:200]}
    try:
        with open(task["pixels"], "r+b") as stream:
            stream.seek(row * form.size)
            stream.write(content)
    except OSError as error:
        return {"disk": error.strerror or str(error)}
    return {}


def main() -> None:
    """Answer until there are no more questions."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, it is for who started this
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a decoder prints is no answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        for row, path in task["pictures"]:
            print(json.dumps(do_task(task, row, path)), file=answers, flush=True)


if __name__ == "__main__":
    main()
