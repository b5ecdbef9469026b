"""What ``python -m bench gpu`` was measured on, with what, and when."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.gpu.session import Session, one_line
from bench.measure import command_line, machine, said_by
from xpdl import files
from xpdl.backends.cupy.cublas import load_cublas


def make_record(device: Mapping[str, Any], sizes: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return a record in which no part has been done yet."""
    return {
        "command": command_line(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": source,
        "device": dict(device),
        "sizes": dict(sizes),
        "machine": machine(),
        "parts": {},
    }


def source_name(path: Path | None) -> str:
    """Return which source is measured: the first line of a file, or what Git says.

    Raises
    ------
    FileAccessError
        If the file cannot be read.
    """
    if path is not None:
        lines = files.read_bytes(path).decode(errors="replace").splitlines()
        return next((line.strip() for line in lines if line.strip()), "unknown")
    commit = said_by("git", "rev-parse", "HEAD")
    if commit is None:
        return "unknown"
    return commit + (" with changes" if said_by("git", "status", "--porcelain") else "")


def torch_state() -> tuple[str | None, str]:
    """Return the device for PyTorch with its versions, or None with the reason."""
    try:
        import torch
    except Exception as error:
        return None, f"PyTorch is not measured: {one_line(error)}"
    if not torch.cuda.is_available():
        return None, f"PyTorch {torch.__version__} is not measured: it finds no GPU"
    return "cuda", f"PyTorch {torch.__version__}"


def about_device(session: Session) -> dict[str, Any]:
    """Return what is known of the GPU and its software."""
    xp = session.backend.xp
    runtime = xp.cuda.runtime
    properties = runtime.getDeviceProperties(xp.cuda.Device().id)
    query = ("nvidia-smi", "--format=csv,noheader", "--query-gpu")
    return session.backend.describe() | {
        "driver": said_by(*query[:2], f"{query[2]}=driver_version") or "unknown",
        "clocks": said_by(*query[:2], f"{query[2]}=clocks.max.sm,clocks.max.mem") or "unknown",
        "driver's CUDA": _told(lambda: _as_version(runtime.driverGetVersion())),
        "CUDA runtime": _told(lambda: _as_version(runtime.runtimeGetVersion())),
        "NVRTC": _told(lambda: ".".join(map(str, xp.cuda.nvrtc.getVersion()))),
        "cuBLAS": _told(lambda: _cublas_version(load_cublas(xp))),
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
        "pytorch": session.about_torch,
        **(_about_torch() if session.torch == "cuda" else {}),
    }


def _told(ask: Callable[[], str]) -> str:
    """Return an answer, or why there is none: a version is not worth a run."""
    try:
        return ask()
    except Exception as error:
        return f"unknown ({one_line(error)})"


def _as_version(number: int) -> str:
    """Return CUDA's number, such as 13020, as people write it."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _cublas_version(library: Any) -> str:
    """Return cuBLAS's version; its library says it number by number (libraryPropertyType)."""
    numbers = []
    for kind in range(3):
        number = ctypes.c_int()
        if status := library.cublasGetProperty(kind, ctypes.byref(number)):
            raise OSError(f"cublasGetProperty answered {status}")
        numbers.append(str(number.value))
    return ".".join(numbers)


def _about_torch() -> dict[str, str]:
    import torch

    told = {
        "PyTorch's CUDA": str(torch.version.cuda),
        "PyTorch's cuDNN": str(torch.backends.cudnn.version()),
    }
    with contextlib.suppress(PackageNotFoundError):
        told["Triton"] = version("triton")
    return told


def as_json(value: Any) -> Any:
    """Return `value` with what JSON has no number for, NaN and infinity, as text."""
    if isinstance(value, Mapping):
        return {str(key): as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
