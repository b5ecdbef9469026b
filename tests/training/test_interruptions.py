"""A real training that is killed, stopped, crowded out, moved: it goes on, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import xpdl
from xpdl.cli.main import main
from xpdl.errors import ArgumentError
from xpdl.runs import ensemble_run, preparation
from xpdl.runs.folder import FolderLock
from xpdl.runs.run import Run

PROGRAM = Path(__file__).parents[1] / "small_train.py"
DEEP = [
    "train", "--model", "NormalizedConvNet", "--model-options", "widths=[4,4,4]",
    "dropout_ratio=0.2", "--epochs", "4", "--batch-size", "10", "--augment", "rotate=10", "shift=1",
    "--average", "0.9", "--weight-decay", "0.001", "--label-smoothing", "0.1",
    "--checkpoint-every", "0.03",
]  # fmt: skip
WAYS: dict[str, list[str]] = {
    "float32": DEEP,
    "half precision": [*DEEP, "--dtype", "float16", "--epochs", "2"],
    "numba": [*DEEP, "--backend", "numba"],
    "members": [*DEEP, "--members", "2", "--epochs", "2", "--validation", "0.2"],
    "chosen": [*DEEP, "--validation", "0.2", "--patience", "2"],
}

posix = pytest.mark.skipif(os.name != "posix", reason="signals and locks of POSIX")


def start(*arguments: str, cwd: Path, **environment: str) -> subprocess.Popen[str]:
    quiet = {"OPENBLAS_NUM_THREADS": "1", "XPDL_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *arguments],
        cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **quiet, **environment},
    )  # fmt: skip


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def result(folder: Path) -> dict[str, Any]:
    """Return all that a run came to, but for times and the folder's name."""
    record = json.loads((folder / "history.json").read_text())
    del record["seconds"], record["machine"]
    for part in (record, *record.get("members", [])):
        for epoch in part.get("epochs", []):
            del epoch["seconds"]
    found: dict[str, Any] = {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name not in ("history.json",) and path.suffix != ".png"
    }
    return {**found, "record": record, "names": sorted(path.name for path in folder.iterdir())}


def kill_until_done(
    folder: Path, arguments: list[str], chance: random.Random, most: int
) -> tuple[int, int]:
    """Start, kill and resume a training until it ends; say how often, and how often in a save."""
    kills, saves = 0, 0
    begin = arguments
    while True:
        process = start(
            *(begin if kills == 0 else ["train", "--resume", folder.name]),
            cwd=folder.parent,
            SLOW_SAVES="0.02",
        )
        assert process.stdout is not None
        process.stdout.readline()  # now it trains; before, there may be nothing to resume
        if kills == most:
            finish(process)
            return kills, saves
        time.sleep(chance.uniform(0, chance.choice([0.3, 0.6, 6.0])))  # pictures take a second
        if process.poll() is not None:
            _, err = process.communicate()
            assert process.returncode == 0 or "is finished" in err, err
            return kills, saves
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        kills += 1
        saves += any(folder.glob(".*.part"))
        assert kills < 200


def kill_at_random(tmp_path: Path, way: str, wanted: int, seed: int) -> None:
    arguments = WAYS[way]
    finish(start(*arguments, "--out", "whole", cwd=tmp_path))
    expected = result(tmp_path / "whole")
    kills = saves = runs = 0
    while kills < wanted:
        folder = tmp_path / f"cut{runs}"
        chance = random.Random(seed + runs)
        more = kill_until_done(folder, [*arguments, "--out", folder.name], chance, wanted - kills)
        kills, saves, runs = kills + more[0], saves + more[1], runs + 1
        assert result(folder) == expected
    print(f"{way}: {runs} runs, killed {kills} times, {saves} of them in a save")
    assert wanted < 10 or saves > 0


@posix
def test_a_killed_run_ends_as_one_that_was_not(tmp_path: Path) -> None:
    kill_at_random(tmp_path, "chosen", 2, seed=1)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("way", ["float32", "members"])
def test_twenty_kills(tmp_path: Path, way: str) -> None:
    kill_at_random(tmp_path, way, 10, seed=2)


@posix
@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
def test_two_hundred_kills(tmp_path: Path, way: str) -> None:
    kill_at_random(tmp_path, way, 50, seed=3)


# ---- told to stop


