"""That ``python -m bench gpu`` runs, with its GPU rehearsed; never how long anything takes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import bench_gpu_stand_in as stand_in
import numpy as np
import pytest

import xpdl
from bench import __main__ as command
from bench.gpu import kernels, parity, plan, record, step, suite, tables, training, worker
from bench.gpu.parts import PARTS
from bench.gpu.session import LeftOut, Session, Sizes
from xpdl.backends.cupy import fused
from xpdl.errors import DataUnavailableError, DivergenceError
from xpdl.training.feeding import Feeding

ROOT = Path(xpdl.__file__).parents[1]
STAND_IN = [sys.executable, stand_in.__file__]
TINY = Sizes(
    (3,), rounds=2, run_seconds=1e-6, parity_batch=2, parity_seeds=2, seeds=2, epochs=1, processes=2
)  # fmt: skip


# ---- who does what until when ----------------------------------------------------------------


def test_what_a_part_leaves_over_goes_to_the_next():
    ends = plan.timetable({"a": 1, "b": 3, "c": 4}, 80.0)
    assert ends == {"a": 10.0, "b": 40.0, "c": 80.0}  # whenever it begins
    assert set(plan.timetable({"a": 1, "b": 3}, math.inf).values()) == {math.inf}


@pytest.fixture
def short(monkeypatch):
    """Let parts begin that have very little time."""
    monkeypatch.setattr(plan, "LEAST_SECONDS", 0.2)


def do_parts(deeds, seconds):
    """Do seeming parts in turn, each within `seconds`; return what became of them."""
    words = [f"{name}={deed}" for name, deed in deeds.items()]
    planned = plan.Plan([*STAND_IN, "worker", *words], asdict(TINY), plan.Log())
    parts = {name: {} for name in deeds}
    with planned.heeding_signals():
        planned.begin(time.monotonic() + 60)
        for name, part in parts.items():
            planned.do(name, part, time.monotonic() + seconds.get(name, 60), lambda: None)
    return parts


def test_a_part_that_fails_or_dies_costs_itself_alone(short):
    deeds = {"a": "fails", "b": "ends", "c": "dies", "d": "ends", "e": "finds"}
    parts = do_parts(deeds, {})
    assert [part["state"] for part in parts.values()] == [
        *("failed", "done", "failed", "done", "failed")
    ]
    assert parts["a"]["message"] == "ValueError: no such thing"
    assert parts["c"]["message"] == "its process ended by itself (SIGKILL)"
    assert parts["e"]["message"] == "7 is too far off"
    assert {part["results"]["measured"] for part in parts.values()} == {1}


def test_a_part_may_not_overrun_its_time(short):
    start = time.monotonic()
    parts = do_parts({"a": "goes on", "b": "hangs", "c": "ends"}, {"a": 1.0, "b": 1.0})
    assert time.monotonic() - start < 45
    assert [part["state"] for part in parts.values()] == ["interrupted", "interrupted", "done"]
    assert parts["a"]["message"] == "its 1 s were over"
    assert parts["b"]["message"] == "it did not stop within its 1 s, and was ended"
    assert parts["a"]["results"]["measured"] > 1
    assert parts["b"]["results"]["measured"] == 1


def test_where_nothing_is_left_a_part_does_not_begin():
    parts = do_parts({"a": "ends", "b": "ends"}, {"a": 1.0})
    assert parts["a"] == {
        "state": "not begun", "message": "no time was left", "results": {}, "problems": [],
        "seconds": 0.0,
    }  # fmt: skip
    assert parts["b"]["state"] == "done"


def test_what_is_known_is_kept_after_each_measurement(short):
    words = ["worker", "a=goes on"]
    planned, kept, part = plan.Plan([*STAND_IN, *words], asdict(TINY), plan.Log()), [], {}
    with planned.heeding_signals():
        planned.begin(time.monotonic() + 60)
        ends_at = time.monotonic() + 2
        planned.do("a", part, ends_at, lambda: kept.append((part["state"], dict(part["results"]))))
    measured = [results.get("measured") for _, results in kept]
    assert measured[:3] == [1, 2, 3]
    assert kept[0][0] == "interrupted"  # so says the record if nobody can write it any more
    assert kept[-1] == ("interrupted", part["results"])


def test_an_interruption_never_comes_in_the_middle_of_something(short):
    """It is heard where the program waits for what was measured, and nowhere else."""
    planned = plan.Plan([*STAND_IN, "worker", "a=goes on"], asdict(TINY), plan.Log())
    whole, part = [], {}

    def keep():
        if not whole:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        whole.append(part["state"])

    with planned.heeding_signals():
        planned.begin(time.monotonic() + 60)
        with pytest.raises(plan.Interrupted, match="SIGTERM"):
            planned.do("a", part, math.inf, keep)
    assert whole
    assert (part["state"], part["message"]) == ("interrupted", "SIGTERM")


# ---- the program --------------------------------------------------------------------------------


def program(out, worker, *arguments, **options):
    """Start ``python -m bench gpu`` with a process that stands for the one that measures."""
    words = ["program", *worker, "--", "gpu", "--out", str(out), *arguments]
    return subprocess.Popen(
        [*STAND_IN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def ended(process):
    out, errors = process.communicate(timeout=300)
    return process.returncode, out, errors


def read_record(out):
    (path,) = out.glob("gpu-*.json")
    return json.loads(path.read_text())


def test_all_of_it(tmp_path):
    parts = "parity,step,kernels,training,memory"
    arguments = ["--quick", "--rounds", "1", "--parts", parts, "--source", "commit"]
    arguments += ["--minutes", "60"]
    (tmp_path / "commit").write_text("0123abcd\n")
    out = tmp_path / "out"
    status, printed, errors = ended(program(out, ["rehearsed"], *arguments, cwd=tmp_path))
    assert (status, errors) == (0, ""), printed
    names = sorted(path.name for path in out.iterdir())
    name = f"gpu-rehearsed-gpu-quick-{parts.replace(',', '-')}"
    assert names == [f"{name}.json", f"{name}.log", f"{name}.md"]
    found = read_record(out)
    states = {name: part["state"] for name, part in found["parts"].items()}
    assert states == dict.fromkeys(parts.split(","), "done") | {"kernels": "left out"}
    assert "PyTorch" in found["parts"]["kernels"]["message"]
    assert (found["source"], found["minutes"]) == ("0123abcd", 60)
    assert "== parity (within " in printed
    device = found["device"]
    assert (device["device"], device["compute capability"]) == ("Rehearsed GPU", "9.0")
    assert (device["NVRTC"], device["cuBLAS"], device["CUDA runtime"]) == ("13.2", "13.1.0", "13.2")
    assert found["command"].startswith("python -m bench")
    assert found["machine"]["packages"]["numpy"]
    text = (out / f"{name}.md").read_text()
    assert text in printed
    assert printed == (out / f"{name}.log").read_text()
    for line in (
        "| xpdl captured | float32 | 4 | ",
        "| xpdl captured | TF32 | 3 | ",
        "| xpdl eager | float16 | 3 | ",
        "| training, float16 | 1 | 1 | ",
        "| gradients in float32 | ",
        "| xpdl float16 captured | 3 | ",
        "**kernels left out:** ",
        "**xpdl 0.1.0 on Rehearsed GPU** (driver ",
    ):
        assert line in text, line
    for block in text.split("\n\n"):
        assert len({line.count("|") for line in block.splitlines() if line[:1] == "|"}) <= 1, block


@pytest.mark.parametrize("name", PARTS)
def test_an_interruption_in_any_part_keeps_what_was_measured(tmp_path, name):
    number = signal.SIGINT if name == "step" else signal.SIGTERM
    deeds = [f"{part}={'hangs' if part == name else 'ends'}" for part in PARTS]
    process = program(tmp_path, deeds)
    wait_for(lambda: read_record(tmp_path)["parts"][name]["results"].get("measured"))
    os.kill(process.pid, number)
    status, printed, errors = ended(process)
    assert (status, errors) == (128 + number, "")
    parts = read_record(tmp_path)["parts"]
    before, after = [*PARTS][: [*PARTS].index(name)], [*PARTS][[*PARTS].index(name) + 1 :]
    assert {parts[part]["state"] for part in before} <= {"done"}
    assert {parts[part]["state"] for part in after} <= {"not begun"}
    assert (parts[name]["state"], parts[name]["message"]) == ("interrupted", number.name)
    assert parts[name]["results"] == {"measured": 1}
    assert f"**{name} interrupted:** {number.name}" in printed
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".log", ".md"}


def wait_for(happened):
    for _ in range(3000):
        try:
            if happened():
                return
        except (KeyError, ValueError, FileNotFoundError):
            pass
        time.sleep(0.02)
    raise AssertionError("it did not happen within a minute")


def test_a_program_that_is_killed_leaves_its_record_and_no_process(tmp_path):
    process = program(tmp_path, ["parity=ends", "step=hangs"], "--parts", "parity,step")
    wait_for(lambda: read_record(tmp_path)["parts"]["step"]["results"])
    process.kill()
    # Those who measure hold its error output open for as long as they live.
    assert ended(process)[0] == -signal.SIGKILL
    parts = read_record(tmp_path)["parts"]
    assert parts["parity"]["state"] == "done"
    assert parts["step"]["results"] == {"measured": 1}
    assert parts["step"]["message"] == "the program was ended from outside"


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        ("fails", "there is no GPU."),
        ("dies", "ended at its start (exit status 1): libcuda.so: not what was expected"),
        ("hangs", "the GPU did not answer in its time"),
    ],
)
def test_a_worker_that_does_not_start_is_one_line(tmp_path, deed, said):
    out = tmp_path / "out"
    status, printed, errors = ended(program(out, [f"start={deed}"], "--minutes", "0.1"))
    assert (status, printed) == (2, "")
    (line,) = errors.splitlines()
    assert line.startswith("python -m bench gpu: ")
    assert line.endswith(said)
    assert not out.exists()


# ---- the parts ----------------------------------------------------------------------------------


@pytest.fixture
def session(rehearsed, monkeypatch):
    """Parts measure the rehearsed GPU, little of each."""
    xp = rehearsed.xp
    monkeypatch.setitem(sys.modules, "cupy", xp)
    monkeypatch.setattr(fused, "load_cublas", lambda cupy: rehearsed._products._library)
    monkeypatch.delenv("XPDL_TF32", raising=False)
    stand_in.make_small(monkeypatch.setattr)
    return Session(rehearsed, TINY, None, "PyTorch is not measured: a test")


def measured(name, session, **sizes):
    """Do a part; return what is known at its end."""
    session.sizes = replace(TINY, **sizes)
    end = worker.do_part(PARTS[name].do, session, None, lambda answer: None)
    return json.loads(json.dumps(record.as_json(end)))


def test_parity(session):
    part = measured("parity", session)
    assert part["state"] == "done", part["message"]
    rows = part["results"]["precisions"]
    assert [*rows] == ["float64", "float32", "float16", "TF32", "float16 on the host"]
    assert {row["seeds"] for row in rows.values()} == {part["results"]["seeds"]} == {2}
    assert rows["float64"]["largest"] < 1e-10
    assert rows["float64"]["largest"] < rows["float32"]["largest"] < 1e-4
    assert rows["float32"]["largest"] < rows["TF32"]["largest"] < 3e-2
    assert rows["float32"]["held"] is rows["float16"]["held"] is rows["float64"]["held"] is True
    assert rows["TF32"]["held"] is None
    # Gradients that still had the scale in them would be as far off as it is large.
    assert rows["float16"]["loss_scale"] > 1
    assert rows["float32"]["largest"] < rows["float16"]["largest"] < 3e-2
    assert rows["float16"]["largest"] < 2 * rows["float16 on the host"]["largest"]
    for row in rows.values():
        assert max(row["by_parameter"].values()) == row["largest"]
        assert row["by_parameter"][row["parameter"]] == row["largest"]
        assert {"conv1.W", "affine2.b"} <= row["by_parameter"].keys()
    assert "XPDL_TF32" not in os.environ  # which one backend was made with


def test_gradients_that_are_too_far_off_fail(session, monkeypatch):
    monkeypatch.setattr(parity, "HALF_BOUND", 0.0)
    part = measured("parity", session)
    assert part["state"] == "failed"
    assert part["results"]["precisions"]["float16"]["held"] is False
    assert part["message"].startswith("the gradient of ")
    assert part["message"].endswith(", 0 is allowed")
    assert "float32" not in part["message"]
    lines = tables.table({"parts": {"parity": part}}, "parity")
    assert "| **no** |" in "\n".join(lines)


def test_gradients_that_are_not_finite_do_not_hold(session, monkeypatch):
    monkeypatch.setattr(parity, "_apart", lambda g, reference: np.inf)
    part = measured("parity", session, parity_seeds=1)
    row = part["results"]["precisions"]["float32"]
    assert (part["state"], row["largest"], row["held"]) == ("failed", "inf", False)


def test_steps_are_timed_in_order_of_worth(session):
    part = measured("step", session)
    assert part["state"] == "done", part["message"]
    timings = part["results"]["timings"]
    assert [(t["precision"], t["batch"], [*t["results"]]) for t in timings] == [
        ("float32", 3, ["xpdl captured", "xpdl eager"]),
        ("float16", 3, ["xpdl captured", "xpdl eager"]),
        ("TF32", 3, ["xpdl captured"]),
        ("float32", 3, ["xpdl captured", "xpdl generic"]),
    ]
    for timing in timings:
        assert not timing["failed"]
        for row in timing["results"].values():
            assert row["runs"] == 2
            assert 0 < row["from_ms"] <= row["median_ms"] <= row["to_ms"]
        assert timing["results"]["xpdl captured"]["ours_takes"] == 1
    assert "a test" in part["results"]["peer"]


def test_a_run_lasts_long_enough(session):
    seen = []

    def one():
        seen.append(None)
        time.sleep(0.001)

    program = step.Program(None, lambda: contextlib.nullcontext(), lambda: None)
    count = step._steps_of_a_run(program, one, 0.02)
    assert 1 <= count <= 22
    assert len(seen) >= min(count // 4, 10)


def test_what_a_part_measured_before_it_failed_is_kept(session, monkeypatch):
    make = step.trainer_step

    def fails(factory, batch_size, backend, dtype, captured):
        if batch_size == 4 and dtype == "float16":
            raise MemoryError("Out of memory\nallocating 1,000 bytes.")
        return make(factory, batch_size, backend, dtype, captured)

    monkeypatch.setattr(step, "trainer_step", fails)
    part = measured("step", session, batch_sizes=(3, 4))
    text = "xpdl captured in float16, batch 4: MemoryError: Out of memory allocating 1,000 bytes."
    assert part["state"] == "failed"
    assert text in part["message"]
    kept = [(t["precision"], t["batch"], len(t["results"])) for t in part["results"]["timings"]]
    assert kept == [
        *(("float32", 3, 2), ("float32", 4, 2), ("float16", 3, 2), ("float16", 4, 0)),
        *(("TF32", 3, 1), ("TF32", 4, 1), ("float32", 3, 2), ("float32", 4, 2)),
    ]


def test_a_step_that_is_not_captured_is_not_called_so(session, monkeypatch):
    make = Feeding._make

    def reads(feeding, *arguments, **options):
        make(feeding, *arguments, **options)
        feeding.step.network.backend.item(feeding.tally.sums.sum())

    monkeypatch.setattr(Feeding, "_make", reads)
    part = measured("step", session)
    assert part["state"] == "failed"
    (timing, *_) = part["results"]["timings"]
    assert "cannot be captured" in timing["failed"]["xpdl captured"]
    assert [*timing["results"]] == ["xpdl eager"]
    assert "ours_takes" not in timing["results"]["xpdl eager"]


def test_training_begins_with_epochs_that_do_not_count(session, monkeypatch):
    fit, fitted = xpdl.Trainer.fit, []

    def counted(trainer):
        fitted.append((trainer.network.precision.name, trainer.epochs, trainer.seed))
        return fit(trainer)

    monkeypatch.setattr(xpdl.Trainer, "fit", counted)
    part = measured("training", session, epochs=2)
    assert part["state"] == "done", part["message"]
    assert fitted == [
        *(("float32", 1, 0), ("float16", 1, 0)),
        *(("float32", 2, 0), ("float16", 2, 0), ("float32", 2, 1), ("float16", 2, 1)),
    ]
    results = part["results"]
    assert [(run["dtype"], run["seed"], len(run["epochs"])) for run in results["runs"]] == [
        *(("float32", 0, 2), ("float16", 0, 2), ("float32", 1, 2), ("float16", 1, 2))
    ]
    for dtype, row in results["summary"].items():
        assert results["warm_up_seconds"][dtype] > 0
        assert row["runs"] == 2
        assert 0 <= row["test_accuracy"] <= 1
        assert row["test_accuracy_deviation"] >= 0
        assert row["seconds"] > 0
        assert all((scale is None) == (dtype == "float32") for scale in row["loss_scales"])


def test_each_epoch_of_a_training_is_handed_over(session):
    session.sizes = replace(TINY, seeds=1, epochs=2)
    handed = []
    worker.do_part(
        training.training, session, None, lambda a: handed.append(json.dumps(record.as_json(a)))
    )
    epochs = [
        [len(run["epochs"]) for run in json.loads(text)["results"]["runs"]] for text in handed
    ]
    for seen in ([1], [2], [2, 1], [2, 2]):
        assert seen in epochs


def test_a_training_that_diverges_is_one_of_several(session, monkeypatch):
    train = training._train

    def diverges(backend, data, row, epochs, notes):
        if row["seed"] == 0 and row["dtype"] == "float32" and notes.results["warm_up_seconds"]:
            raise DivergenceError("the loss became nan at step 3")
        return train(backend, data, row, epochs, notes)

    monkeypatch.setattr(training, "_train", diverges)
    part = measured("training", session)
    assert part["message"] == "float32, seed 0: the loss became nan at step 3"
    assert part["state"] == "failed"
    assert part["results"]["summary"]["float32"]["test_accuracy_deviation"] is None
    assert part["results"]["summary"]["float16"]["runs"] == 2


def test_without_mnist_training_is_left_out_in_a_line(session, monkeypatch):
    def lacks(**options):
        raise DataUnavailableError("mnist is not here.")

    monkeypatch.setattr(training, "load_mnist", lacks)
    part = measured("training", session)
    assert (part["state"], part["message"]) == ("left out", "no MNIST: mnist is not here.")


def test_memory(session):
    part = measured("memory", session)
    assert part["state"] == "done", part["message"]
    rows = part["results"]["rows"]
    assert [row["program"] for row in rows] == [
        f"xpdl {dtype} {way}" for dtype in ("float32", "float16") for way in ("captured", "eager")
    ]
    for row in rows:
        assert 0 < row["over_start_mib"] <= row["peak_mib"]


# ---- kernels ------------------------------------------------------------------------------------

TRACE = [
    {"cat": "kernel", "name": "gemm", "ts": 10.0, "dur": 4.0},
    {"cat": "cuda_runtime", "name": "cudaGraphLaunch", "ts": 1.0, "dur": 99.0},
    {"cat": "gpu_memcpy", "name": "Memcpy DtoD", "ts": 15.0, "dur": 1.0},
    {"cat": "kernel", "name": "relu", "ts": 16.0, "dur": 2.0},
    {"cat": "kernel", "name": "gemm", "ts": 20.0, "dur": 6.0},
    {"ph": "M", "name": "process_name"},
]


def test_a_trace_is_told_kernel_by_kernel():
    told = kernels.by_kernel(TRACE, 2)
    assert told == {
        "steps": 2,
        "kernels_a_step": 1.5,
        "moves_a_step": 0.5,
        "busy_us": 6.5,
        "span_us": 8.0,
        "kernels": [
            {"name": "gemm", "calls": 1.0, "us": 5.0},
            {"name": "relu", "calls": 0.5, "us": 1.0},
            {"name": "Memcpy DtoD", "calls": 0.5, "us": 0.5},
        ],
    }
    profile = told | {"program": "xpdl captured", "precision": "float32", "batch": 100}
    lines = tables.TABLES["kernels"]({"profiles": [profile]})
    assert "| xpdl captured | float32 | 100 | 2 | 0 | 6 | 8 |" in lines
    assert "| `gemm` | 1.0 | 5.0 | 77 % |" in lines


def test_a_profiler_that_sees_no_kernel_says_so():
    with pytest.raises(LeftOut, match="told of no kernel"):
        kernels.by_kernel(TRACE[1:3], 2)


# ---- the suite ----------------------------------------------------------------------------------

SOME_TESTS = """
import os, time, pytest
pytestmark = pytest.mark.gpu  # not for every backend
def test_right(): pass
def test_wrong(): assert not BAD
@pytest.mark.skip
def test_left_out(): pass
def test_long(): time.sleep(600 if BAD else 0)
def test_hard(): os._exit(3) if BAD else None
def test_last(): pass
"""


@pytest.fixture
def some_tests(tmp_path, monkeypatch):
    """A project with one file of tests; what they do is given."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\naddopts = -ra\n")
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_none.py").write_text("def test_it(backend): pass\n")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def write(bad):
        text = SOME_TESTS.replace("BAD", repr(bad))
        (tmp_path / "tests" / "test_some.py").write_text(text)

    return write


