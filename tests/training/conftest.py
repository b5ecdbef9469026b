"""What tests of the command share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_digits import load_small

from xpdl.training import preparation


@pytest.fixture
def small_mnist(monkeypatch: Any, tmp_path: Path) -> Path:
    monkeypatch.setitem(preparation.LOADERS, "mnist", load_small)
    monkeypatch.setitem(preparation.LOADERS, "fashion-mnist", load_small)
    monkeypatch.chdir(tmp_path)
    return tmp_path
