"""A trained network: how it is given to a command, and what is said of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from xpdl.cli.command import place, shifts
from xpdl.models import PRETRAINED
from xpdl.network import Network
from xpdl.runs.result import Result
from xpdl.tuning.ensemble import Ensemble
from xpdl.tuning.shifts import Looks


def add_trained(parser: argparse.ArgumentParser, *, others: bool = False) -> None:
    """Add what names a trained network, ours or one of `others`, and how it answers."""
    parser.add_argument(
        "network",
        type=place,
        metavar="RUN",
        nargs="?" if others else None,
        help="a run's folder, or a .safetensors file",
    )
    if others:
        parser.add_argument(
            "--model", metavar="NAME", help=f"with --pretrained: {', '.join(PRETRAINED)}"
        )
        parser.add_argument(
            "--pretrained",
            action="store_true",
            help="in place of RUN, a network with ImageNet's weights, which are fetched once",
        )
    parser.add_argument(
        "--shifts",
        type=shifts,
        metavar="PIXELS",
        help="answer by the average over pictures moved so far, nine looks at each; 0 is one look "
        "(default: as it was trained for)",
    )
    parser.add_argument(
        "--mirrored",
        action=argparse.BooleanOptionalAction,
        help="look at the mirror images, too (default: as it was trained for)",
    )


def score(result: Result, looks: Looks) -> str:
    """Say how many of the test images are right."""
    told = f"test accuracy {result.accuracy:.2%} ({result.wrong} of {result.images:,} wrong)"
    if result.single_look_accuracy is not None:
        told += f" over {looks}; {result.single_look_accuracy:.2%} at one look"
    return told


def looks_of(options: argparse.Namespace, about: Mapping[str, Any]) -> Looks:
    """Return how a network looks at pictures: as is asked for, or as it was trained for."""
    return Looks.asked(about, options.shifts, options.mirrored)


def name_of(model: Network | Ensemble) -> str:
    """Return what a network is called, or an ensemble of several."""
    if isinstance(model, Network):
        return model.name
    return f"{len(model)} x {model.members[0].name}"