@pytest.mark.parametrize("bad", [False, True])
def test_a_test_that_hangs_or_ends_its_process_costs_itself(session, some_tests, bad, capsys):
    some_tests(bad)
    part = measured("suite", session, test_seconds=1.0 if bad else 60.0)
    results, left = part["results"], []
    if bad:
        left = [
            "tests/test_some.py::test_wrong",
            "tests/test_some.py::test_long: its process ended (exit status 1)",
            "tests/test_some.py::test_hard: its process ended (exit status 3)",
        ]
    assert (results["passed"], results["failed"]) == ((2, 1) if bad else (5, 0))
    assert results["skipped"] == 1
    assert results["failures"] == left
    assert part["state"] == ("failed" if bad else "done")
    lines = tables.table({"parts": {"suite": part}}, "suite")
    assert lines[0].startswith(f"`python -m pytest -m gpu`: {results['passed']} passed, ")
    said = capsys.readouterr().out
    assert ("in test_long" in said) == ("in test_wrong" in said) == bad, said


def test_the_suite_has_an_end(session, some_tests):
    some_tests(True)
    end = worker.do_part(suite.suite, session, 4.0, lambda answer: None)
    assert end["state"] == "interrupted"
    assert end["results"]["passed"] >= 0
    assert not [thread for thread in threading.enumerate() if "_work" in thread.name]


