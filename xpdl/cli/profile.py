"""``xpdl profile``: where the time of a training step goes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from xpdl.backends import get_backend
from xpdl.cli.command import add_command, chart, count
from xpdl.cli.together import ending_together, expect_one_command
from xpdl.distributed import Ranks, find_ranks, for_arrays_of
from xpdl.errors import ArgumentError
from xpdl.models import MODELS, make_model
from xpdl.optimizers import Adam
from xpdl.runs.folder import save_figures
from xpdl.tuning.messages import time_messages
from xpdl.tuning.profile import profile_step


def add_profile(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser = add_command(
        commands,
        "profile",
        _profile,
        "show where the time of a training step goes",
        "xpdl profile --model SimpleConvNet --batch-size 1000 --chart simple.png",
    )
    add = parser.add_argument
    add("--model", metavar="NAME", default="DeepConvNet", help=", ".join(MODELS))
    add("--batch-size", type=count, metavar="N", default=100, help="images a step (default: 100)")
    add("--rounds", type=count, metavar="N", default=30, help="steps to measure (default: 30)")
    add(
        "--reduce-dtype",
        metavar="TYPE",
        help="under mpiexec, as what gradients travel: float16, or as they are by default",
    )
    add(
        "--chart", type=chart, metavar="FILE", help="draw the times as a chart, a PNG (Figure 8-14)"
    )


def _profile(options: argparse.Namespace) -> int:
    ranks = find_ranks()
    if ranks is None:
        if options.reduce_dtype is not None:
            raise ArgumentError("--reduce-dtype is for several processes: start it by mpiexec.")
        return _show(options)
    return ending_together("xpdl profile", ranks, lambda: _profile_together(options, ranks))


def _profile_together(options: argparse.Namespace, ranks: Ranks) -> int:
    """Profile each rank's rows of the batch by themselves, then a step of all."""
    expect_one_command(options, ranks)
    return _show(options, for_arrays_of(get_backend(), ranks))


def _show(options: argparse.Namespace, ranks: Ranks | None = None) -> int:
    network = make_model(options.model, dtype=options.dtype)
    rng = np.random.default_rng(0)
    x = rng.random((options.batch_size, *network.input_shape), dtype=np.float32)
    t = rng.integers(0, network.output_shape[0], options.batch_size)
    backend = network.backend
    x, t = backend.asarray(x), backend.asarray(t)
    rows, rounds = slice(None), options.rounds
    if ranks is not None:
        how = {"rounds": rounds, "reduce_dtype": options.reduce_dtype}
        messages = time_messages(network, x, t, Adam(), ranks, **how)
        rows = ranks.rows(len(x))
    profile = profile_step(network, x[rows], t[rows], Adam(), rounds=rounds)
    if ranks is not None and ranks.rank > 0:
        return 0
    print(f"{profile.title}; medians of {profile.rounds}")
    print(profile.table())
    if ranks is not None:
        print(messages.table())
    providers = backend.providers(network.precision.compute)
    used = {
        providers[name] for name in ("convolution", "matmul", "max_pooling", "relu", "update_rule")
    }
    print(f"computed by: {', '.join(sorted(used))} (see xpdl info --backend {backend.name})")
    if options.chart is not None:
        save_figures(Path(), {options.chart: profile.chart()})
        print(options.chart)
    return 0
