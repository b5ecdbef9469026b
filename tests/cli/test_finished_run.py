"""The folder of a run that is there already: what can be done with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import xpdl
from xpdl.cli.main import main
from xpdl.errors import ArgumentError
from xpdl.runs.folder import FolderLock
from xpdl.runs.run import Run

SMALL = ["train", "--model", "TwoLayerNet", "--batch-size", "50", "--label-smoothing", "0"]
CONSTANT = [*SMALL, "--schedule", "constant", "--optimizer", "momentum", "--average", "0.9"]


def content(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def told(capsys: Any) -> str:
    err: str = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    return err


def test_a_finished_run_can_be_given_more_epochs(small_mnist: Path, capsys: Any) -> None:
    """It ends as one that had them from the beginning."""
    assert main([*CONSTANT, "--epochs", "3", "--out", "whole"]) == 0
    assert main([*CONSTANT, "--epochs", "1", "--out", "run"]) == 0
    capsys.readouterr()
    assert main([*CONSTANT, "--epochs", "3", "--out", "run"]) == 2
    assert "finished run in it: xpdl train --resume run --epochs N" in told(capsys)
    assert main(["train", "--resume", "run"]) == 2
    assert "finished after 1 epochs; give more --epochs" in told(capsys)
    assert main(["train", "--resume", "run", "--epochs", "1"]) == 2
    assert "give more --epochs" in told(capsys)
    assert main(["train", "--resume", "run", "--epochs", "3"]) == 0
    assert "epochs 3 (was 1)" in capsys.readouterr().out
    whole, run = content("whole"), content("run")
    assert run.keys() == whole.keys()
    assert run["model.safetensors"] == whole["model.safetensors"]
    records = [json.loads(files["history.json"]) for files in (whole, run)]
    assert records[0]["losses"] == records[1]["losses"]
    assert records[1]["finished"] is True
    assert records[1]["options"]["epochs"] == 3


def test_a_run_that_goes_on_for_longer_is_unfinished(small_mnist: Path, monkeypatch: Any) -> None:
    assert main([*CONSTANT, "--epochs", "1", "--out", "run"]) == 0
    assert main([*CONSTANT, "--epochs", "3", "--out", "whole"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_keep_best", lambda run, trainer, epoch: trainer.interrupt())
        assert main(["train", "--resume", "run", "--epochs", "3"]) == 130
    assert json.loads(content("run")["history.json"])["finished"] is False
    assert main(["train", "--resume", "run"]) == 0
    assert content("run")["model.safetensors"] == content("whole")["model.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [([], "one-cycle"), (["--schedule", "constant", "--members", "2"], "members")],
    ids=["a schedule at its end", "members"],
)
def test_a_run_that_is_at_its_end_says_so(
    small_mnist: Path, capsys: Any, arguments: list[str], why: str
) -> None:
    assert main([*SMALL, *arguments, "--epochs", "1", "--out", "run"]) == 0
    before = content("run")
    assert "checkpoint.safetensors" not in before
    capsys.readouterr()
    assert main(["train", "--resume", "run", "--epochs", "3"]) == 2
    message = told(capsys)
    for word in ("finished", "no more to do", why, "--overwrite"):
        assert word in message
    assert main([*SMALL, "--out", "run"]) == 2
    message = told(capsys)
    assert "choose another, add --overwrite" in message
    assert "--resume" not in message
    assert content("run") == before


def test_overwriting_leaves_nothing_of_the_run_before(small_mnist: Path, capsys: Any) -> None:
    assert main([*SMALL, "--members", "2", "--epochs", "1", "--out", "run"]) == 0
    Path("run/notes.txt").write_text("mine")
    assert main([*SMALL, "--epochs", "1", "--out", "run", "--overwrite"]) == 0
    assert main([*SMALL, "--epochs", "1", "--out", "new", "--overwrite"]) == 0
    overwritten, new = content("run"), content("new")
    assert overwritten.pop("notes.txt") == b"mine"
    assert overwritten.keys() == new.keys()
    assert overwritten["model.safetensors"] == new["model.safetensors"]


def test_a_refused_overwriting_changes_nothing(small_mnist: Path, capsys: Any) -> None:
    assert main([*SMALL, "--epochs", "1", "--out", "run"]) == 0
    before = content("run")
    overwrite = [*SMALL, "--epochs", "1", "--out", "run", "--overwrite"]
    capsys.readouterr()
    assert main([*overwrite, "--optimizer", "none"]) == 2
    assert main([*overwrite, "--shifts", "1"]) == 2
    lock = FolderLock(Path("run"))
    try:
        assert main(overwrite) == 2
    finally:
        lock.release()
    assert content("run") == before
    Path("a file").write_text("mine")
    assert main([*SMALL, "--out", "a file", "--overwrite"]) == 2
    assert Path("a file").read_text() == "mine"


def test_an_empty_name_is_no_folder_of_a_run(small_mnist: Path) -> None:
    with pytest.raises(ArgumentError, match="folder must be the name"):
        Run.resume("")
    with pytest.raises(xpdl.errors.XpdlError):
        xpdl.load("")
