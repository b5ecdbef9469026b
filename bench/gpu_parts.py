"""What ``python -m bench gpu`` measures, part by part.

A part fills the dictionary that it is given as it goes, so that what was measured before something
failed is kept.
"""

from __future__ import annotations

import gc
import math
import os
import re
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

import xpdl
from bench import charts
from bench.measure import Run, compare, in_turns, summary
from bench.programs import batch, torch_half_step, torch_step, trainer_step
from xpdl.backends import Array, Backend
from xpdl.backends.cupy.capture import WARM_UP
from xpdl.datasets import load_mnist
from xpdl.errors import XpdlError
from xpdl.models import DeepConvNet
from xpdl.network import Network
from xpdl.optimizers import Adam
from xpdl.precision import LossScale
from xpdl.runs.recipes import RECIPES
from xpdl.tuning.profile import profile_step

ROOT = Path(__file__).parents[1]
MIB = 2**20

# The most that ||g - reference|| / ||reference|| may be, for each parameter's gradient g.
BOUNDS = {"float32": 1e-4}
# Half precision is off by 4 to 9 % on the host, too (PyTorch's as well: small numbers choose other
# winners in pools and ReLUs), so the device is held to so many times what the host is off.
HALF_BOUND = 1.5
# What ours may take at most of a peer's median, in float32.
AIMS = {"PyTorch eager": 1.0, "PyTorch compiled": 1.5}
# No timed run is longer, so that the slowest program does not take most of the time.
LONGEST_RUN = 1.0


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    batch_sizes: tuple[int, ...] = (100, 1000)
    rounds: int = 12
    repeats: int = 3  # timed runs of a program in its turn
    steps: int = 20  # of one timed run
    profiled: int = 30  # steps that are taken apart
    parity_batch: int = 20
    parity_seeds: int = 5
    seeds: int = 3
    epochs: int = RECIPES["book"].epochs


FULL = Sizes()
QUICK = Sizes((20, 100), rounds=2, steps=5, profiled=5, parity_seeds=1, seeds=1, epochs=1)


class Incomplete(Exception):
    """A part came to an end, but something in it failed or is not as it should be."""


@dataclass
class Session:
    """The GPU, who computes on it, and where the results go."""

    backend: Backend
    sizes: Sizes
    path: Path  # without a suffix
    torch: str | None  # the device on which PyTorch computes; None without PyTorch
    about_torch: str

    @cached_property
    def tf32(self) -> Backend:
        """The same backend with products of float32 whose factors are rounded to 10 bits."""
        from xpdl.backends.cupy.fused import FusedCupyBackend

        before = os.environ.pop("XPDL_TF32", None)
        os.environ["XPDL_TF32"] = "1"
        try:
            return FusedCupyBackend()
        finally:
            del os.environ["XPDL_TF32"]
            if before is not None:
                os.environ["XPDL_TF32"] = before

    @cached_property
    def generic(self) -> Backend:
        """CuPy with the textbook's primitives."""
        from xpdl.backends.cupy.backend import CupyBackend

        return CupyBackend()

    def synchronize_torch(self) -> None:
        """Wait for PyTorch's work."""
        if self.torch == "cuda":
            sys.modules["torch"].cuda.synchronize()

    def free(self) -> None:
        """Give back what nobody uses any more: the next program is not to suffer from the last."""
        gc.collect()
        self.backend.xp.get_default_memory_pool().free_all_blocks()
        if "torch._dynamo" in sys.modules:  # something was compiled
            sys.modules["torch"].compiler.reset()
        if self.torch == "cuda":
            sys.modules["torch"].cuda.empty_cache()


def one_line(error: BaseException) -> str:
    """Return what an error says in one line, and its kind if it is none of ours."""
    text = " ".join(str(error).split())
    if isinstance(error, XpdlError | Incomplete):
        return text
    if len(text) > 600:
        text = text[:600] + " ..."
    return f"{type(error).__name__}: {text}"


