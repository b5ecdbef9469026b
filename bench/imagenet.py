"""Networks of ImageNet's size: inference, and a step, beside PyTorch; time and peak memory.

Time is measured in turns, in one process; memory of each program in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import xpdl
from bench.measure import Run, compare, in_turns, record, show
from bench.memory import peak_mib
from bench.programs import torch_inference, torch_step, xpdl_inference, xpdl_step
from xpdl.models import VGG, MobileNetV2, ResNet
from xpdl.network import Network

CHANNELS_LAST, EAGER = "PyTorch channels_last", "PyTorch eager"
RUNS = 3  # of a program whose memory is measured


class Row(NamedTuple):
    """A network, and whether it learns from a batch or predicts one."""

    factory: Callable[..., Network]
    learns: bool


ROWS = {
    "resnet18-224": Row(partial(ResNet, 18), False),
    "vgg16-224": Row(partial(VGG, 16), False),
    "mobilenet_v2-224": Row(MobileNetV2, False),
    "resnet18-32-step": Row(partial(ResNet, 18, (3, 32, 32)), True),
    "resnet18-224-step": Row(partial(ResNet, 18), True),
}


def add_options(
    parser: argparse.ArgumentParser, count: Callable[[str], int], results: Path
) -> None:
    parser.set_defaults(run=command, against=[])
    add = parser.add_argument
    add("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)} (default: all)")
    add("--backend", default=xpdl.get_backend().name)
    add("--against", nargs="*", choices=["torch"], default=[], help="programs beside ours")
    add("--batch-size", type=count, default=8, metavar="N", help="(default: 8)")
    add("--rounds", type=count, default=5, metavar="N", help="turns of each program (default: 5)")
    add("--out", type=Path, default=results, help="folder (default: bench/results)")


def command(options: argparse.Namespace) -> None:
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        raise xpdl.errors.UnknownNameError("row", unknown[0], ROWS)
    ours = f"xpdl {options.backend}"
    programs = [ours, *([EAGER, CHANNELS_LAST] if options.against else [])]
    results = {}
    for name in options.rows or ROWS:
        runs = {program: _program(name, program, options.batch_size) for program in programs}
        rows: dict[str, dict[str, Any]] = compare(
            in_turns(runs, options.rounds, repeats=1, warm_up=2), ours
        )
        del runs  # their memory is not to stand beside what is measured next
        for program, row in rows.items():
            row["over_start_mib"] = _memory(name, program, options.batch_size)
        for row in rows.values():
            memory = rows[ours]["over_start_mib"] / max(1.0, row["over_start_mib"])
            row["ours_takes_memory"] = round(memory, 3)
        does = "a training step" if ROWS[name].learns else "prediction"
        show(f"{name}: {does}, batch {options.batch_size}", rows)
        for program, row in rows.items():
            print(
                f"    {program:<22} {row['over_start_mib']:8.0f} MiB  "
                f"ours takes {row['ours_takes_memory']:.2f} of it"
            )
        results[name] = rows
    title = f"networks of ImageNet's size, batch {options.batch_size}"
    file = f"imagenet-{options.backend}-batch{options.batch_size}.json"
    record(options.out / file, {"title": title, "results": results})


def _program(name: str, program: str, batch_size: int) -> Run:
    (factory, learns), last = ROWS[name], program == CHANNELS_LAST
    if program.startswith("PyTorch"):
        if learns:
            return torch_step(factory, batch_size, last)
        return torch_inference(factory, batch_size, batch_size, last)
    backend = program.removeprefix("xpdl ")
    if learns:
        return xpdl_step(factory, batch_size, backend)
    return xpdl_inference(factory, batch_size, batch_size, backend)


def _memory(name: str, program: str, batch_size: int) -> float:
    """Return the most memory, in MiB, that a new process takes for a program and its network."""
    command = [sys.executable, "-m", "bench.imagenet", name, program, str(batch_size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    mib: float = json.loads(done.stdout.splitlines()[-1])
    return mib


def _main(name: str, program: str, batch_size: int) -> None:
    if program.startswith("PyTorch"):
        import torch  # noqa: F401  which is there before, too
    before = peak_mib()
    run = _program(name, program, batch_size)
    for _ in range(RUNS):
        run()
    print(json.dumps(round(peak_mib() - before, 1)))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