@posix
@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138)]
)
def test_a_signal_saves_and_says_how_to_go_on(tmp_path: Path, name: str, code: int) -> None:
    often = DEEP.index("--checkpoint-every")
    rarely = [*DEEP[:often], "--epochs", "60", "--checkpoint-every", "1000"]
    with_signals = [sys.executable, "-c", LET_SIGNALS_IN, sys.executable, str(PROGRAM)]
    process = subprocess.Popen(
        [*with_signals, *rarely, "--out", "run"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch  1"):
            break
    time.sleep(0.05)
    process.send_signal(getattr(signal, name))
    out, err = finish(process, code)
    assert len(err.splitlines()) == 1
    assert err.endswith("Go on with: xpdl train --resume run\n")
    assert "epoch 60" not in out
    tensors, about = xpdl.files.read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    if "epoch" in about:  # unless it was just at an end
        assert f"and {about['epoch']['done']} of 30 steps" in err
        assert tensors["epoch/losses"].shape == (about["epoch"]["done"],)
    assert xpdl.load(tmp_path / "run").name == "NormalizedConvNet"


@posix
def test_a_closed_terminal_leaves_a_checkpoint(tmp_path: Path) -> None:
    """Also where it is said twice, as a shell and then the system do."""
    terminal, other_end = os.openpty()
    often = DEEP.index("--checkpoint-every")
    rarely = [*DEEP[:often], "--epochs", "60", "--checkpoint-every", "1000"]
    in_terminal = [sys.executable, "-c", IN_A_TERMINAL, str(other_end), sys.executable]
    process = subprocess.Popen(
        [*in_terminal, str(PROGRAM), *rarely, "--out", "run"], cwd=tmp_path, pass_fds=[other_end]
    )
    os.close(other_end)
    shown = b""
    while b"epoch  1" not in shown:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=60) == 129
    record = json.loads((tmp_path / "run" / "history.json").read_text())
    assert record["finished"] is False
    _, about = xpdl.files.read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    assert len(record["epochs"]) in range(1, 60)
    assert about["history"]["epochs"] == record["epochs"]


# Gives a process a terminal that it is told of when it is closed.
IN_A_TERMINAL = """
import os, sys
os.login_tty(int(sys.argv[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


# A shell's background job, and what is started by one, ignores Ctrl-C.
LET_SIGNALS_IN = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def interrupted(small_mnist: Path, monkeypatch: Any, capsys: Any) -> Path:
    """A run in the folder ``run`` that was interrupted after the first of two epochs."""
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_keep_best", interrupt)
        assert main([*SMALL, "--out", "run"]) == 130
    capsys.readouterr()
    return small_mnist / "run"


SMALL = ["train", "--model", "TwoLayerNet", "--epochs", "2", "--schedule", "constant"]


def interrupt(run: Any, trainer: Any, epoch: Any) -> None:
    trainer.interrupt()


# ---- two at once, moved, read-only, full


@posix
def test_a_second_process_refuses(interrupted: Path, capsys: Any) -> None:
    lock = FolderLock(interrupted)
    before = {path.name: path.read_bytes() for path in interrupted.iterdir()}
    done = finish(start("train", "--resume", "run", cwd=interrupted.parent), code=2)
    assert done[1] == (
        "xpdl train: another process is training in 'run'; wait for it, or stop it.\n"
    )
    assert {path.name: path.read_bytes() for path in interrupted.iterdir()} == before
    lock.release()
    assert main(["train", "--resume", "run"]) == 0


@posix
def test_a_process_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    process = start(*DEEP, "--out", "run", cwd=tmp_path)
    wait_for(tmp_path / "run" / "checkpoint.safetensors", process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    FolderLock(tmp_path / "run").release()


def test_a_run_can_be_moved(interrupted: Path, capsys: Any) -> None:
    assert main([*SMALL, "--out", "whole"]) == 0
    elsewhere = interrupted.parent / "some" / "where else"
    elsewhere.parent.mkdir()
    shutil.move(interrupted, elsewhere)
    assert main(["train", "--resume", str(elsewhere)]) == 0
    whole = (interrupted.parent / "whole" / "model.safetensors").read_bytes()
    assert (elsewhere / "model.safetensors").read_bytes() == whole


@posix
def test_a_folder_that_cannot_be_written_is_told_at_once(interrupted: Path, capsys: Any) -> None:
    interrupted.chmod(0o500)
    try:
        if os.access(interrupted, os.W_OK):
            pytest.skip("this user may write anywhere")
        assert main(["train", "--resume", "run"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("xpdl train: cannot write 'run/history.json': Permission denied.")
    finally:
        interrupted.chmod(0o700)
    assert main(["train", "--resume", "run"]) == 0


def test_the_command_to_go_on_can_be_copied(
    small_mnist: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr(Run, "_keep_best", interrupt)
    assert main([*SMALL, "--out", "a run"]) == 130
    told = capsys.readouterr().err
    assert "xpdl train --resume 'a run'" in told


def test_a_refused_resume_leaves_all_as_it_was(interrupted: Path) -> None:
    kept = []  # with their frames, and what is held by those
    with xpdl.use_backend("generic"):
        for _ in range(2):
            with pytest.raises(ArgumentError, match="seed") as caught:
                ensemble_run.resume_run("run", {"seed": 3}, on_its_backend=True)
            kept.append(caught.value)
            assert xpdl.get_backend().name == "generic"
            with pytest.raises(ArgumentError, match="on the backend") as caught:
                Run.resume("run")
            kept.append(caught.value)
    assert main(["train", "--resume", "run"]) == 0
    for _ in range(2):
        with pytest.raises(ArgumentError, match="finished") as caught:
            Run.resume("run")
        kept.append(caught.value)


@posix
def test_a_disk_that_is_full(interrupted: Path, capsys: Any) -> None:
    """No file may grow beyond 20 kB, as by a quota; afterwards the run goes on."""
    before = (interrupted / "checkpoint.safetensors").read_bytes()
    limited = f"ulimit -f 20; trap '' XFSZ; exec {sys.executable} {PROGRAM} train --resume run"
    done = subprocess.run(
        ["bash", "-c", limited], cwd=interrupted.parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert (interrupted / "checkpoint.safetensors").read_bytes() == before
    assert not list(interrupted.glob(".*.part"))
    assert main(["train", "--resume", "run"]) == 0
    assert main([*SMALL, "--out", "whole"]) == 0
    whole = (interrupted.parent / "whole" / "model.safetensors").read_bytes()
    assert (interrupted / "model.safetensors").read_bytes() == whole


@posix
def test_a_small_disk_that_is_full_and_then_read_only(tmp_path: Path) -> None:
    """The same, and a read-only one, on a file system of its own, where one can be mounted."""
    script = f"""
set -e
mkdir disk && mount -t tmpfs -o size=300k tmpfs disk
cd disk
code=0
{sys.executable} {PROGRAM} train --model SimpleConvNet --epochs 1 --out run 2>../err || code=$?
echo $code >../code
ls -A run >../left
mount -o remount,size=50M,ro .
{sys.executable} {PROGRAM} train --resume run 2>../err2 || echo $? >../code2
mount -o remount,rw .
{sys.executable} {PROGRAM} train --resume run >../out
"""
    mounting = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*mounting, "true"], capture_output=True).returncode:
        pytest.skip("this user may mount nothing")
    done = subprocess.run(
        [*mounting, "bash", "-c", script],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "code").read_text() == "2\n"
    err = (tmp_path / "err").read_text()
    assert len(err.splitlines()) == 1
    assert "No space left on device" in err
    assert (tmp_path / "left").read_text() == "history.json\n"
    assert (tmp_path / "code2").read_text() == "2\n"
    assert "cannot write 'run/history.json': Read-only file" in (tmp_path / "err2").read_text()
    assert "test accuracy" in (tmp_path / "out").read_text()


def test_what_a_killed_process_left_is_cleared_away(interrupted: Path) -> None:
    (interrupted / ".0123456789ab.part").write_bytes(b"half")
    (interrupted / ".mine.part").write_bytes(b"not ours")
    assert main(["train", "--resume", "run"]) == 0
    assert not (interrupted / ".0123456789ab.part").exists()
    assert (interrupted / ".mine.part").exists()


# ---- other options


def test_what_may_change_does_and_is_kept(interrupted: Path, capsys: Any) -> None:
    changes = ["--epochs", "3", "--checkpoint-every", "7", "--on-divergence", "skip"]
    assert main(["train", "--resume", "run", *changes]) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "with other options than it began: epochs 3 (was 2), checkpoint_every 7.0 (was 180.0), "
        "on_divergence 'skip' (was 'stop')\n"
    )
    options = json.loads((interrupted / "history.json").read_text())["options"]
    assert (options["epochs"], options["checkpoint_every"]) == (3, 7.0)
    assert options["on_divergence"] == "skip"
    longer = [*SMALL[:4], "3", *SMALL[5:]]
    assert main([*longer, "--out", "whole"]) == 0
    whole = (interrupted.parent / "whole" / "model.safetensors").read_bytes()
    assert (interrupted / "model.safetensors").read_bytes() == whole


def test_what_may_not_change_is_refused_by_name(interrupted: Path, capsys: Any) -> None:
    before = {path.name: path.read_bytes() for path in interrupted.iterdir()}
    changes = ["--batch-size", "33", "--seed", "4", "--augment", "shift=1", "--epochs", "5"]
    assert main(["train", "--resume", "run", *changes]) == 2
    err = capsys.readouterr().err
    assert err == (
        "xpdl train: the run goes on with its own batch_size (50), augment ({}), seed (0): leave "
        "that out, or begin another run. What may change is checkpoint_every, on_divergence, "
        "shifts, mirrored, epochs.\n"
    )
    assert {path.name: path.read_bytes() for path in interrupted.iterdir()} == before


def test_fewer_epochs_than_are_begun_are_refused(
    small_mnist: Path, monkeypatch: Any, capsys: Any
) -> None:
    def interrupt_second(run: Any, trainer: Any, epoch: Any) -> None:
        if epoch.number == 1:
            trainer.interrupt()

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_keep_best", interrupt_second)
        assert main([*SMALL[:4], "4", *SMALL[5:], "--out", "run"]) == 130
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--epochs", "1"]) == 2
    assert capsys.readouterr().err == (
        "xpdl train: epochs must be at least 2, got 1: as many are begun in "
        "'run/checkpoint.safetensors'.\n"
    )
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before
    assert main(["train", "--resume", "run", "--epochs", "2"]) == 0
    assert main([*SMALL, "--out", "whole"]) == 0
    one, other = (Path(folder, "model.safetensors").read_bytes() for folder in ("run", "whole"))
    assert one == other


def test_a_damaged_checkpoint_is_found_before_anything_is_changed(
    interrupted: Path, capsys: Any
) -> None:
    (interrupted / "checkpoint.safetensors").write_bytes(b"not a checkpoint")
    before = {path.name: path.read_bytes() for path in interrupted.iterdir()}
    assert main(["train", "--resume", "run", "--epochs", "3"]) == 2
    assert "checkpoint.safetensors" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in interrupted.iterdir()} == before


def test_a_run_goes_on_where_it_was(interrupted: Path, capsys: Any) -> None:
    """The command that is printed will do, on whatever backend the run began."""
    record = json.loads((interrupted / "history.json").read_text())
    other = "generic" if record["options"]["backend"] == "numpy" else "numpy"
    with xpdl.use_backend(other):
        assert main(["train", "--resume", "run", "--backend", other]) == 2
        assert f"give --backend {record['options']['backend']}" in capsys.readouterr().err
        assert main(["train", "--resume", "run"]) == 0
    assert f"on {record['options']['backend']}" in capsys.readouterr().out


def test_the_same_options_are_no_change(interrupted: Path, capsys: Any) -> None:
    same = ["--batch-size", "50", "--seed", "0", "--model", "twolayernet", "--average", "0.99"]
    assert main(["train", "--resume", "run", *same, "--epochs", "2", "--dtype", "float32"]) == 0
    assert "other options" not in capsys.readouterr().out


def test_a_rate_that_depends_on_the_length_keeps_it(
    small_mnist: Path, monkeypatch: Any, capsys: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_keep_best", interrupt)
        assert main([*SMALL[:5], "--out", "run"]) == 130
    assert main(["train", "--resume", "run", "--epochs", "3"]) == 2
    assert "its own epochs (2)" in capsys.readouterr().err


# ---- the best, and what diverged


def test_the_best_is_kept_beside_the_last(small_mnist: Path, monkeypatch: Any) -> None:
    accuracies = iter([0.5, 0.8, 0.7, 0.8])
    monkeypatch.setattr(
        preparation.Trainer, "_judge", lambda self: (None, {"accuracy": next(accuracies)})
    )
    seen: list[dict[str, Any]] = []
    keep = Run._keep_best

    def watch(run: Any, trainer: Any, epoch: Any) -> None:
        seen.append({name: a.tolist() for name, a in trainer.network.arrays().items()})
        keep(run, trainer, epoch)

    monkeypatch.setattr(Run, "_keep_best", watch)
    four = [*SMALL[:4], "4", "--backend", "numpy", "--validation", "0.2"]
    assert main([*four, "--out", "run"]) == 0
    network, about = xpdl.storage.load_with_notes("run/best.safetensors")
    assert {name: xpdl.to_numpy(a).tolist() for name, a in network.arrays().items()} == seen[1]
    assert about["epochs"] == 2
    assert about["validation"] == {"accuracy": 0.8}
    last = xpdl.load("run")
    assert {name: xpdl.to_numpy(a).tolist() for name, a in last.arrays().items()} == seen[3]


def test_a_run_that_diverges_says_where_and_how_to_go_on(
    small_mnist: Path, monkeypatch: Any, capsys: Any
) -> None:
    arguments = [*SMALL, "--optimizer", "sgd", "--learning-rate", "1e38", "--backend", "numpy"]
    assert main([*arguments, "--out", "run"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    for words in (
        "the training diverged at step ", "affine", "the largest parameters are",
        "Use a lower learning rate", "xpdl train --resume run", "--on-divergence reduce-lr",
    ):  # fmt: skip
        assert words in err
    record = json.loads(Path("run/history.json").read_text())
    assert record["error"].startswith("the training diverged at step ")
    assert record["finished"] is False
    assert ensemble_run.resume_run("run", {"on_divergence": "skip"}).options.members == 1
