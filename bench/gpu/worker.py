"""The process that measures for ``python -m bench gpu``.

Requests come in and answers go out as JSON, a line each. The first request tells the sizes, and is
answered by what the device is; each other asks for a part. What parts print goes to the log.
"""

from __future__ import annotations

import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import xpdl
from bench.gpu.parts import PARTS
from bench.gpu.record import about_device, as_json, torch_state
from bench.gpu.session import LeftOut, Notes, OutOfTime, Session, Sizes, forget_frames, one_line
from xpdl.errors import XpdlError

Do = Callable[[Any, Notes], None]


def start_session(sizes: Sizes) -> tuple[Session, dict[str, Any]]:
    """Return who computes, and what is known of the device.

    Raises
    ------
    BackendUnavailableError
        If there is no GPU.
    """
    backend = xpdl.get_backend("cupy")
    torch, about_torch = torch_state()
    session = Session(backend, sizes, torch, about_torch)
    return session, about_device(session)


def main(
    parts: Mapping[str, Do] | None = None,
    start: Callable[[Sizes], tuple[Any, dict[str, Any]]] = start_session,
) -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), daemon=True).start()

    def say(answer: Mapping[str, Any]) -> None:
        answers.write(json.dumps(as_json(answer), allow_nan=False) + "\n")
        answers.flush()

    told = requests.get()
    try:
        session, device = start(Sizes(**told | {"batch_sizes": tuple(told["batch_sizes"])}))
    except XpdlError as error:
        say({"unavailable": str(error)})
        return
    say({"device": device})
    parts = parts or {name: part.do for name, part in PARTS.items()}
    while True:
        request = requests.get()
        say(do_part(parts[request["part"]], session, request["seconds"], say))


def _read(requests: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    # Who asked is gone, and nobody wants to know any more.
    if hasattr(os, "getpgrp") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def do_part(
    do: Do, session: Any, seconds: float | None, say: Callable[[Any], None]
) -> dict[str, Any]:
    """Do a part, and return all that is known of it at its end."""
    ends_at = math.inf if seconds is None else time.monotonic() + seconds
    notes = Notes(
        {}, lambda notes: say({"results": notes.results, "problems": notes.problems}), ends_at
    )
    end = {"state": "done", "message": ""}
    try:
        do(session, notes)
    except OutOfTime:
        end = {"state": "interrupted", "message": f"its {seconds:.0f} s were over"}
    except LeftOut as error:
        end = {"state": "left out", "message": one_line(error)}
    except Exception as error:
        traceback.print_exc()
        notes.problems.append(one_line(error))
        forget_frames(error)
    if notes.problems:
        also = [end["message"]] if end["message"] else []
        end = {"state": "failed", "message": "; ".join([*notes.problems, *also])}
    return {"results": notes.results, "problems": notes.problems, **end}


if __name__ == "__main__":
    main()
