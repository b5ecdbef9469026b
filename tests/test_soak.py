"""A process that trains for long holds no more at its end than at its beginning."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soak
from soak import Sample, complaints, rise

import xpdl
from xpdl.backends import available_backends

STATE = available_backends()
ROOT = Path(xpdl.__file__).parents[1]
MB = 2**20

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="only Linux tells what a process holds"
)


def run(arguments, timeout):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(soak.__file__).parent)]),
        # Where there are threads Python 3.12 warns of a fork; this one's child computes nothing.
        "PYTHONWARNINGS": "ignore::DeprecationWarning",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


# ---- the soak -------------------------------------------------------------------------------


@pytest.mark.skipif(STATE["numba"] != "ready", reason="no Numba")
@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(120, marks=pytest.mark.slow),
        pytest.param(1800, marks=pytest.mark.long),
    ],
)
def test_nothing_grows(seconds):
    done = run([soak.__file__, "--seconds", str(seconds)], timeout=2 * seconds + 240)
    print(done.stdout)  # the figures, for `pytest -s`
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_round_comes_to_its_end(tmp_path):
    soak.train("numpy", 0, tmp_path)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


# ---- a leak is found ------------------------------------------------------------------------

LEAKS = {
    "nothing": "pass",
    "memory": "kept.append(b'x' * 100_000)",
    "files": "kept.append(open('/dev/null'))",
    "threads": "threading.Thread(target=threading.Event().wait, daemon=True).start()",
}

LEAKING = """
import itertools, threading
import soak

kept = []

def leak():
    {leak}

samples = soak.soak(itertools.repeat(leak), 1)
print(*soak.complaints(samples), sep="\\n")
"""


@pytest.mark.parametrize("what", LEAKS)
def test_a_process_that_leaks_is_found_out(what):
    done = run(["-c", LEAKING.format(leak=LEAKS[what])], timeout=60)
    assert done.returncode == 0, done.stderr
    found = {kind for kind in LEAKS if kind in done.stdout}
    if what in ("files", "threads"):
        found -= {"memory"}  # which a file's buffer and a thread take, too
    assert found == {what} - {"nothing"}


# ---- the judge ------------------------------------------------------------------------------


def series(rng, count=200, *, rise=0.0, noise=0.0, early=0.0, files=(), threads=()):
    """Return made-up samples: memory with a rise over the run, and more of it in the warm-up."""
    samples = []
    for i in range(count):
        part = i / (count - 1)
        memory = 100 * MB * (1 + rise * part + early * min(part / soak.WARM_UP, 1))
        samples.append(
            Sample(
                seconds=10.0 * part,
                resident=round(memory * (1 + noise * rng.standard_normal())),
                needed=round(memory),
                files=10 + sum(part >= moment for moment in files),
                threads=3 + sum(part >= moment for moment in threads),
            )
        )
    return samples


@pytest.mark.parametrize("given", [{}, {"noise": 0.03}, {"early": 0.5}, {"rise": -0.3}])
@pytest.mark.parametrize("count", [10, 200])
def test_what_does_not_grow_is_left_in_peace(rng, given, count):
    assert complaints(series(rng, count, **given)) == []


def test_files_and_threads_may_come_in_the_warm_up(rng):
    assert complaints(series(rng, files=[0.1, 0.15], threads=[0.05])) == []


@pytest.mark.parametrize(("share", "count"), [(0.011, 0), (0.012, 0), (0.014, 2), (0.05, 2)])
def test_a_rise_of_more_than_one_percent_is_found(rng, share, count):
    # Four fifths of the rise are judged.
    assert len(complaints(series(rng, rise=share))) == count


def test_a_leak_is_found_in_noise(rng):
    [needed, resident] = sorted(complaints(series(rng, 1000, rise=0.04, noise=0.03)))
    assert needed.startswith("needed memory rose by 3.")
    assert resident.startswith("resident memory rose by ")


@pytest.mark.parametrize("what", ["files", "threads"])
@pytest.mark.parametrize("moment", [0.65, 1.0])
def test_one_file_or_thread_more_is_found(rng, what, moment):
    [found] = complaints(series(rng, **{what: [moment]}))
    assert what in found


def test_too_few_samples_are_no_judgement(rng):
    with pytest.raises(ValueError, match="9 samples are too few"):
        complaints(series(rng, 9))


def test_the_line_is_that_of_least_squares(rng):
    samples = series(rng, 50, rise=0.1, noise=0.05)
    t = np.array([sample.seconds for sample in samples])
    (b, a), covariance = np.polyfit(t, [s.resident for s in samples], 1, cov=True)
    share, error = rise(samples, "resident")
    assert share == pytest.approx(10 * b / a)
    assert error == pytest.approx(10 * np.sqrt(covariance[0, 0]) / a)