def forget_frames(error: BaseException) -> None:
    """Let go of the arrays that an error's frames hold; after a lack of memory they are wanted."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen.__traceback__, seen = None, seen.__cause__ or seen.__context__


# ---- tests -------------------------------------------------------------------------------------


def _tests(session: Session, results: dict[str, Any]) -> None:
    """Run the tests that need a GPU, and show what they say."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "--color=no"]
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print("  " + line, end="", flush=True)
            lines.append(line.rstrip())
    last = next((line for line in reversed(lines) if line), "nothing was said")
    counts = {what: int(n) for n, what in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
    results["command"] = "python -m pytest -m gpu -q"
    results |= {"passed": 0, "failed": 0, "skipped": 0} | counts
    results["failures"] = [line for line in lines if line.startswith(("FAILED", "ERROR"))][:50]
    if process.returncode:
        raise Incomplete(last)


# ---- parity ------------------------------------------------------------------------------------


def _parity(session: Session, results: dict[str, Any]) -> None:
    """Hold the gradients of DeepConvNet to those in float64 on the host.

    Beside float16 on the device stands the textbook's on the host: what half precision costs by
    itself, whoever computes.
    """
    host = xpdl.get_backend("generic")
    runs = {
        "float64": (session.backend, "float64"),
        "float32": (session.backend, "float32"),
        "TF32": (session.tf32, "float32"),
        "float16": (session.backend, "float16"),
        "float16 on the host": (host, "float16"),
    }
    sizes = session.sizes
    results |= {"batch": sizes.parity_batch, "seeds": sizes.parity_seeds, "precisions": {}}
    for seed in range(sizes.parity_seeds):
        with xpdl.use_backend(host):
            network = DeepConvNet(seed=seed, dtype="float32")
        x, t = batch(network, sizes.parity_batch)
        reference, _ = _gradients(network, host, "float64", x, t, seed)
        for name, (backend, dtype) in runs.items():
            gradients, scale = _gradients(network, backend, dtype, x, t, seed)
            errors = {key: _apart(gradients[key], g) for key, g in reference.items()}
            _note_errors(results["precisions"], name, seed, errors, scale)
    half = results["precisions"]["float16"]
    half["bound"] = HALF_BOUND * results["precisions"]["float16 on the host"]["largest"]
    half["held"] = half["largest"] < half["bound"]
    missed = [
        f"the gradient of {row['parameter']} in {name} is off by {row['largest']:.1e}, "
        f"{row['bound']:.2g} is allowed"
        for name, row in results["precisions"].items()
        if row["held"] is False
    ]
    if missed:
        raise Incomplete("; ".join(missed))


def _gradients(
    network: Network, backend: Backend, dtype: str, x: Array, t: Array, seed: int
) -> tuple[dict[str, Array], float | None]:
    """Return the gradients of a copy of `network`, in float64 on the host, and the loss scale.

    In half precision the loss is scaled as in training, down from where the scale begins until the
    gradients are finite; what is returned is without the scale.
    """
    with xpdl.use_backend(backend):
        network = network.astype(dtype).to(backend)
        x, t = backend.asarray(x), backend.asarray(t)
        scale = LossScale(backend) if network.precision.mixed else None
        for _ in range(30):
            network.reseed(seed)  # the same dropout masks each time, and on each device
            network.forward_backward(x, t, 1.0 if scale is None else scale.value)
            if scale is None:
                break
            go = scale.unscale(network.grads.buffer)
            if backend.item(go):
                break
            scale.update(go)
        host = {name: backend.to_numpy(g).astype(np.float64) for name, g in network.grads.items()}
        return host, None if scale is None else scale.read()["value"]


def _apart(g: Array, reference: Array) -> float:
    distance = float(np.linalg.norm(g - reference) / np.linalg.norm(reference))
    return distance if math.isfinite(distance) else math.inf


def _note_errors(
    rows: dict[str, Any], name: str, seed: int, errors: dict[str, float], scale: float | None
) -> None:
    """Keep the largest errors that a precision has shown so far."""
    bound = BOUNDS.get(name)
    row = rows.setdefault(name, {"largest": -1.0, "bound": bound, "by_parameter": {}})
    for parameter, error in errors.items():
        before = row["by_parameter"].get(parameter, 0.0)
        row["by_parameter"][parameter] = max(before, error)
        if error > row["largest"]:
            row |= {"largest": error, "parameter": parameter, "seed": seed}
    row["held"] = None if bound is None else row["largest"] < bound
    if scale is not None:
        row["loss_scale"] = min(scale, row.get("loss_scale", scale))


# ---- one step ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """What is timed: how it is made for a batch size, and what must hold while it runs."""

    make: Callable[[int], AbstractContextManager[Run]]
    around: Callable[[], AbstractContextManager[Any]]
    synchronize: Run
    ours: bool = True


def _step(session: Session, results: dict[str, Any]) -> None:
    """Time a training step: ours beside PyTorch's, precision by precision."""
    results |= {"peer": session.about_torch, "aims": AIMS, "timings": []}
    problems = []
    for batch_size in session.sizes.batch_sizes:
        for precision, programs in _programs(session).items():
            timing = {"precision": precision, "batch": batch_size}
            results["timings"].append(timing)
            try:
                problems += _time(session, programs, timing)
            except Exception as error:
                problems.append(f"{precision}, batch {batch_size}: {one_line(error)}")
                forget_frames(error)
            session.free()
        _draw_step(session, results, batch_size)
    if problems:
        raise Incomplete("; ".join(problems))


def _programs(session: Session) -> dict[str, dict[str, Program]]:
    """Return the programs of each precision; the first is the one that others are held to."""
    ours, theirs = partial(_our_program, session), partial(_torch_program, session)
    programs = {
        "float32": {
            "xpdl captured": ours(session.backend, "float32", True),
            "xpdl eager": ours(session.backend, "float32", False),
            "xpdl generic": ours(session.generic, "float32", False),
        },
        "TF32": {"xpdl captured": ours(session.tf32, "float32", True)},
        "float16": {
            "xpdl captured": ours(session.backend, "float16", True),
            "xpdl eager": ours(session.backend, "float16", False),
        },
    }
    if session.torch is None:
        return programs
    for precision in ("float32", "TF32"):
        tf32 = precision == "TF32"
        programs[precision] |= {
            "PyTorch eager": theirs(torch_step, tf32, fused=True),
            "PyTorch eager, plain Adam": theirs(torch_step, tf32),
        }
        if session.torch == "cuda":
            compiled = theirs(torch_step, tf32, fused=True, compiled=True)
            programs[precision]["PyTorch compiled"] = compiled
    programs["float16"]["PyTorch autocast"] = theirs(torch_half_step, True, fused=True)
    return programs


def _our_program(session: Session, backend: Backend, dtype: str, captured: bool) -> Program:
    return Program(
        lambda batch_size: trainer_step(DeepConvNet, batch_size, backend, dtype, captured),
        lambda: xpdl.use_backend(backend),
        backend.synchronize,
    )


def _torch_program(
    session: Session, make: Callable[..., Run], tf32: bool, **options: Any
) -> Program:
    options["device"] = session.torch
    return Program(
        lambda batch_size: nullcontext(make(DeepConvNet, batch_size, **options)),
        lambda: _torch_settings(tf32),
        session.synchronize_torch,
        ours=False,
    )


@contextmanager
def _torch_settings(tf32: bool) -> Iterator[None]:
    """Let cuDNN's convolutions use TF32, as is PyTorch's default, or not; choose by measuring."""
    import torch

    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32, cudnn.benchmark = tf32, True
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark = before


def _time(session: Session, programs: dict[str, Program], timing: dict[str, Any]) -> list[str]:
    """Time programs in turns and note it in `timing`; return what is wrong with ours."""
    sizes, batch_size = session.sizes, timing["batch"]
    runs: dict[str, Run] = {}
    steps: dict[str, int] = {}
    timing |= {"failed": {}, "steps": steps}
    with ExitStack() as stack:
        for name, program in programs.items():
            try:
                step = stack.enter_context(program.make(batch_size))
                steps[name] = _steps_of_a_run(program, step, sizes.steps)
                runs[name] = _several(program, step, steps[name])
            except Exception as error:
                timing["failed"][name] = one_line(error)
                forget_frames(error)
        seconds = {
            name: [run / steps[name] for run in times]
            for name, times in in_turns(runs, sizes.rounds, sizes.repeats).items()
        }
        runs.clear()
    first = next(iter(programs))
    if first in seconds:
        timing["results"] = compare(seconds, first)
    else:
        timing["results"] = {name: summary(times) for name, times in seconds.items()}
    where = f"{timing['precision']}, batch {batch_size}"
    return [
        f"{name} in {where}: {text}"
        for name, text in timing["failed"].items()
        if programs[name].ours
    ]


def _steps_of_a_run(program: Program, step: Run, most: int) -> int:
    """Do the first steps, in which a step is captured or compiled; return how many to time."""
    with program.around(), warnings.catch_warnings():
        # A step that runs as it stands must not be called captured.
        warnings.filterwarnings("error", ".*cannot be captured")
        for _ in range(WARM_UP + 2):
            step()
        program.synchronize()
        start = time.perf_counter()
        step()
        program.synchronize()
        return max(1, min(most, int(LONGEST_RUN / (time.perf_counter() - start))))


def _several(program: Program, step: Run, count: int) -> Run:
    def run() -> None:
        with program.around():
            for _ in range(count):
                step()
            program.synchronize()

    return run


def _draw_step(session: Session, results: dict[str, Any], batch_size: int) -> None:
    rows = {
        f"{name}, {timing['precision']}": row
        for timing in results["timings"]
        if timing["batch"] == batch_size
        for name, row in timing.get("results", {}).items()
    }
    if rows:
        path = session.path.with_name(f"{session.path.name}-step-batch{batch_size}.png")
        charts.bars(path, rows, f"one training step of DeepConvNet, batch {batch_size}")


# ---- layers ------------------------------------------------------------------------------------


def _layers(session: Session, results: dict[str, Any]) -> None:
    """Take a step apart, layer by layer."""
    results["profiles"] = []
    for dtype in ("float32", "float16"):
        for batch_size in session.sizes.batch_sizes:
            with xpdl.use_backend(session.backend) as backend:
                network = DeepConvNet(dtype=dtype)
                x, t = map(backend.asarray, batch(network, batch_size))
                profile = profile_step(network, x, t, Adam(), rounds=session.sizes.profiled)
            results["profiles"].append({"title": profile.title} | asdict(profile))
            print(f"{profile.title}\n{profile.table()}")
            name = f"{session.path.name}-layers-{dtype}-batch{batch_size}.png"
            charts.save(profile.chart(), session.path.with_name(name))
            del network, x, t
            session.free()


# ---- training ----------------------------------------------------------------------------------


def _training(session: Session, results: dict[str, Any]) -> None:
    """Train as the book does, in both precisions and from several seeds."""
    recipe, sizes = RECIPES["book"], session.sizes
    data = load_mnist(normalize=False, flatten=False)
    results |= {"recipe": asdict(recipe), "epochs": sizes.epochs, "runs": [], "summary": {}}
    problems = []
    for seed in range(sizes.seeds):
        for dtype in ("float32", "float16"):
            print(f"{dtype}, seed {seed}")
            try:
                row = _train(session.backend, data, dtype, seed, sizes.epochs)
                results["runs"].append(row)
            except XpdlError as error:
                problems.append(f"{dtype}, seed {seed}: {one_line(error)}")
                forget_frames(error)
            session.free()
    for dtype in ("float32", "float16"):
        rows = [row for row in results["runs"] if row["dtype"] == dtype]
        if rows:
            results["summary"][dtype] = _of_all(rows)
    if problems:
        raise Incomplete("; ".join(problems))


def _train(backend: Backend, data: Any, dtype: str, seed: int, epochs: int) -> dict[str, Any]:
    recipe, (train, test) = RECIPES["book"], data
    with xpdl.use_backend(backend):
        network = DeepConvNet(dtype=dtype, seed=seed, **recipe.model_options)
        trainer = xpdl.Trainer(
            network,
            train,
            test,
            optimizer=Adam(recipe.learning_rate),
            epochs=epochs,
            batch_size=recipe.batch_size,
            schedule=recipe.schedule,
            seed=seed,
            divisor=255,
        )
        history = trainer.fit().epochs
    return {
        "dtype": dtype,
        "seed": seed,
        "test_accuracy": history[-1].test_accuracy,
        "seconds": sum(epoch.seconds for epoch in history),
        "skipped_steps": sum(epoch.skipped_steps for epoch in history),
        "loss_scale": history[-1].loss_scale,
        "epochs": [asdict(epoch) for epoch in history],
    }


def _of_all(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return means over the runs, and standard deviations where there is more than one."""
    found: dict[str, Any] = {"runs": len(rows)}
    for name in ("test_accuracy", "seconds"):
        values = [row[name] for row in rows]
        found[name] = statistics.mean(values)
        found[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else None
    found["skipped_steps"] = sum(row["skipped_steps"] for row in rows)
    found["loss_scales"] = [row["loss_scale"] for row in rows]
    return found


# ---- memory ------------------------------------------------------------------------------------


def _memory(session: Session, results: dict[str, Any]) -> None:
    """See how much of the device a program takes at the most, over what is taken before it."""
    results |= {"peer": session.about_torch, "rows": []}
    problems = []
    for batch_size in session.sizes.batch_sizes:
        programs: dict[str, Callable[[], dict[str, float]]] = {
            f"xpdl {dtype} {'captured' if captured else 'eager'}": partial(
                _our_peak, session, batch_size, dtype, captured
            )
            for dtype in ("float32", "float16")
            for captured in (True, False)
        }
        if session.torch == "cuda":
            eager = partial(torch_step, DeepConvNet, batch_size, device="cuda", fused=True)
            half = partial(torch_half_step, DeepConvNet, batch_size, "cuda", fused=True)
            programs["PyTorch eager"] = partial(_torch_peak, session, eager)
            programs["PyTorch autocast"] = partial(_torch_peak, session, half)
        for name, measure in programs.items():
            session.free()
            try:
                results["rows"].append({"program": name, "batch": batch_size} | measure())
            except Exception as error:
                problems.append(f"{name}, batch {batch_size}: {one_line(error)}")
                forget_frames(error)
    if problems:
        raise Incomplete("; ".join(problems))


def _our_peak(session: Session, batch_size: int, dtype: str, captured: bool) -> dict[str, float]:
    """Return what all memory pools hold at the most, in MiB, seen after each step."""
    backend = session.backend
    with _pools(backend.xp) as pools:
        before = peak = sum(pool.total_bytes() for pool in pools)
        with trainer_step(DeepConvNet, batch_size, backend, dtype, captured) as step:
            for _ in range(WARM_UP + 3):
                with xpdl.use_backend(backend):
                    step()
                backend.synchronize()
                peak = max(peak, sum(pool.total_bytes() for pool in pools))
    return _peak(before, peak)


@contextmanager
def _pools(cupy: Any) -> Iterator[list[Any]]:
    """Give the pools that memory comes from: a captured step has one of its own."""
    pools, kind = [cupy.get_default_memory_pool()], cupy.cuda.MemoryPool

    def make(*arguments: Any) -> Any:
        pools.append(kind(*arguments))
        return pools[-1]

    cupy.cuda.MemoryPool = make
    try:
        yield pools
    finally:
        cupy.cuda.MemoryPool = kind


def _torch_peak(session: Session, make: Callable[[], Run]) -> dict[str, float]:
    import torch

    before = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    step = make()
    for _ in range(WARM_UP + 3):
        step()
    session.synchronize_torch()
    return _peak(before, torch.cuda.max_memory_reserved())


def _peak(before: int, peak: int) -> dict[str, float]:
    return {"peak_mib": round(peak / MIB, 1), "over_start_mib": round((peak - before) / MIB, 1)}


PARTS: dict[str, Callable[[Session, dict[str, Any]], None]] = {
    "tests": _tests,
    "parity": _parity,
    "step": _step,
    "layers": _layers,
    "training": _training,
    "memory": _memory,
}
