"""``xpdl profile``: where the time of a training step goes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from xpdl.cli.command import add_command, chart, count
from xpdl.models import MODELS, make_model
from xpdl.optimizers import Adam
from xpdl.runs.folder import save_figures
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
        "--chart", type=chart, metavar="FILE", help="draw the times as a chart, a PNG (Figure 8-14)"
    )


def _profile(options: argparse.Namespace) -> int:
    network = make_model(options.model, dtype=options.dtype)
    rng = np.random.default_rng(0)
    x = rng.random((options.batch_size, *network.input_shape), dtype=np.float32)
    t = rng.integers(0, network.output_shape[0], options.batch_size)
    backend = network.backend
    profile = profile_step(
        network, backend.asarray(x), backend.asarray(t), Adam(), rounds=options.rounds
    )
    print(f"{profile.title}; medians of {profile.rounds}")
    print(profile.table())
    providers = backend.providers(network.precision.compute)
    used = {
        providers[name] for name in ("convolution", "matmul", "max_pooling", "relu", "update_rule")
    }
    print(f"computed by: {', '.join(sorted(used))} (see xpdl info --backend {backend.name})")
    if options.chart is not None:
        save_figures(Path(), {options.chart: profile.chart()})
        print(options.chart)
    return 0
