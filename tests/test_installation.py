"""An installation stays as pip made it, whatever is computed with it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]

EVERYTHING = """
import sys
from small_digits import load_small
import xpdl
from xpdl.cli.main import main
from xpdl.runs import preparation

assert xpdl.__file__.startswith(sys.argv[1]), xpdl.__file__
preparation.LOADERS["mnist"] = load_small
for backend in ("numpy", "numba", "strict", "generic"):
    run, model = f"runs/{backend}-{sys.argv[2]}", "DeepConvNet"
    if backend in ("strict", "generic"):  # which take their time
        model = "SimpleConvNet"
    for line in (
        f"train --model {model} --epochs 1 --out {run}",
        f"predict {run} digit.png",
        f"profile --model {model} --batch-size 10 --rounds 1",
    ):
        if main([*line.split(), "--backend", backend]):
            sys.exit(f"failed: {line} on {backend}")
"""


def _without_roots_power() -> None:
    """In a child: let the modes of files bind root, as they bind everybody else."""
    drop, override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE: it ends when a program is executed
    ctypes.CDLL(None).prctl(drop, override, 0, 0, 0)


def run(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def listing(folder: Path) -> dict[str, str]:
    """Return what lies in a folder: the files with their digests, and the folders."""
    return {
        str(path.relative_to(folder)): path.is_file()
        and hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources, made = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "xpdl", sources / "xpdl", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(made), str(sources))
    return next(made.glob("*.whl"))


@pytest.mark.slow
def test_nothing_is_written_into_the_installed_package(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    installed = tmp_path / "installed"
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps")
    run(*pip, "--target", str(installed), str(wheel))
    before = listing(installed)
    kernels = {f"xpdl/backends/{name}" for name in ("numba/kernels.py", "cupy/kernels.cu")}
    assert before.keys() >= {"xpdl/__init__.py", "xpdl/models/imagenet_classes.txt", *kernels}
    one = np.full((28, 28), 255, np.uint8)
    one[4:24, 12:16] = 0
    Image.fromarray(one).save(tmp_path / "digit.png")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA_", "PYTHON"))}
    options = {
        "cwd": tmp_path,
        "env": environment
        | {"PYTHONPATH": f"{installed}{os.pathsep}{ROOT / 'tests'}"}
        | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    }

    run(sys.executable, "-c", EVERYTHING, str(installed), "first", **options)
    assert listing(installed) == before
    assert list((tmp_path / "cache" / "xpdl" / "compiled").glob("*/kernels.*.nbc"))

    for path in (installed, *installed.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        options |= {"preexec_fn": _without_roots_power} if sys.platform == "linux" else {}
        attempt = [sys.executable, "-c", f"open({str(installed / 'xpdl' / 'new')!r}, 'w')"]
        if not subprocess.run(attempt, stderr=subprocess.DEVNULL, **options).returncode:
            pytest.skip("this user may write everywhere")
        run(sys.executable, "-c", EVERYTHING, str(installed), "read-only", **options)
        assert listing(installed) == before
    finally:
        for path in (installed, *installed.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


# Finds modules of xpdl as the finder of an editable installation of setuptools does: last.
HIDDEN = """
import sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, [sys.argv[2]]) if name.startswith("xpdl.") else None

sys.path[:] = [sys.argv[1], *(path for path in sys.path if path + "/xpdl" != sys.argv[2])]
sys.meta_path.append(Finder)
from xpdl.cli.main import main
"""


def test_a_folder_that_hides_the_package_is_named(tmp_path: Path) -> None:
    left = tmp_path / "xpdl" / "backends" / "__pycache__"
    left.mkdir(parents=True)
    command = [sys.executable, "-c", HIDDEN, str(tmp_path), str(ROOT / "xpdl")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path / "xpdl", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert f"delete {str(tmp_path / 'xpdl')!r}" in done.stderr
