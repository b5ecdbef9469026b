"""``xpdl evaluate``: a trained network, measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xpdl.cli.choices import add_choices
from xpdl.cli.command import add_command, place
from xpdl.cli.trained import add_trained, looks_of, name_of, score
from xpdl.network import Network
from xpdl.runs.data import LOADERS, title_of
from xpdl.runs.evaluation import evaluate, load_to_test, load_trained


def add_evaluate(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "measure a trained network on test pictures",
        "xpdl evaluate runs/simple\n  xpdl evaluate runs/flowers --data more-flowers/",
    )
    add_trained(parser)
    parser.add_argument(
        "--data",
        type=place,
        metavar="DATA",
        help="other data than it was trained on, as xpdl train takes; classes go by name",
    )
    add_choices(parser, "--skip-broken")


def _evaluate(options: argparse.Namespace) -> int:
    model, about = load_trained(options.network, dtype=options.dtype)
    data = about.get("data", "mnist") if options.data is None else options.data
    looks = looks_of(options, about)
    part, notes = load_to_test(model, about, options.data, skip_broken=bool(options.skip_broken))
    result, loss = evaluate(model, part, Path(options.network), looks)
    smoothing = 0.0
    if isinstance(model, Network) and not looks.several:
        smoothing = getattr(model.loss_layer, "label_smoothing", 0.0)
    told = f" (with label smoothing {smoothing:g})" if smoothing else ""
    measured = f"{score(result, looks)}, loss {loss:.4f}{told}, {result.seconds:.1f} s"
    for note in notes if data not in LOADERS else ():
        print(note)
    print(f"{name_of(model)} on {title_of(data)}: {measured}")
    return 0
