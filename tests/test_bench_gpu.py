"""That ``python -m bench gpu`` runs, with its GPU rehearsed; never how long anything takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import xpdl
from xpdl.backends.cupy import fused as cupy_fused
from xpdl.layers import Affine, Convolution, Dropout, MaxPooling, ReLU
from xpdl.network import Network

ROOT = Path(xpdl.__file__).parents[1]
sys.path.append(str(ROOT))  # the bench is not part of what is installed

from bench import __main__ as command  # noqa: E402
from bench import gpu, gpu_parts, gpu_tables, measure  # noqa: E402

TINY = gpu_parts.Sizes(
    (3,),
    rounds=1,
    repeats=1,
    steps=1,
    profiled=1,
    parity_batch=2,
    parity_seeds=2,
    seeds=2,
    epochs=1,
)
ALL = "parity,step,layers,training,memory"


def small(**options):
    """What DeepConvNet is made of, but less of it."""
    layers = [
        *(Convolution(4, 3, pad=1), ReLU(), MaxPooling(2), Affine(8), ReLU(), Dropout(0.5)),
        *(Affine(10), Dropout(0.5)),
    ]
    return Network(layers, (1, 28, 28), name="DeepConvNet", **options)


def digits(n):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, 1, 28, 28), dtype=np.uint8), rng.integers(0, 10, n)


@pytest.fixture
def device(rehearsed, monkeypatch):
    """The backend `cupy`, rehearsed, with whatever else may be made of CuPy; all sizes tiny."""
    xp = rehearsed.xp
    monkeypatch.setitem(sys.modules, "cupy", xp)
    monkeypatch.setattr(cupy_fused, "load_cublas", lambda cupy: rehearsed._products._library)
    monkeypatch.setattr(gpu, "FULL", TINY)
    monkeypatch.setattr(gpu, "torch_state", lambda: (None, "PyTorch is not measured: a test"))
    monkeypatch.setattr(gpu_parts, "DeepConvNet", small)
    monkeypatch.setattr(gpu_parts, "load_mnist", lambda **options: (digits(300), digits(200)))
    monkeypatch.setattr(measure, "PAUSE", 0.0)
    for name in ("XPDL_PROVIDER", "XPDL_TF32"):
        monkeypatch.delenv(name, raising=False)
    return rehearsed


def bench_gpu(out, *arguments):
    """Run the command in this process; return its exit code and what it recorded."""
    code = command.main(["gpu", *arguments, "--out", str(out)])
    (path,) = out.glob("gpu-*.json")
    return code, json.loads(path.read_text())


# ---- all of it ---------------------------------------------------------------------------------


def test_all_parts(device, tmp_path, capsys):
    code, record = bench_gpu(tmp_path, "--skip-tests")
    assert code == 0, record["parts"]
    assert [*record["parts"]] == ALL.split(",")
    assert {part["state"] for part in record["parts"].values()} == {"done"}
    assert record["device"]["device"] == "Rehearsed GPU"
    assert record["device"]["compute capability"] == "9.0"
    assert record["command"].startswith("python -m bench")
    assert record["machine"]["packages"]["numpy"]
    assert record["sizes"]["rounds"] == 1
    check_parity(record["parts"]["parity"]["results"])
    check_step(record["parts"]["step"]["results"])
    check_training(record["parts"]["training"]["results"])
    check_memory(record["parts"]["memory"]["results"])
    profiles = record["parts"]["layers"]["results"]["profiles"]
    assert [profile["dtype"] for profile in profiles] == ["float32", "float16"]
    assert profiles[0]["parts"][0]["name"] == "conv1"
    assert "XPDL_TF32" not in os.environ  # which one backend was made with
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {
        "gpu-rehearsed-gpu-layers-float16-batch3.png",
        "gpu-rehearsed-gpu-layers-float32-batch3.png",
        "gpu-rehearsed-gpu-step-batch3.png",
    }
    check_printed(capsys.readouterr().out)


def check_parity(results):
    rows = results["precisions"]
    assert [*rows] == ["float64", "float32", "TF32", "float16", "float16 on the host"]
    assert rows["float64"]["largest"] < 1e-10
    assert rows["float64"]["largest"] < rows["float32"]["largest"] < 1e-4
    assert rows["float32"]["largest"] < rows["TF32"]["largest"] < 3e-2
    assert rows["float32"]["held"] is rows["float16"]["held"] is True
    assert rows["TF32"]["held"] is None
    # Gradients that still had the scale in them would be as far off as it is large.
    assert rows["float16"]["loss_scale"] > 1
    assert rows["float32"]["largest"] < rows["float16"]["largest"] < 3e-2
    assert rows["float16"]["largest"] < 2 * rows["float16 on the host"]["largest"]
    for row in rows.values():
        assert max(row["by_parameter"].values()) == row["largest"]
        assert row["by_parameter"][row["parameter"]] == row["largest"]
        assert {"conv1.W", "affine2.b"} <= row["by_parameter"].keys()


def check_step(results):
    timings = {(timing["precision"], timing["batch"]): timing for timing in results["timings"]}
    assert [*timings] == [("float32", 3), ("TF32", 3), ("float16", 3)]
    names = [[*timing["results"]] for timing in timings.values()]
    assert names == [
        ["xpdl captured", "xpdl eager", "xpdl generic"],
        ["xpdl captured"],
        ["xpdl captured", "xpdl eager"],
    ]
    for timing in timings.values():
        assert not timing["failed"]
        for name, row in timing["results"].items():
            assert timing["steps"][name] == 1
            assert 0 < row["from_ms"] <= row["median_ms"] <= row["to_ms"]
        assert timing["results"]["xpdl captured"]["ours_takes"] == 1
    assert "a test" in results["peer"]


def check_training(results):
    assert [(run["dtype"], run["seed"]) for run in results["runs"]] == [
        ("float32", 0),
        ("float16", 0),
        ("float32", 1),
        ("float16", 1),
    ]
    for dtype, row in results["summary"].items():
        assert row["runs"] == 2
        assert 0 <= row["test_accuracy"] <= 1
        assert row["test_accuracy_deviation"] >= 0
        assert row["seconds"] > 0
        assert all((scale is None) == (dtype == "float32") for scale in row["loss_scales"])


def check_memory(results):
    programs = [row["program"] for row in results["rows"]]
    assert programs == [
        f"xpdl {dtype} {way}" for dtype in ("float32", "float16") for way in ("captured", "eager")
    ]
    for row in results["rows"]:
        assert 0 < row["over_start_mib"] <= row["peak_mib"]


def check_printed(text):
    parts, table = text.split("To send or to paste:")
    assert [line for line in parts.splitlines() if line.startswith("== ")] == [
        f"== {name}" for name in ALL.split(",")
    ]
    for line in (
        "| xpdl captured | float32 | 3 | ",
        "| xpdl captured | TF32 | 3 | ",
        "| xpdl eager | float16 | 3 | ",
        "| training, float16 | 1 | 2 | ",
        "| gradients in float32 | ",
        "| xpdl float16 captured | 3 | ",
        "**xpdl 0.1.0 on Rehearsed GPU** (driver ",
    ):
        assert line in table, line
    assert table.index("a training step") < table.index("training, float32")
    assert table.index("training, float32") < table.index("gradients in float32")
    for block in table.split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1, block


# ---- what goes wrong ---------------------------------------------------------------------------


def test_a_part_that_fails_is_recorded_and_the_others_run(device, tmp_path, monkeypatch, capsys):
    def fails(*arguments, **options):
        raise MemoryError("Out of memory allocating 1,000 bytes\n(allocated so far: 5 bytes).")

    monkeypatch.setattr(gpu_parts, "profile_step", fails)
    code, record = bench_gpu(tmp_path, "--parts", "memory,layers,parity")
    assert code == 1
    assert [*record["parts"]] == ["parity", "layers", "memory"]
    assert [part["state"] for part in record["parts"].values()] == ["done", "failed", "done"]
    message = "MemoryError: Out of memory allocating 1,000 bytes (allocated so far: 5 bytes)."
    assert record["parts"]["layers"]["message"] == message
    assert f"**layers failed:** {message}" in capsys.readouterr().out


def test_what_a_part_measured_before_it_failed_is_kept(device, tmp_path, monkeypatch):
    make = gpu_parts.trainer_step

    def fails(factory, batch_size, backend, dtype, captured):
        if batch_size == 4 and dtype == "float16":
            raise MemoryError("Out of memory")
        return make(factory, batch_size, backend, dtype, captured)

    monkeypatch.setattr(gpu_parts, "trainer_step", fails)
    monkeypatch.setattr(gpu, "FULL", replace(TINY, batch_sizes=(3, 4)))
    code, record = bench_gpu(tmp_path, "--parts", "step")
    assert code == 1
    part = record["parts"]["step"]
    assert "xpdl captured in float16, batch 4: MemoryError: Out of memory" in part["message"]
    kept = [(t["precision"], t["batch"], len(t["results"])) for t in part["results"]["timings"]]
    assert kept == [
        *(("float32", 3, 3), ("TF32", 3, 1), ("float16", 3, 2)),
        *(("float32", 4, 3), ("TF32", 4, 1), ("float16", 4, 0)),
    ]


def test_a_step_that_is_not_captured_is_not_called_so(device, tmp_path, monkeypatch):
    update = xpdl.Trainer._step

    def reads(trainer, part):
        loss, hits = update(trainer, part)
        trainer.network.backend.item(loss)
        return loss, hits

    monkeypatch.setattr(xpdl.Trainer, "_step", reads)
    code, record = bench_gpu(tmp_path, "--parts", "step")
    assert code == 1
    (timing, *_) = record["parts"]["step"]["results"]["timings"]
    assert "cannot be captured" in timing["failed"]["xpdl captured"]
    assert [*timing["results"]] == ["xpdl eager", "xpdl generic"]
    assert "ours_takes" not in timing["results"]["xpdl eager"]


def test_gradients_that_are_too_far_off_fail(device, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_parts, "HALF_BOUND", 0.0)
    code, record = bench_gpu(tmp_path, "--parts", "parity")
    assert code == 1
    assert record["parts"]["parity"]["results"]["precisions"]["float16"]["held"] is False
    message = record["parts"]["parity"]["message"]
    assert message.startswith("the gradient of ")
    assert message.endswith(", 0 is allowed")
    assert "float32" not in message
    assert "| **no** |" in capsys.readouterr().out


def test_gradients_that_are_not_finite_do_not_hold(device, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_parts, "_apart", lambda g, reference: np.inf)
    code, record = bench_gpu(tmp_path, "--parts", "parity")
    assert code == 1
    row = record["parts"]["parity"]["results"]["precisions"]["float32"]
    assert (row["largest"], row["held"]) == ("inf", False)


def test_a_training_that_diverges_is_one_of_several(device, tmp_path, monkeypatch):
    train = gpu_parts._train

    def diverges(backend, data, dtype, seed, epochs):
        if seed == 0 and dtype == "float32":
            raise xpdl.errors.DivergenceError("the loss became nan at step 3")
        return train(backend, data, dtype, seed, epochs)

    monkeypatch.setattr(gpu_parts, "_train", diverges)
    code, record = bench_gpu(tmp_path, "--parts", "training", "--seeds", "2")
    part = record["parts"]["training"]
    assert (code, part["message"]) == (1, "float32, seed 0: the loss became nan at step 3")
    assert part["results"]["summary"]["float32"]["test_accuracy_deviation"] is None
    assert part["results"]["summary"]["float16"]["runs"] == 2


def test_an_interruption_keeps_what_was_done(device, tmp_path, monkeypatch, capsys):
    def stops(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu_parts, "profile_step", stops)
    code, record = bench_gpu(tmp_path, "--parts", "parity,layers,memory")
    assert code == 130
    assert [*record["parts"]] == ["parity"]
    said = capsys.readouterr()
    assert "layers: interrupted" in said.err
    assert "gradients in float32" in said.out.split("To send or to paste:")[1]
    assert not list(tmp_path.glob(".*"))


# ---- the tests' part ---------------------------------------------------------------------------

SOME_TESTS = """
import pytest
pytestmark = pytest.mark.gpu
def test_right(): pass
def test_wrong(): assert False
@pytest.mark.skip
def test_left_out(): pass
"""


@pytest.mark.parametrize("wrong", [False, True])
def test_tests_are_counted(device, tmp_path, monkeypatch, wrong):
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = gpu\naddopts = -ra\n")
    text = SOME_TESTS if wrong else SOME_TESTS.replace("assert False", "assert True")
    (folder / "test_some.py").write_text(text)
    monkeypatch.setattr(gpu_parts, "ROOT", folder)
    code, record = bench_gpu(tmp_path, "--parts", "tests")
    part = record["parts"]["tests"]
    counts = {key: part["results"][key] for key in ("passed", "failed", "skipped")}
    assert counts == {"passed": 2 - wrong, "failed": int(wrong), "skipped": 1}
    assert (code, part["state"]) == ((1, "failed") if wrong else (0, "done"))
    assert len(part["results"]["failures"]) == wrong
    assert not wrong or "test_wrong" in part["results"]["failures"][0]


# ---- PyTorch beside ours -----------------------------------------------------------------------


def test_beside_pytorch(device, tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(gpu, "torch_state", lambda: ("cpu", f"PyTorch {torch.__version__}"))
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    code, record = bench_gpu(tmp_path, "--parts", "step,memory")
    assert code == 0, record["parts"]
    assert before == (cudnn.allow_tf32, cudnn.benchmark)
    timings = {t["precision"]: t for t in record["parts"]["step"]["results"]["timings"]}
    assert not any(timing["failed"] for timing in timings.values())
    both = {"PyTorch eager", "PyTorch eager, plain Adam"}
    for precision, theirs in (("float32", both), ("TF32", both), ("float16", {"PyTorch autocast"})):
        names = {name for name in timings[precision]["results"] if name.startswith("PyTorch")}
        assert names == theirs
    table = capsys.readouterr().out.split("To send or to paste:")[1]
    ratio = timings["float32"]["results"]["PyTorch eager"]["ours_takes"]
    said = "reached" if ratio <= 1 else "missed"
    assert f"| PyTorch eager | float32 | 3 | {ratio:.2f} | 1.0: {said} |" in table


def test_a_peer_that_fails_is_said_and_no_failure_of_ours(device, tmp_path, monkeypatch, capsys):
    def fails(factory, batch_size, device, **options):
        raise RuntimeError("no compiler | found")

    monkeypatch.setattr(gpu, "torch_state", lambda: ("cpu", "PyTorch, as if"))
    monkeypatch.setattr(gpu_parts, "torch_step", fails)
    monkeypatch.setattr(gpu_parts, "torch_half_step", fails)
    code, record = bench_gpu(tmp_path, "--parts", "step")
    assert code == 0
    (timing, *_) = record["parts"]["step"]["results"]["timings"]
    assert timing["failed"]["PyTorch eager"] == "RuntimeError: no compiler | found"
    said = "PyTorch eager, float32, batch 3: RuntimeError: no compiler"
    assert said in capsys.readouterr().out


def test_without_pytorch_the_record_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    device, said = gpu.torch_state()
    assert device is None
    assert said.startswith("PyTorch is not measured: ModuleNotFoundError")


def test_aims_are_for_float32():
    row = {"median_ms": 2.0, "from_ms": 1.9, "to_ms": 2.2, "ours_takes": 1.2}
    timings = [
        {"precision": precision, "batch": 100, "results": {name: row}}
        for precision in ("float32", "TF32")
        for name in ("PyTorch eager", "PyTorch compiled")
    ]
    lines = gpu_tables.TABLES["step"]({"aims": gpu_parts.AIMS, "timings": timings})
    assert lines[-4:] == [
        "| PyTorch eager | float32 | 100 | 1.20 | 1.0: missed |",
        "| PyTorch compiled | float32 | 100 | 1.20 | 1.5: reached |",
        "| PyTorch eager | TF32 | 100 | 1.20 | none |",
        "| PyTorch compiled | TF32 | 100 | 1.20 | none |",
    ]


# ---- what is said instead ----------------------------------------------------------------------


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
        (["--parts", "steps,parity"], "'steps' is no part; the parts are tests, parity, step,"),
        (["--parts", ","], "nothing is no part"),
        (["--rounds", "0"], "--rounds"),
        (["--parts", "tests", "--skip-tests"], "--skip-tests leaves nothing"),
    ],
)
def test_bad_input_is_answered_in_one_line(tmp_path, arguments, said):
    done = in_a_process(*arguments, "--out", str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
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
    device, tmp_path, monkeypatch, capsys, name, value
):
    monkeypatch.setenv(name, value)
    assert command.main(["gpu", "--out", str(tmp_path)]) == 2
    assert f"unset {name}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_quick_run_does_not_take_the_place_of_a_whole_one(device, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "QUICK", TINY)
    bench_gpu(tmp_path / "quick", "--quick", "--parts", "parity")
    assert [path.name for path in (tmp_path / "quick").iterdir()] == [
        "gpu-rehearsed-gpu-quick-parity.json"
    ]
