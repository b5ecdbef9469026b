"""``xpdl info``: backends, threads, libraries and data."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any

import xpdl
from xpdl.backends import available_backends, get_backend
from xpdl.backends.numpy.threads import thread_count
from xpdl.cli.command import add_command
from xpdl.datasets import DATA_SETS, data_folder, folder_status
from xpdl.errors import BackendUnavailableError, FileAccessError
from xpdl.precision import get_precision


def add_info(commands: Any) -> None:
    """Add the command to the parser of all."""
    add_command(
        commands,
        "info",
        _info,
        "show backends, threads, libraries and data",
        "xpdl info --backend cupy",
    )


def _info(options: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_info

    core = os.environ.get("OPENBLAS_CORETYPE")
    try:
        active, libraries = get_backend().name, get_backend().describe()
    except BackendUnavailableError:
        active, libraries = "", {}  # the list below says why
    _section(
        "xpdl",
        {
            "version": xpdl.__version__,
            "Python": f"{platform.python_version()} on {platform.platform()}",
            **libraries,
        },
    )
    backends = {
        name: state + (", active" if name == active else "")
        for name, state in available_backends().items()
    }
    _section("backends", backends)
    # A kernel that someone asked for may be of half the speed: AVX2's where there is AVX-512.
    asked = (
        f", as OPENBLAS_CORETYPE={core} asks; unset, it takes the processor's own" if core else ""
    )
    blas = {
        f"BLAS ({library['internal_api']})": f"{library['num_threads']} threads, "
        f"{library.get('version')}, {library.get('architecture', 'unknown architecture')}"
        + (asked if library["internal_api"] == "openblas" else "")
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }
    _section(
        "computing",
        {
            "float policy": get_precision(options.dtype).name,
            "threads": f"{thread_count()} of {os.cpu_count()} cores",
            **blas,
        },
    )
    if active:
        dtype = get_precision(options.dtype).compute
        by_provider: dict[str, list[str]] = {}
        for primitive, provider in get_backend().providers(dtype).items():
            by_provider.setdefault(provider, []).append(primitive)
        _section(
            f"who computes what on {active}, {dtype.name}",
            {provider: ", ".join(names) for provider, names in by_provider.items()},
        )
    for name in DATA_SETS:
        try:
            home = data_folder(name)
        except FileAccessError as error:
            _section(f"data: {name}", {"folder": str(error)})
            continue
        states = {
            status.name: status.state
            if status.path.parent == home or status.state == "missing"
            else f"{status.state}, in {status.path.parent}"
            for status in folder_status(name)
        }
        _section(f"data: {name} in {home}", states)
    return 0


def _section(title: str, rows: dict[str, str]) -> None:
    print(title)
    width = max(map(len, rows))
    for label, text in rows.items():
        print(f"  {label:<{width}}  {text}")
