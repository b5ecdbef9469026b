"""A rank that is stopped over its work while the other is at its own: not a test itself."""

import os
import signal
import sys
import time

from xpdl.cli.together import ending_together
from xpdl.distributed import connect

ranks = connect()
assert ranks is not None


def work() -> int:
    with ranks.working_alone():
        if ranks.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        while True:
            time.sleep(0.01)


sys.exit(ending_together("xpdl alone", ranks, work))