# ---- PyTorch beside ours ------------------------------------------------------------------------


def test_beside_pytorch(session, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(step, "PRECISIONS", ("float32", "float16"))
    session.torch, session.about_torch = "cpu", f"PyTorch {torch.__version__}"
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    part = measured("step", session)
    assert part["state"] == "done", part["message"]
    assert before == (matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark)
    for timing in part["results"]["timings"][:2]:
        assert not timing["failed"]
        assert "PyTorch" in timing["results"]
    ratio = part["results"]["timings"][0]["results"]["PyTorch"]["ours_takes"]
    said = "reached" if ratio <= 1 else "missed"
    lines = tables.TABLES["step"](part["results"])
    assert any(line.endswith(f"| {ratio:.2f} | 1.0: {said} |") for line in lines)


@pytest.mark.parametrize("tf32", [False, True])
def test_pytorch_takes_tf32_for_products_and_convolutions_alike(tf32):
    torch = pytest.importorskip("torch")
    from bench.gpu.peers import torch_settings

    with torch_settings(tf32):
        assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == tf32


def test_a_peer_that_fails_is_said_and_no_failure_of_ours(session, monkeypatch):
    def fails(factory, batch_size, **options):
        raise RuntimeError("no compiler | found")

    session.torch = "cpu"
    monkeypatch.setattr(step, "torch_settings", lambda tf32: contextlib.nullcontext())
    monkeypatch.setattr(step, "torch_step", fails)
    monkeypatch.setattr(step, "PRECISIONS", ("float32",))
    part = measured("step", session)
    assert part["state"] == "done"
    (timing, *_) = part["results"]["timings"]
    assert timing["failed"]["PyTorch"] == "RuntimeError: no compiler | found"
    said = "PyTorch, float32, batch 3: RuntimeError: no compiler"
    assert said in "\n".join(tables.TABLES["step"](part["results"]))


def test_without_pytorch_the_record_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    device, said = record.torch_state()
    assert device is None
    assert said.startswith("PyTorch is not measured: ModuleNotFoundError")


def test_aims_are_for_float32():
    row = {"median_ms": 2.0, "from_ms": 1.9, "to_ms": 2.2, "runs": 8, "ours_takes": 1.2}
    timings = [
        {"precision": precision, "batch": 100, "results": {name: row}, "failed": {}}
        for precision in ("float32", "TF32")
        for name in step.AIMS
    ]
    lines = tables.TABLES["step"]({"aims": step.AIMS, "timings": timings})
    assert [line.split("|")[-3:-1] for line in lines[2:]] == [
        [" 1.20 ", " 1.0: missed "],
        [" 1.20 ", " 1.5: reached "],
        [" 1.20 ", "  "],
        [" 1.20 ", "  "],
    ]


# ---- what is said instead -----------------------------------------------------------------------


def in_a_process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "bench", "gpu", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parts", "steps,parity"], "'steps' is no part; the parts are parity, step, kernels,"),
        (["--parts", ","], "nothing is no part"),
        (["--rounds", "0"], "--rounds"),
        (["--minutes", "0"], "--minutes: must be a number above 0, got '0'"),
        (["--minutes", "nan"], "--minutes"),
        (["--source", "nowhere/to/be/found"], "cannot read 'nowhere/to/be/found'"),
    ],
)
def test_bad_input_is_answered_in_one_line(tmp_path, arguments, said, capsys):
    try:
        status = command.main(["gpu", *arguments, "--out", str(tmp_path)])
    except SystemExit as error:
        status = error.code
    errors = capsys.readouterr().err
    assert status == 2
    assert len(errors.splitlines()) == 1
    assert said in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("chosen", ["numpy", "cupy"])
