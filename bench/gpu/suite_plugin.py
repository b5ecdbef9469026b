"""A plugin of pytest for the part ``suite``: it tells of each test, and ends one that takes long.

A test that waits for a GPU which does not answer cannot be stopped but with its process.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Generator
from typing import Any

import pytest

from bench.gpu.suite import MARK, TEST_SECONDS

# pytest takes the error output away while a test runs.
_told = os.fdopen(os.dup(2), "w", encoding="utf-8")


def _tell(what: str, test: str) -> None:
    _told.write(f"\n{MARK} {what} {test}\n")
    _told.flush()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """End the process, and say where it was, if a test takes longer than it may."""
    _tell("begun", item.nodeid)
    faulthandler.dump_traceback_later(float(os.environ[TEST_SECONDS]), exit=True, file=_told)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell how a test ended, and why it failed."""
    if report.failed:
        _told.write(f"\n{report.longreprtext}")
    if report.skipped:
        _tell("skipped", report.nodeid)
    elif report.when == "call":
        _tell(report.outcome, report.nodeid)
    elif report.failed:
        _tell("error", report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tell why a file has no tests."""
    if report.failed:
        _told.write(f"\n{report.longreprtext}\n")
        _told.flush()
