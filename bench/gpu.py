"""The command ``python -m bench gpu``: all that wants a GPU, measured in one run.

Each part is printed as it ends and recorded at once, so that what was measured is kept whatever
happens later. A part that fails says why, and the next one begins.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xpdl
from bench.gpu_parts import FULL, PARTS, QUICK, ROOT, Session, forget_frames, one_line
from bench.gpu_tables import TABLES, heading
from bench.measure import command_line, machine
from xpdl import files
from xpdl.backends import Backend
from xpdl.errors import ArgumentError


def add_options(parser: argparse.ArgumentParser, count: Callable[[str], int], out: Path) -> None:
    """Give the command's parser its options; `count` reads a number of at least 1."""
    add = parser.add_argument
    add("--parts", type=_chosen, default=list(PARTS), metavar="LIST", help=f"of {','.join(PARTS)}")
    add("--skip-tests", action="store_true", help="all parts but tests")
    add("--quick", action="store_true", help="little of each: to see whether all of it runs")
    add("--rounds", type=count, metavar="N", help=f"turns of each program ({FULL.rounds})")
    add("--epochs", type=count, metavar="N", help=f"of a training ({FULL.epochs})")
    add("--seeds", type=count, metavar="N", help=f"trainings of each precision ({FULL.seeds})")
    add("--out", type=Path, default=out, metavar="DIR", help="(default: bench/results)")
    parser.set_defaults(run=run, against=[])
    parser.epilog = "example: python -m bench gpu --skip-tests --parts parity,step --rounds 6"


def _chosen(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in PARTS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(
            f"{', '.join(map(repr, unknown)) or 'nothing'} is no part; "
            f"the parts are {', '.join(PARTS)}"
        )
    return [name for name in PARTS if name in names]


def run(options: argparse.Namespace) -> int:
    """Do the parts asked for; return 0, or 1 if one of them failed, or 130 after Ctrl-C.

    Raises
    ------
    BackendUnavailableError
        If there is no GPU; the message says why.
    ArgumentError
        If nothing is left to do, or the environment would change what the figures' names say.
    """
    parts = [name for name in options.parts if not (name == "tests" and options.skip_tests)]
    if not parts:
        raise ArgumentError("--skip-tests leaves nothing of --parts tests.")
    backend = xpdl.get_backend("cupy")
    _expect_plain_environment()
    device = _device(backend)
    session = _session(options, parts, backend, device["device"])
    record = _about(session, device)
    print(f"{heading(record)}\n  {session.path.with_suffix('.json')}", flush=True)
    interrupted = False
    for name in parts:
        try:
            _do(session, record, name)
        except KeyboardInterrupt:
            interrupted = True
            print(f"\n{name}: interrupted; what was done before is kept.", file=sys.stderr)
            break
    print("\nTo send or to paste:\n")
    print("\n".join(_tables(record)))
    print(f"\n  {session.path.with_suffix('.json')}")
    failed = any(part["state"] == "failed" for part in record["parts"].values())
    return 130 if interrupted else int(failed)


def _expect_plain_environment() -> None:
    for name, plain in (("XPDL_PROVIDER", ("", "fused")), ("XPDL_TF32", ("", "0"))):
        if os.environ.get(name, "") not in plain:
            raise ArgumentError(f"unset {name}: both ways are measured, each under its name.")


def _session(
    options: argparse.Namespace, parts: list[str], backend: Backend, device: str
) -> Session:
    given = {name: getattr(options, name) for name in ("rounds", "epochs", "seeds")}
    sizes = replace(
        QUICK if options.quick else FULL,
        **{name: value for name, value in given.items() if value is not None},
    )
    # What is less than the whole does not take the place of the whole.
    names = ["gpu", re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")]
    names += ["quick"] * options.quick + parts * (set(parts) | {"tests"} != set(PARTS))
    path = files.make_folder(options.out) / "-".join(names)
    torch, about_torch = torch_state()
    return Session(backend, sizes, path, torch, about_torch)


def torch_state() -> tuple[str | None, str]:
    """Return the device for PyTorch with its versions, or None with the reason."""
    try:
        import torch
    except Exception as error:
        return None, f"PyTorch is not measured: {one_line(error)}"
    if not torch.cuda.is_available():
        return None, f"PyTorch {torch.__version__} is not measured: it finds no GPU"
    version, cudnn = torch.version.cuda, torch.backends.cudnn.version()
    return "cuda", f"PyTorch {torch.__version__} (CUDA {version}, cuDNN {cudnn})"


def _device(backend: Backend) -> dict[str, Any]:
    """Return what is known of the GPU and its software."""
    runtime = backend.xp.cuda.runtime
    properties = runtime.getDeviceProperties(backend.xp.cuda.Device().id)
    return backend.describe() | {
        "driver": said_by("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "driver's CUDA": str(runtime.driverGetVersion()),
        "compute capability": f"{properties['major']}.{properties['minor']}",
        "multiprocessors": properties["multiProcessorCount"],
    }


def said_by(*command: str) -> str | None:
    """Return the first line of what a program prints; None without it."""
    if shutil.which(command[0]) is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        )
        return next(iter(done.stdout.splitlines()), None)
    return None


def _about(session: Session, device: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": command_line(),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": said_by("git", "describe", "--always", "--dirty", "--abbrev=40"),
        "device": device,
        "pytorch": session.about_torch,
        "sizes": asdict(session.sizes),
        "machine": machine(),
        "parts": {},
    }


def _do(session: Session, record: dict[str, Any], name: str) -> None:
    """Do a part, print it, and write the record."""
    print(f"\n== {name}", flush=True)
    part: dict[str, Any] = {"state": "done", "results": {}}
    start = time.perf_counter()
    try:
        PARTS[name](session, part["results"])
    except Exception as error:
        part |= {"state": "failed", "message": one_line(error)}
        forget_frames(error)
    part["seconds"] = round(time.perf_counter() - start, 1)
    record["parts"][name] = part
    files.write_json(session.path.with_suffix(".json"), _as_json(record))
    print("\n".join(_table(record, name)), flush=True)
    with contextlib.suppress(Exception):  # a GPU that is lost shows in the next part
        session.free()


def _table(record: dict[str, Any], name: str) -> list[str]:
    part = record["parts"][name]
    lines = TABLES[name](part["results"])
    if part["state"] == "failed":
        lines += ["", f"**{name} failed:** {part['message']}"]
    return lines


def _tables(record: dict[str, Any]) -> list[str]:
    lines = [heading(record)]
    for name in TABLES:
        if name in record["parts"]:
            lines += ["", *_table(record, name)]
    return lines


def _as_json(value: Any) -> Any:
    """Return `value` with what JSON has no number for, NaN and infinity, as text."""
    if isinstance(value, dict):
        return {str(key): _as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