def test_without_a_gpu_the_reason_is_said_in_one_line(tmp_path, chosen):
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so: not found')\n")
    out = tmp_path / "results"
    done = in_a_process("--quick", "--out", str(out), PYTHONPATH=str(tmp_path), XPDL_BACKEND=chosen)
    assert done.returncode == 2
    assert not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("python -m bench")
    assert "CuPy is installed but does not load (ImportError: libcuda.so: not found)" in line
    assert not out.exists()


@pytest.mark.parametrize(("name", "value"), [("XPDL_PROVIDER", "generic"), ("XPDL_TF32", "1")])
def test_settings_that_would_change_what_names_say_are_refused(
    tmp_path, monkeypatch, capsys, name, value
):
    monkeypatch.setenv(name, value)
    assert command.main(["gpu", "--out", str(tmp_path)]) == 2
    assert f"unset {name}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_git_the_source_is_unknown(monkeypatch):
    monkeypatch.setattr(record, "said_by", lambda *command: None)
    assert record.source_name(None) == "unknown"


def test_a_version_that_is_not_told_is_no_reason_to_stop():
    def fails():
        raise OSError("no such symbol")

    assert record._told(fails) == "unknown (OSError: no such symbol)"


def test_charts_are_drawn_from_the_record(tmp_path, capsys):
    row = {"median_ms": 2.0, "from_ms": 1.9, "to_ms": 2.2, "ours_takes": 1.0}
    timings = [
        {"precision": "float32", "batch": batch, "results": {"xpdl captured": row}}
        for batch in (100, 1000)
    ]
    path = tmp_path / "gpu-x.json"
    path.write_text(json.dumps({"parts": {"step": {"results": {"timings": timings}}}}))
    assert command.main(["gpu-charts", str(path)]) == 0
    assert {p.name for p in tmp_path.glob("*.png")} == {
        "gpu-x-step-batch100.png",
        "gpu-x-step-batch1000.png",
    }
    path.write_text('{"parts": {}}')
    assert command.main(["gpu-charts", str(path)]) == 2
    assert "has no timed steps" in capsys.readouterr().err


def test_what_cannot_be_shown_does_not_take_away_what_was_measured():
    part = {"state": "done", "message": "", "results": {"profiles": [{}]}}
    (line,) = tables.table({"parts": {"kernels": part}}, "kernels")
    assert line.startswith("kernels cannot be shown, see the record: KeyError")
