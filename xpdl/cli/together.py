"""A command that several processes carry out together: one of them speaks, and all end."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from xpdl.backends import get_backend
from xpdl.distributed.connecting import launched
from xpdl.distributed.ranks import Ranks
from xpdl.errors import RanksError, XpdlError
from xpdl.precision import get_precision
from xpdl.version import __version__

FAREWELL = 15.0  # seconds in which the rank that speaks ends the others
BEFORE_THE_END = 0.5  # until the launcher has printed what it was told


def expect_one_command(options: argparse.Namespace, ranks: Ranks) -> None:
    """See that all ranks were given the same command line, on the same xpdl and backend.

    Raises
    ------
    ArgumentError
        If they were not; it names the rank, and what differs.
    """
    given = {
        f"--{name.replace('_', '-')}": value
        for name, value in vars(options).items()
        if name != "run"
    }
    about = {"version of xpdl": __version__, "backend": get_backend().name}
    ranks.expect_same({**about, "dtype": get_precision(options.dtype).name, **given})


def alone(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return what does as `run`, but refuses where several processes were started together."""

    def run_alone(options: argparse.Namespace) -> int:
        if launched() > 1:
            raise RanksError(
                f"{launched()} processes were started together, and each would do all of this: "
                "start it without mpiexec; xpdl train is what several share."
            )
        return run(options)

    return run_alone


def ending_together(title: str, ranks: Ranks, work: Callable[[], int]) -> int:
    """Return what `work` does on this rank; if it fails on one, see that all end.

    What all ranks find wrong is said by rank 0; what one alone finds, by that one, which ends the
    others.
    """
    try:
        return work()
    except (XpdlError, MemoryError, OSError) as error:
        told: Any = error
        if isinstance(error, MemoryError):
            told = f"{error or 'out of memory'}"
    except Exception:
        traceback.print_exc()  # a fault of ours
        ranks.abort(1)
        raise
    speaks = ranks.speaks
    if ranks.leave(str(told)):
        speaks = ranks.rank == 0
    elif not speaks:
        time.sleep(FAREWELL)
    else:
        place = "" if isinstance(told, RanksError) else f"rank {ranks.rank} of {ranks.size}: "
        print(f"{title}: {place}{told}", file=sys.stderr, flush=True)
        time.sleep(BEFORE_THE_END)
        ranks.abort(2)
    if speaks:
        print(f"{title}: {told}", file=sys.stderr, flush=True)
    return 2
