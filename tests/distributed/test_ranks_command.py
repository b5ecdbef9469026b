"""`mpiexec -n 2 xpdl train`: the same training, and what happens when a process does not go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mpi_jobs
import numpy as np
import pytest
from mpi_jobs import SMALL_TRAIN, Job, ours, run
from safetensors.numpy import load_file

pytestmark = [
    pytest.mark.skipif(bool(mpi_jobs.why_not()), reason=mpi_jobs.why_not() or "-"),
    pytest.mark.usefixtures("on_numpy"),
]
NETWORK = ("--model", "TwoLayerNet", "--average", "0", "--schedule", "constant")
TRAIN = (SMALL_TRAIN, "train", *NETWORK, "--backend", "numpy")
LONG = (*TRAIN, "--epochs", "100000")
# Seconds after which a rank is missed. On a busy disk a checkpoint, for which the other waits, may
# take two.
SILENT = "5"


def losses(folder: Path) -> list[float]:
    return json.loads((folder / "history.json").read_text())["losses"]


def expect_same_run(found: Path, wanted: Path, tolerance: float) -> None:
    np.testing.assert_allclose(losses(found), losses(wanted), rtol=tolerance)
    trained, other = (load_file(place / "model.safetensors") for place in (found, wanted))
    for name, a in other.items():
        worst = np.abs(trained[name] - a).max()
        assert worst <= tolerance * np.abs(a).max(), name


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    done = subprocess.run(
        [sys.executable, *map(str, TRAIN), "--epochs", "2", "--dtype", "float64", "--out", folder],
        env={**os.environ, "XPDL_THREADS": "1", "PYTHONPATH": str(SMALL_TRAIN.parent)},
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done
    return folder


@pytest.mark.parametrize("size", [2, 3])
def test_the_same_command_on_several_processes(size, alone, tmp_path):
    folder = tmp_path / "run"
    code, out, err = run(size, *TRAIN, "--epochs", "2", "--dtype", "float64", "--out", folder)
    assert code == 0, err
    assert out.count("epoch  1/2") == 1  # one of them speaks
    assert f", {size} processes" in out
    assert "waited for gradients in" in out
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in alone.iterdir())
    expect_same_run(folder, alone, 1e-9)


def test_gradients_in_half_precision(tmp_path):
    folder = tmp_path / "run"
    arguments = (*TRAIN, "--epochs", "2", "--reduce-dtype", "float16", "--out", folder)
    code, out, err = run(3, *arguments)  # which compare their parameters after each epoch
    assert code == 0, err
    assert "gradients are sent as float16, each rounded to 11 bits twice" in out
    record = json.loads((folder / "history.json").read_text())
    assert record["options"]["reduce_dtype"] == "float16"
    code, out, _ = run(1, SMALL_TRAIN, "train", "--resume", folder, "--epochs", "3")
    assert code == 0
    assert "gradients are sent as float16, which changes nothing: one process sends none" in out


def test_a_profile_says_what_is_hidden():
    given = (
        SMALL_TRAIN,
        "profile",
        "--model",
        "TwoLayerNet",
        "--rounds",
        "2",
        "--backend",
        "numpy",
    )
    code, out, err = run(2, *given, "--batch-size", "5", "--reduce-dtype", "float16")
    assert code == 0, err
    told = dict(line.strip().split("  ", 1) for line in out.splitlines()[-6:-1])
    assert list(told) == ["together", "messages", "hidden", "not hidden", "waiting"]
    assert "a step of 5 rows on 2 processes" in told["together"]
    assert "0.08 MB of gradients as float16, in 2 pieces" in told["messages"]
    assert out.count("one training step, batch 2,") == 1  # rank 0's rows, and it alone speaks
    code, out, err = run(2, *given, "--batch-size", "1")
    assert code == 2
    assert ours(err) == ["xpdl profile: 2 processes cannot share a batch of 1."]


def stop_at_once(folder, act, *arguments, **variables):
    """Start a long run, do something to it, and return how it ended and how long that took."""
    with Job(2, *LONG, *arguments, "--out", folder, **variables) as job:
        job.wait_for(folder / "checkpoint.safetensors")
        ranks = job.ranks()
        assert sorted(ranks) == [0, 1]
        start = time.monotonic()
        act(job.process.pid, ranks)
        code, _, err = job.end()
    assert time.monotonic() - start < 30
    assert not list(folder.glob("*.part")) or code != 0
    return code, err


def resume(size, folder, epochs):
    code, _, err = run(size, SMALL_TRAIN, "train", "--resume", folder, "--epochs", epochs)
    assert code == 0, err


def test_one_signal_is_enough_and_the_run_goes_on(tmp_path):
    folder = tmp_path / "run"
    code, err = stop_at_once(
        folder, lambda _, ranks: os.kill(ranks[1], signal.SIGTERM), "--dtype", "float64"
    )
    assert code in (130, 143)  # of the rank that left first
    assert "interrupted after" in ours(err)[0]
    epochs = len(json.loads((folder / "history.json").read_text())["epochs"]) + 2
    other = tmp_path / "other"
    subprocess.run(["cp", "-r", folder, other], check=True)
    resume(2, folder, epochs)
    resume(3, other, epochs)
    straight = tmp_path / "straight"
    assert run(2, *TRAIN, "--dtype", "float64", "--epochs", epochs, "--out", straight)[0] == 0
    expect_same_run(folder, straight, 0)
    expect_same_run(other, straight, 1e-7)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_to_mpiexec_loses_nothing(number, tmp_path):
    folder = tmp_path / "run"
    code, err = stop_at_once(folder, lambda launcher, _: os.kill(launcher, number))
    assert code != 0  # which one is the launcher's choice
    assert "Traceback" not in err
    expect_that_it_goes_on(folder)


def expect_that_it_goes_on(folder):
    """See that all is as it was when the signal came, and that the run goes on from there."""
    assert (folder / "model.safetensors").exists()
    record = json.loads((folder / "history.json").read_text())
    assert record["finished"] is False
    epochs = len(record["epochs"]) + 1
    resume(2, folder, epochs)
    record = json.loads((folder / "history.json").read_text())
    assert record["finished"] is True
    assert len(record["epochs"]) == epochs


def test_a_signal_that_mpiexec_hands_on_is_answered(tmp_path):
    folder = tmp_path / "run"
    code, err = stop_at_once(folder, lambda launcher, _: os.kill(launcher, signal.SIGUSR1))
    assert code == 128 + signal.SIGUSR1
    (line,) = ours(err)
    assert line.startswith("xpdl train: interrupted after ")
    assert line.endswith(f"Go on with: xpdl train --resume {folder}")
    expect_that_it_goes_on(folder)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all(rank, tmp_path):
    folder = tmp_path / "run"
    code, err = stop_at_once(folder, lambda _, ranks: os.kill(ranks[rank], signal.SIGKILL))
    assert code == 137
    assert f"rank {rank}" in err or "signal 9" in err  # says the launcher, whichever it saw first
    assert "Traceback" not in err


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_is_named(rank, tmp_path):
    folder = tmp_path / "run"
    code, err = stop_at_once(
        folder, lambda _, ranks: os.kill(ranks[rank], signal.SIGSTOP), XPDL_RANKS_TIMEOUT=SILENT
    )
    assert code == 2
    expect_that_it_is_named(rank, err, folder)


def expect_that_it_is_named(rank, err, folder):
    # The one that hung may be woken by the end, and say that it was interrupted.
    lines = [line for line in ours(err) if ": interrupted" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"xpdl train: rank {rank} (process ")
    assert f"did not answer within {SILENT} s" in lines[0]
    assert f"xpdl train --resume {folder}" in lines[0]


BAD = {
    "more than a batch": ([["--batch-size", "1"]] * 2, "2 processes cannot share batches of 1"),
    "an option": ([["--seed", "1"], ["--seed", "2"]], "rank 1 has another --seed than rank 0: 2"),
    "a backend": ([["--backend", "numpy"], ["--backend", "strict"]], "rank 1 has another backend"),
    "half of float64": (
        [["--reduce-dtype", "float16", "--dtype", "float64"]] * 2,
        "rounds gradients to 11 bits, and this network's are float64",
    ),
    "half of members": ([["--reduce-dtype", "float16", "--members", "2"]] * 2, "leave it out"),
    "a name": ([["--model", "LeNot"]] * 2, "unknown model 'LeNot'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line(case, tmp_path):
    given, told = BAD[case]
    parts = []
    for arguments in given:
        parts += ["-n", "1", sys.executable, str(SMALL_TRAIN), "train", *NETWORK, *arguments, ":"]
    done = subprocess.run(
        [*mpi_jobs.mpiexec(), *parts[:-1]], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(SMALL_TRAIN.parent)}, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    (line,) = ours(done.stderr)
    assert told in line
    assert not list(tmp_path.glob("runs/*"))


def test_a_rank_that_alone_finds_something_wrong_ends_all(tmp_path):
    folder = tmp_path / "run"

    def take_away(_, ranks):
        os.rename(folder, tmp_path / "moved")

    with Job(2, *LONG, "--out", folder, XPDL_RANKS_TIMEOUT="5") as job:
        job.wait_for(folder / "checkpoint.safetensors")
        take_away(None, None)
        code, _, err = job.end()
    assert code == 2
    (line,) = ours(err)
    assert line.startswith("xpdl train: rank 0 of 2: ")
    assert str(folder) in line


def test_an_ensemble_is_a_member_a_process(tmp_path):
    arguments = [*TRAIN, "--epochs", "2", "--members", "3", "--seed", "5", "--out"]
    together, alone = tmp_path / "together", tmp_path / "alone"
    code, out, err = run(2, *arguments, together)
    assert code == 0, err
    assert "member 3/3  test accuracy" in out
    environment = {"XPDL_THREADS": "1", "PYTHONPATH": str(SMALL_TRAIN.parent)}
    subprocess.run(
        [sys.executable, *map(str, arguments), alone], env={**os.environ, **environment},
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert sorted(p.name for p in together.iterdir()) == sorted(p.name for p in alone.iterdir())
    for i in range(3):
        found, wanted = (load_file(p / f"member-{i}.safetensors") for p in (together, alone))
        for name, a in wanted.items():
            np.testing.assert_array_equal(found[name], a)
    records = [json.loads((p / "history.json").read_text())["members"] for p in (together, alone)]
    assert [m["losses"] for m in records[0]] == [m["losses"] for m in records[1]]


def test_an_ensemble_that_was_stopped_goes_on(tmp_path):
    folder = tmp_path / "run"
    arguments = [*TRAIN, "--epochs", "40", "--members", "3", "--checkpoint-every", "0.01"]
    with Job(2, *arguments, "--out", folder) as job:
        job.wait_for(folder / "checkpoint-1.safetensors")
        for pid in job.ranks().values():
            os.kill(pid, signal.SIGTERM)
        code, _, err = job.end()
    assert code == 143, err
    for size in (3, 2):  # the second time there is nothing left to train
        code, _, err = run(size, SMALL_TRAIN, "train", "--resume", folder)
        assert code == (0 if size == 3 else 2), err
    straight = tmp_path / "straight"
    assert run(2, *arguments, "--out", straight)[0] == 0
    for i in range(3):
        found, wanted = (load_file(p / f"member-{i}.safetensors") for p in (folder, straight))
        for name, a in wanted.items():
            np.testing.assert_array_equal(found[name], a)


@pytest.mark.parametrize(
    ("rank", "early"), [(0, True), (1, False)], ids=["both at work", "one waits"]
)
def test_a_rank_that_hangs_over_its_member_is_named(rank, early, tmp_path):
    """Whether the other is at work itself, or waits for it."""
    folder = tmp_path / "run"
    epochs = "100000" if early else "150"
    arguments = [*TRAIN, "--epochs", epochs, "--members", "2", "--out", folder]
    with Job(2, *arguments, XPDL_RANKS_TIMEOUT=SILENT) as job:
        job.wait_for(folder / f"checkpoint-{rank}.safetensors")
        start = time.monotonic()
        os.kill(job.ranks()[rank], signal.SIGSTOP)
        code, _, err = job.end()
    assert time.monotonic() - start < 30
    assert code == 2, err
    expect_that_it_is_named(rank, err, folder)
    if early:  # the other has kept what it came to
        assert (folder / f"checkpoint-{1 - rank}.safetensors").exists()


def test_a_rank_that_is_gone_ends_work_of_any_kind():
    """As a trial of a search is."""
    start = time.monotonic()
    code, _, err = run(2, Path(__file__).parent / "mpi_alone.py", XPDL_RANKS_TIMEOUT=SILENT)
    assert time.monotonic() - start < 60
    assert code == 2
    (line,) = ours(err)
    assert line.startswith("xpdl alone: rank 1 (process ")
    assert line.endswith(f"did not answer within {SILENT} s: it hangs, or cannot be reached.")


def test_a_rank_that_is_killed_over_its_member_ends_all(tmp_path):
    folder = tmp_path / "run"
    with Job(2, *LONG, "--members", "2", "--out", folder) as job:
        job.wait_for(folder / "checkpoint-1.safetensors")
        os.kill(job.ranks()[1], signal.SIGKILL)
        code, _, err = job.end(30)
    assert code == 137
    assert "Traceback" not in err


@pytest.mark.long
def test_fifty_kills_of_a_rank(tmp_path):
    """Killed again and again, at any moment, a run ends as one that was never interrupted."""
    straight = tmp_path / "straight"
    arguments = [*TRAIN, "--epochs", "150", "--checkpoint-every", "0.05", "--dtype", "float64"]
    with Job(2, *arguments, "--out", straight) as job:
        assert job.end(600)[0] == 0
    chance, kills, runs = np.random.default_rng(0), 0, 0
    while kills < 50:
        folder = tmp_path / f"run{runs}"
        kills += kill_until_done(folder, [*arguments, "--out", folder], chance, 50 - kills)
        runs += 1
        expect_same_run(folder, straight, 0)
    print(f"{runs} runs, killed {kills} times")


def kill_until_done(folder, begin, chance, most):
    """Kill a rank of a run, go on, and so forth to its end; return how often it was killed."""
    kills = 0
    while True:
        with Job(2, *begin, SLOW_SAVES="0.02") as job:
            if not kills:
                job.wait_for(folder / "checkpoint.safetensors")
            killed = False
            if kills < most:
                time.sleep(chance.uniform(0, 3))  # as it starts, or trains
                ranks = job.ranks()
                if len(ranks) == 2 and job.process.poll() is None:
                    os.kill(ranks[int(chance.integers(2))], signal.SIGKILL)
                    kills, killed = kills + 1, True
            code, _, err = job.end(30 if killed else 600)
        if code == 0 or "is finished" in err:
            return kills
        assert code == 137, err
        begin = [SMALL_TRAIN, "train", "--resume", folder]
