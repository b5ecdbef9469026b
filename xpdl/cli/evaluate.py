"""``xpdl evaluate``: a trained network, measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xpdl.cli.command import add_command
from xpdl.cli.trained import add_trained, looks_of, name_of, score
from xpdl.network import Network
from xpdl.runs.evaluation import evaluate, load_trained


def add_evaluate(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "measure a trained network on the test images",
        "xpdl evaluate runs/simple",
    )
    add_trained(parser)
    parser.add_argument("--data", metavar="NAME", help="another data set than it was trained on")


def _evaluate(options: argparse.Namespace) -> int:
    model, about = load_trained(options.network, dtype=options.dtype)
    data = about.get("data", "mnist") if options.data is None else options.data
    shifts = looks_of(options, about)
    result, loss = evaluate(model, data, Path(options.network), shifts)
    smoothing = 0.0
    if isinstance(model, Network) and not shifts:
        smoothing = getattr(model.loss_layer, "label_smoothing", 0.0)
    told = f" (with label smoothing {smoothing:g})" if smoothing else ""
    measured = f"{score(result)}, loss {loss:.4f}{told}, {result.seconds:.1f} s"
    print(f"{name_of(model)} on {data}: {measured}")
    return 0
