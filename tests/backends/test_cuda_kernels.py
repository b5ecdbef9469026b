"""The CUDA kernels where there is no GPU: they compile, spill nothing, and depend on no order.

What they compute is held to the generic primitives by the tests of all backends, which run them on
the CPU too (`cupy-on-cpu`).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import rehearsal
from test_capture import train

from xpdl.backends import get_backend
from xpdl.backends.cupy.fused import FusedCupyBackend
from xpdl.backends.cupy.launching import REALS, kernel_options, kernel_source

ARCHITECTURES = ("80", "90", "100")
# Kernels over whole batches of images, which the GPU's memory bounds.
PASSES = (
    *("im2col_pieces", "col2im", "max_pooling", "max_pooling_backward", "add_bias", "relu"),
    *("relu_backward", "relu_backward_and_sum", "dropout_backward", "sum_rows"),
)
NAMES = re.findall(r'extern "C" __global__ void (\w+)', kernel_source())


def compiled_by_nvcc(source, options, architecture, folder):
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("nvcc is not installed")
    (folder / "kernels.cu").write_text(source)
    target = f"-gencode=arch=compute_{architecture},code=sm_{architecture}"
    command = [nvcc, "-cubin", target, "--resource-usage", *options]
    done = subprocess.run(
        [*command, "-o", folder / "kernels.cubin", folder / "kernels.cu"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "kernels.cubin").stat().st_size
    return done.stderr


def compiled_by_nvrtc(source, options, architecture, folder):
    core = pytest.importorskip("cuda.core", reason="NVRTC is not installed (pip: cuda-core)")
    pathfinder = pytest.importorskip("cuda.pathfinder")
    headers = pathfinder.find_nvidia_header_directory("cudart")
    if headers is None:
        pytest.skip("CUDA's headers are not installed (pip: nvidia-cuda-runtime)")
    standard, macro = options
    settings = core.ProgramOptions(
        arch=f"sm_{architecture}",
        std=standard.removeprefix("-std="),
        define_macro=tuple(macro.removeprefix("-D").split("=")),
        include_path=headers,
        ptxas_options="-v",
    )
    log = folder / "log"
    with log.open("w") as stream:
        cubin = core.Program(source, "c++", settings).compile("cubin", logs=stream)
    assert cubin.code
    return log.read_text()


COMPILERS = {"nvcc": compiled_by_nvcc, "nvrtc": compiled_by_nvrtc}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("real", REALS)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_kernels_compile_and_keep_all_in_registers(compiler, real, architecture, tmp_path):
    # CuPy compiles by NVRTC, which knows less than nvcc: no header of C++, no INFINITY.
    log = COMPILERS[compiler](kernel_source(), kernel_options(real), architecture, tmp_path)
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes sp", log)
    assert len(spills) == len(NAMES)
    assert set(spills) == {("0", "0", "0")}
    assert "warning" not in log.lower()


@pytest.mark.parametrize("real", REALS)
def test_numbers_go_by_16_bytes_by_nvrtc(real):
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="NVRTC is not installed")
    pathfinder = pytest.importorskip("cuda.pathfinder")
    headers = pathfinder.find_nvidia_header_directory("cudart")
    if headers is None:
        pytest.skip("CUDA's headers are not installed (pip: nvidia-cuda-runtime)")
    options = [*kernel_options(real), "--gpu-architecture=compute_90", f"-I{headers}"]
    _, program = nvrtc.nvrtcCreateProgram(kernel_source().encode(), b"kernels.cu", 0, [], [])
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [o.encode() for o in options])
    assert int(status) == 0
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text = bytearray(size)
    nvrtc.nvrtcGetPTX(program, text)
    entries = text.decode().split(".visible .entry ")[1:]
    kernels = {entry.partition("(")[0]: entry for entry in entries}
    whole = r"\.global(\.nc)?\.(v4\.[fu]32|v2\.f64)"
    for name in PASSES:
        assert re.search("ld" + whole, kernels[name]), name
        assert re.search("st" + whole, kernels[name]) or name == "sum_rows", name


def test_every_kernel_is_launched_by_the_backend():
    import inspect

    room = Path(inspect.getfile(FusedCupyBackend)).parent
    code = "".join(path.read_text() for path in room.glob("*.py"))
    for name in NAMES:
        assert f'"{name}"' in code


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_results_do_not_depend_on_the_order_of_threads(rehearsed, monkeypatch, dtype):
    """Blocks and threads run forward, backward and shuffled: a race would show in some bit."""
    from xpdl import use_backend

    results = {}
    with use_backend(rehearsed):
        for order in ("forward", "backward", "shuffled"):
            monkeypatch.setattr(rehearsal.kernels, "order", order)
            results[order] = train(rehearsed, dtype, "adam", compiled=True)
    losses, left = results["forward"]
    for other_losses, other_left in results.values():
        assert other_losses == losses
        for name, array in left.items():
            np.testing.assert_array_equal(other_left[name], array, err_msg=name)


@pytest.mark.parametrize("seed", [0, 7, [2, 0, 5], 2**70])
def test_every_device_draws_the_numbers_of_numpys_philox(backend, seed):
    numpy = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    ours = backend.generator(seed)
    for size, dtype in (((3,), "f4"), ((2, 5), "f4"), ((1000,), "f4"), ((1,), "f4"), ((7,), "f8")):
        numbers = ours.random(size, dtype=np.dtype(dtype))
        assert numbers.dtype == dtype
        np.testing.assert_array_equal(
            backend.to_numpy(numbers), numpy.random(size, dtype=np.dtype(dtype))
        )


def test_one_seed_gives_one_mask_on_every_device(backend):
    x = np.ones((5, 7), np.float32)
    plain = get_backend("generic")
    for scale in (1.0, 2.0):
        expected = plain.dropout(plain.generator(3), x, 0.4, scale)
        actual = backend.dropout(backend.generator(3), backend.asarray(x), 0.4, scale)
        for ours, wanted in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(backend.to_numpy(ours), wanted)
