"""The verbs of ranks: threads, processes by MPI, and GPUs by a stand-in for NCCL."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import mpi_jobs
import nccl_stand_in
import numpy as np
import pytest
from verbs import check_verbs

import xpdl
from xpdl.distributed import NcclRanks, Share, connect, in_threads, life, rows_of_rank, take_gpu
from xpdl.distributed.mpi import usual_timeout
from xpdl.errors import ArgumentError, RanksError

HERE = Path(__file__).parent
needs_mpi = pytest.mark.skipif(bool(mpi_jobs.why_not()), reason=mpi_jobs.why_not() or "-")


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_threads_as_ranks(size, backend):
    with xpdl.use_backend(backend):
        in_threads(size, lambda ranks: check_verbs(ranks, backend, backend.to_numpy))


@needs_mpi
@pytest.mark.parametrize("size", [2, 3])
def test_processes_as_ranks(size, on_numpy):
    code, out, err = mpi_jobs.run(size, HERE / "mpi_verbs.py", XPDL_BACKEND="numpy")
    assert code == 0, err
    assert sorted(out.split("\n")) == ["", *(f"rank {r} of {size} is well" for r in range(size))]


@pytest.mark.parametrize("size", [2, 3])
def test_gpus_as_ranks(size, on_numpy, monkeypatch):
    nccl_stand_in._Table.tables.clear()

    own = threading.local()  # each thread's device

    def work(ranks):
        own.xp = nccl_stand_in.make_cupy()
        check_verbs(NcclRanks(ranks, own.xp), own.xp, np.array)

    # Its own moments compute with arrays of the device, which this stand-in has not.
    monkeypatch.setattr("verbs.check_moments", lambda *_: None)
    monkeypatch.setattr("xpdl.distributed.half.backend_of", lambda *_: own)
    in_threads(size, work)


def test_a_stand_in_that_would_not_see_a_race_proves_nothing(on_numpy):
    cupy = nccl_stand_in.make_cupy()
    a = cupy.asarray(np.ones(3, np.float32))
    nccl = cupy.cuda.nccl
    comm = nccl.NcclCommunicator(1, nccl.get_unique_id(), 0)
    own = cupy.cuda.Stream(non_blocking=True)
    message = (a.data.ptr, a.data.ptr, 3, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, own.ptr)
    with pytest.raises(nccl_stand_in.StandInError, match="does not wait"):
        comm.allReduce(*message)
    computed = cupy.cuda.Event()
    computed.record(cupy.cuda.get_current_stream())
    own.wait_event(computed)
    comm.allReduce(*message)
    done = cupy.cuda.Event()
    done.record(own)
    del a
    with pytest.raises(nccl_stand_in.StandInError, match="no array holds any more"):
        cupy.cuda.get_current_stream().wait_event(done)


def test_a_gpu_sums_only_what_lies_together(on_numpy):
    def work(ranks):
        cupy = nccl_stand_in.make_cupy()
        nccl = NcclRanks(ranks, cupy)
        with pytest.raises(ArgumentError, match="contiguous"):
            nccl.begin_sum(cupy.asarray(np.ones((4, 4), np.float32))[:, ::2])
        with pytest.raises(ArgumentError, match="floats"):
            nccl.begin_sum(cupy.asarray(np.ones(4, int)))

    in_threads(1, work)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("total", [1, 3, 10, 100])
def test_rows_are_dealt_out_evenly(size, total):
    parts = [rows_of_rank(rank, size, total) for rank in range(size)]
    assert [i for part in parts for i in range(total)[part]] == list(range(total))
    lengths = [part.stop - part.start for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_a_rank_without_rows_computes_one_that_counts_nothing(on_numpy):
    shares = in_threads(4, lambda ranks: Share.of(ranks, 3))
    assert [share.counts for share in shares].count(False) == 1
    assert all(share.stop - share.start == 1 for share in shares)


def test_a_thread_that_fails_ends_the_others(on_numpy):
    def work(ranks):
        if ranks.rank == 1:
            raise ArgumentError("rank 1 has had enough.")
        ranks.barrier()

    start = time.monotonic()
    with pytest.raises(ArgumentError, match="had enough"):
        in_threads(3, work)
    assert time.monotonic() - start < 30  # the time-out is 60


def test_a_message_that_never_comes(on_numpy):
    with pytest.raises(RanksError, match="waited for another that did not come"):
        in_threads(2, lambda ranks: ranks.rank or ranks.barrier(), timeout=0.05)


# ---- signs of life ---------------------------------------------------------------------------


class Wire:
    """A communicator of three ranks, of which this is the first; signs are put in by hand."""

    rank, size = 0, 3

    def __init__(self):
        self.came, self.sent = {1: 0, 2: 0}, []

    def Isend(self, _, other):
        self.sent.append(other)
        return types.SimpleNamespace(Free=lambda: None)

    def Iprobe(self, other):
        return self.came[other] > 0

    def Recv(self, _, other):
        self.came[other] -= 1


def test_a_rank_without_signs_is_silent(monkeypatch):
    clock = types.SimpleNamespace(now=100.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(life, "time", clock)
    wire = Wire()
    signs = life.SignsOfLife(wire, limit=8.0)
    signs.begin()
    seen = []
    for second in range(16):
        wire.came[1] += second % 3 == 0  # often enough
        wire.came[2] += second == 4  # once
        seen.append(signs.look())
        assert signs.look() == []  # not yet time for another look
        clock.now += 1.0
    assert wire.sent == [1, 2] * 16
    assert seen == [[]] * 13 + [[2]] * 3  # 8 looks after the last sign, and one more
    signs.begin()
    clock.now += 1000.0  # stopped itself: one look is one look
    assert signs.look() == []


def test_work_ends_where_others_are_silent():
    wire, found = Wire(), []
    signs, ended = life.SignsOfLife(wire, limit=0.05), threading.Event()
    with signs.beside(lambda silent: (found.append(silent), ended.set())):
        assert ended.wait(30)
    assert found == [[1, 2]]
    with signs.beside(found.append):  # and not where the work ends before
        wire.came = {1: 10**6, 2: 10**6}
    assert found == [[1, 2]]


# ---- finding each other ----------------------------------------------------------------------


def test_a_process_that_came_alone_has_no_ranks(monkeypatch):
    for name in ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    assert connect() is None
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert connect() is None


MAIN = "from xpdl.cli.main import main; sys.exit(main(sys.argv[1:]))"
WITHOUT = f"import sys; sys.modules['mpi4py'] = None; {MAIN}"
NO_MPI = (
    "import sys, types; m = sys.modules['mpi4py'] = types.ModuleType('mpi4py');\n"
    "def find(name): raise RuntimeError('cannot load MPI library')\n"
    f"m.__getattr__ = find; {MAIN}"
)


@pytest.mark.parametrize(
    ("variable", "program", "told"),
    [
        ("OMPI_COMM_WORLD_SIZE", WITHOUT, "pip install '.[mpi]' brings mpi4py"),
        ("PMI_SIZE", WITHOUT, "pip install '.[mpi]' brings mpi4py"),
        ("SLURM_STEP_NUM_TASKS", NO_MPI, "mpi4py finds no MPI"),
    ],
    ids=["Open MPI without mpi4py", "MPICH without mpi4py", "Slurm without MPI"],
)
def test_several_processes_that_cannot_speak_are_refused(variable, program, told, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "XPDL_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", program, "train"], env={**environment, variable: "2"},
        capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("xpdl train: 2 processes were started together")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("local", "shown", "wanted"),
    [("1", None, "1"), ("1", "4,5", "5"), ("0", "", "0"), ("3", "7", "7")],
)
def test_each_process_of_a_machine_takes_a_gpu(monkeypatch, local, shown, wanted):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", local)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    take_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == wanted


def test_more_processes_than_gpus(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(RanksError, match="names 2 GPUs, and this is process 3"):
        take_gpu()


@pytest.mark.parametrize(("text", "wanted"), [(None, 20), ("", 20), ("1.5", 1.5)])
def test_how_long_ranks_wait_for_each_other(monkeypatch, text, wanted):
    monkeypatch.delenv("XPDL_RANKS_TIMEOUT", raising=False)
    if text is not None:
        monkeypatch.setenv("XPDL_RANKS_TIMEOUT", text)
    assert usual_timeout() == wanted


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan", "inf"])
def test_a_time_that_is_none(monkeypatch, text):
    monkeypatch.setenv("XPDL_RANKS_TIMEOUT", text)
    with pytest.raises(ArgumentError, match="XPDL_RANKS_TIMEOUT must be a number of seconds above"):
        usual_timeout()
