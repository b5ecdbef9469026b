"""The model of a step on many ranks, and its picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import distributed
from bench.__main__ import main
from bench.step_model import (
    ETHERNET,
    NVLINK,
    P100,
    PLANNED,
    Link,
    Work,
    check,
    lateness,
    ring,
    speed_up,
    step_time,
    tree,
)

pytestmark = pytest.mark.usefixtures("on_numpy")
LINK = Link("a link", 1e-5, 1e9)


def test_one_rank_only_computes():
    work = Work("work", 0.1, 0.01, 4_000_000, messages=10)
    assert step_time(work, 20, 1, LINK) == pytest.approx(0.3)
    assert speed_up(work, 20, 1, LINK, strong=True) == 1


def test_sums_by_hand():
    assert ring(4, 8e6, LINK) == pytest.approx(6e-5 + 1.5 * 8e6 / 1e9)
    assert tree(4, 8e6, LINK) == pytest.approx(4 * (1e-5 + 8e-3))
    assert lateness(1) == 0
    assert lateness(100) == pytest.approx(2.5, abs=0.05)  # of 100 normal numbers, the largest


@pytest.mark.parametrize("name", P100)
def test_a_planned_step_is_as_fast_as_the_one_that_was_measured(name):
    work, _ = PLANNED[name]
    for rows, rate in P100[name].items():
        assert rows / work.compute(rows) == pytest.approx(rate)
    assert 0 < work.fixed < work.compute(32) / 4


@pytest.mark.parametrize("name", PLANNED)
@pytest.mark.parametrize("link", [ETHERNET, NVLINK], ids=lambda link: link.name)
def test_the_formula_is_what_the_simulation_does(name, link):
    work, rows = PLANNED[name]
    for row in check(work, rows, link):
        assert row["simulated"] == pytest.approx(row["formula"], rel=0.03), row


def test_the_short_form_says_what_two_processes_are_beside_one(tmp_path, monkeypatch, capsys):
    """With times that are made up: 24 and 15 ms alone, 13 together, 12 without a word."""
    took = iter((12, 13, 15, 24, 24, 15, 13, 12, 12, 15, 15, 30))
    pings = {"float32": {"4000": 5e-6}, "float16": {"4000": 4e-5}}
    monkeypatch.setattr(
        distributed, "_start", lambda *_, **__: {"seconds": [next(took) / 1000], "pings": pings}
    )
    assert main(["distributed", "--scaling", "--rounds", "3", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "two processes against one of one thread: 1.85 (1.85 to 2.00)" in out
    assert "of two threads: 0.87 (0.87 to 1.00)" in out
    assert "two processes' time against two that do not speak: 1.08 (1.08 to 1.25)" in out
    assert "a sum of 4000 bytes: 5 us, in half as many 40 us" in out
    told = json.loads((tmp_path / "distributed-scaling-numba.json").read_text())
    assert told["seconds"]["1 process of 1 thread"] == [0.024, 0.024, 0.030]


def test_the_plan_is_drawn(tmp_path: Path):
    assert main(["distributed", "--plan", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "distributed-plan.json").read_text())
    assert len(told["plan"]) == 12
    assert all(len(values) == len(told["ranks"]) for values in told["plan"].values())
    assert (tmp_path / "distributed-plan.png").stat().st_size > 10_000
