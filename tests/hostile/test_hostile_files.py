"""Files from strangers are read right, or refused by an error of ours; see `hostile_readers`.

Each case has a second of the processor and 512 MB, may warn of nothing, write nothing, start
nothing, and leaves no half-loaded network behind. One that fails is shown by its number, with the
command that repeats it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_readers import READERS, put, reader_of
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX's bounds of memory")

SCRIPT = Path(__file__).with_name("hostile_run.py")
NAMES = [kind.name for kind in READERS]
FEW, MANY = 300, 20_000
EXAMPLES = 25, 2000  # of hypothesis, which takes longer for each


def run(names, cases, *options, minutes):
    """Read so many cases of each reader in processes of their own; return what came of them."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *names, "--cases", str(cases), *options],
        capture_output=True,
        text=True,
        timeout=60 * minutes,
    )
    assert done.returncode == 0, done.stderr
    return {result["reader"]: result for result in map(json.loads, done.stdout.splitlines())}


def expect_safe(result, cases):
    name, failures = result["reader"], result["failures"]
    shown = [
        f"{failure['title']}: {failure['error']}\n"
        f"again: python tests/hostile/hostile_run.py '{name}' --first={failure['case']} --cases 1\n"
        f"its bytes begin: {failure['hex'][:400]}"
        for failure in failures
    ]
    assert not failures, "\n\n".join(shown[:5])
    assert result["read"] + result["refused"] >= cases
    # Hostile, and not merely broken: some of them are right files still.
    assert result["read"] >= 3
    assert result["refused"] >= cases / 4


@pytest.fixture(scope="module")
def results():
    return run(NAMES, FEW, minutes=2)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_files_end_in_the_right_error_or_are_read_right(name, results):
    expect_safe(results[name], FEW)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_many_hostile_files_end_in_the_right_error_or_are_read_right(name):
    result = run([name], MANY, "--all", minutes=15)[name]
    print({key: value for key, value in result.items() if key != "failures"})
    expect_safe(result, MANY)


@pytest.fixture(scope="module")
def readers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return {name: reader_of(name, folder) for name in NAMES}


def try_out(reader, random):
    """Read what hypothesis makes of the reader's hostile files."""
    content = reader.make(random)
    put(content, reader.path)
    subject = reader.subject()
    try:
        value = reader.read(reader.path, subject)
    except reader.allowed:
        reader.unchanged(subject)
    else:
        reader.check(content, value, subject)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES[0])
@given(random=st.randoms(use_true_random=False))
def test_what_hypothesis_makes_is_refused_or_read_right(name, random, readers):
    try_out(readers[name], random)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=EXAMPLES[1])
@given(random=st.randoms(use_true_random=False))
def test_much_that_hypothesis_makes_is_refused_or_read_right(name, random, readers):
    try_out(readers[name], random)
