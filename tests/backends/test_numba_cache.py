"""What Numba compiles is kept in the user's cache; where that cannot be, it is compiled anew."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import xpdl
from xpdl.errors import FileAccessError

pytest.importorskip("numba")

from numba.core.dispatcher import Dispatcher

import xpdl.backends.numba as numba_room
from xpdl.backends.numba import cache

ROOT = Path(xpdl.__file__).parents[1]

TWO_FUNCTIONS = """
from xpdl.backends.numba.cache import FOLDER, compiled

@compiled
def half(x):
    return x / 2

@compiled
def twice(x):
    return x * 2

assert (half(3), twice(3)) == (1.5, 6)
hits = [sum(function.stats.cache_hits.values()) for function in (half, twice)]
print(FOLDER, *hits)
"""


def compile_two(root: Path = ROOT, **variables: str) -> tuple[Path, list[str], str]:
    """Return the folder of a new process, how often it found compiled code there, what it said."""
    kept = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-P", "-W", "always", "-c", TWO_FUNCTIONS],
        env=kept | {"PYTHONPATH": str(root)} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    folder, *hits = done.stdout.split()
    return Path(folder), hits, done.stderr


def test_no_function_is_kept_beside_its_source() -> None:
    names = [name for _, name, _ in pkgutil.iter_modules(numba_room.__path__)]
    modules = [importlib.import_module(f"{numba_room.__name__}.{name}") for name in names]
    values = [value for module in modules for value in vars(module).values()]
    functions = [value for value in values if isinstance(value, Dispatcher)]
    assert len(functions) > 30
    assert {function.stats.cache_path for function in functions} == {str(cache.FOLDER)}
    assert cache.FOLDER is not None
    assert not cache.FOLDER.is_relative_to(ROOT / "xpdl")
    assert cache.FOLDER.name.startswith(f"{xpdl.__version__}-")


def test_the_next_process_finds_it_until_a_source_changes(tmp_path: Path) -> None:
    folder, hits, said = compile_two(XDG_CACHE_HOME=str(tmp_path))
    assert folder.parent == tmp_path / "xpdl" / "compiled"
    assert (hits, said) == (["0", "0"], "")
    assert compile_two(XDG_CACHE_HOME=str(tmp_path)) == (folder, ["1", "1"], "")

    shutil.copytree(ROOT / "xpdl", tmp_path / "changed" / "xpdl")
    with open(tmp_path / "changed" / "xpdl" / "backends" / "numba" / "vectors.py", "a") as source:
        source.write("# The functions of kernels.py take in the code of this file.\n")
    other, hits, _ = compile_two(tmp_path / "changed", XDG_CACHE_HOME=str(tmp_path))
    assert other != folder
    assert hits == ["0", "0"]


def test_numbas_own_variable_is_heeded(tmp_path: Path) -> None:
    folder, _, said = compile_two(NUMBA_CACHE_DIR=str(tmp_path / "own"))
    assert folder.parent == tmp_path / "own" / "xpdl"
    assert list(folder.glob("*.nbc"))
    assert said == ""


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "NUMBA_CACHE_DIR"])
def test_a_folder_that_cannot_be_is_said_once(tmp_path: Path, variable: str) -> None:
    (tmp_path / "file").touch()  # in which not even root makes a folder
    folder, hits, said = compile_two(**{variable: str(tmp_path / "file" / "cache")})
    assert hits == ["0", "0"]
    assert said.count("Warning") == 1
    assert f"{folder}: Not a directory" in said
    assert "set NUMBA_CACHE_DIR to another" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_damaged_file_is_said_once(tmp_path: Path) -> None:
    folder, _, _ = compile_two(XDG_CACHE_HOME=str(tmp_path))
    for path in folder.glob("*.nbc"):
        os.truncate(path, 20)
    _, hits, said = compile_two(XDG_CACHE_HOME=str(tmp_path))
    assert hits == ["0", "0"]
    assert said.count("Warning") == 1
    assert "delete it if it is damaged" in said


def test_a_user_without_a_home_has_no_folder(monkeypatch: Any) -> None:
    def no_home() -> Path:
        raise FileAccessError("Could not determine home directory.")

    monkeypatch.setattr(cache.config, "CACHE_DIR", "")
    monkeypatch.setattr(cache, "cache_folder", no_home)
    with pytest.warns(UserWarning, match=r"home directory.*NUMBA_CACHE_DIR"):
        assert cache._find_folder() is None


def test_old_versions_go_when_a_new_one_comes(tmp_path: Path) -> None:
    versions = [tmp_path / f"0.{age}.0-0123456789ab" for age in range(6)]
    for age, folder in enumerate(versions):
        folder.mkdir()
        (folder / "kernels.nbc").touch()
        os.utime(folder, (1e9 - age, 1e9 - age))
    (tmp_path / "the user's own").mkdir()
    os.utime(tmp_path / "the user's own", (0, 0))

    cache.add_version(versions[5])  # it is there
    assert len(list(tmp_path.iterdir())) == 7
    cache.add_version(tmp_path / "1.0.0-0123456789ab")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(folder.name for folder in versions[: cache.KEPT - 1]),
        "1.0.0-0123456789ab",
        "the user's own",
    ]
