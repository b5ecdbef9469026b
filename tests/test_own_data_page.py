"""docs/your-own-data.md says what is true: each of its lines runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blank_drawings import draw_blank
from PIL import Image

from xpdl.backends import available_backends
from xpdl.cli.main import main
from xpdl.datasets import encode_idx
from xpdl.datasets.folder import load as folder_loading

PAGE = (Path(__file__).parents[1] / "docs" / "your-own-data.md").read_text()
LINES = [line for line in PAGE.splitlines() if line.startswith("xpdl ")]
NUMBA = available_backends()["numba"] == "ready"
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def pictures(folder: Path, names: list[str], each: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = rng.integers(0, 120, (12, 12, 3)).astype(np.uint8)
            pixels[..., k] += 100
            Image.fromarray(pixels).save(folder / name / f"{i}.jpg")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: Any) -> None:
    """A folder to work in, with all that the page names."""
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "cache"))
    monkeypatch.setattr(folder_loading, "_cores", lambda: 0)  # so few are decoded here
    monkeypatch.chdir(tmp_path)
    pictures(Path("flowers"), ["daisy", "rose", "tulip"], 16, 0)
    pictures(Path("more-flowers"), ["daisy", "rose"], 4, 1)
    pictures(Path("holidays"), ["beach"], 3, 2)
    Path("holidays/beach/0.jpg").rename("photo.jpg")
    rng = np.random.default_rng(3)
    x, t = rng.integers(0, 256, (60, 12, 12)).astype(np.uint8), np.arange(60) % 3
    np.savez("flowers.npz", x_train=x, t_train=t)
    Path("letters").mkdir()
    Path("letters/train-images-idx3-ubyte").write_bytes(encode_idx(x))
    Path("letters/train-labels-idx1-ubyte").write_bytes(encode_idx(t.astype(np.uint8)))


@pytest.mark.usefixtures("place", "on_numpy")
def test_its_lines_run(capsys: Any, monkeypatch: Any) -> None:
    assert len(LINES) > 10
    for line in LINES:
        words = shlex.split(line if NUMBA else line.replace(" --backend numba", ""))[1:]
        if Path("runs/flowers").exists():
            draw_blank(monkeypatch)  # the first training has drawn
        if "--resume" in words:  # this one was not interrupted
            assert main(words) == 2
            assert "is finished" in capsys.readouterr().err
            continue
        assert main(words) == 0, line
        out, err = capsys.readouterr()
        assert err == "", line
        if words[0] == "predict":
            assert "daisy" in out
            assert "photo" in out or "beach" in out
        if words[0] == "evaluate":
            assert "test accuracy" in out
    assert {"best.safetensors", "model.safetensors", "history.json", "curves.png"} <= {
        path.name for path in Path("runs/flowers").iterdir()
    }


@pytest.mark.usefixtures("place", "on_numpy")
def test_its_python_runs(capsys: Any) -> None:
    assert len(PYTHON) == 1
    exec(compile(PYTHON[0], "docs/your-own-data.md", "exec"), {})
    assert "photo.jpg [('" in capsys.readouterr().out


def test_what_it_names_is_there(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out
    for option in re.findall(r"`(--[a-z-]+)", PAGE):
        assert option in told, option
