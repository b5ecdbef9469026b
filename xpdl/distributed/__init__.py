"""Several processes that train one network together, and the few verbs that they need.

Each process is a rank: it holds the whole network and computes on its rows of each batch. What
they come to is added up, so that all make the same update, the one that a single process would
make. `MpiRanks` speaks by MPI, `NcclRanks` between GPUs, `ThreadRanks` within one process::

    ranks = xpdl.distributed.connect()       # None in a process that was started alone
    Trainer(network, train, test, ranks=ranks).fit()

Neither mpi4py nor NCCL is loaded before `connect` finds that there are several processes.
"""

from xpdl.distributed.connecting import connect, find_ranks, for_arrays_of, launched, take_gpu
from xpdl.distributed.half import HalfSum
from xpdl.distributed.mpi import MpiRanks
from xpdl.distributed.nccl import NcclRanks
from xpdl.distributed.ranks import Arriving, Pending, Ranks, rows_of_rank
from xpdl.distributed.share import Share, sharing
from xpdl.distributed.threads import ThreadRanks, in_threads

__all__ = [
    "Arriving",
    "HalfSum",
    "MpiRanks",
    "NcclRanks",
    "Pending",
    "Ranks",
    "Share",
    "ThreadRanks",
    "connect",
    "find_ranks",
    "for_arrays_of",
    "in_threads",
    "launched",
    "rows_of_rank",
    "sharing",
    "take_gpu",
]
