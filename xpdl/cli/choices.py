"""The options that decide how a step is made: how they are given, read and written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from xpdl.cli.command import rate
from xpdl.datasets import DATA_SETS
from xpdl.datasets.augmentation import BY_NAME as KINDS
from xpdl.errors import ArgumentError
from xpdl.models import MODELS
from xpdl.optimizers import BY_NAME as OPTIMIZERS
from xpdl.runs.recipes import RECIPES


def setting(text: str) -> tuple[str, Any]:
    """Return the name and the value, as JSON has it, of an argument NAME=VALUE."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(
            f'must be NAME=VALUE with a number, true, false, "...", [...] or {{...}}, got {text!r}'
        ) from None


# What decides how one step is made; each takes the place of what the recipe says.
CHOICES: dict[str, dict[str, Any]] = {
    "--recipe": {
        "metavar": "NAME",
        "help": "where options not given come from (default: fast). "
        + "; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items()),
    },
    "--model": {"metavar": "NAME", "help": ", ".join(MODELS)},
    "--model-options": {
        "type": setting,
        "nargs": "+",
        "metavar": "NAME=VALUE",
        "help": "what the model is made with, beside the recipe's: drop_scores=false",
    },
    "--data": {"metavar": "NAME", "help": f"{', '.join(DATA_SETS)} (default: mnist)"},
    "--optimizer": {
        "metavar": "NAME",
        "help": f"{', '.join(OPTIMIZERS)}; another than the recipe's has its usual learning rate",
    },
    "--weight-decay": {"type": float, "metavar": "RATE", "help": "of the optimizer"},
    "--clip-norm": {
        "type": rate,
        "metavar": "LENGTH",
        "help": "of all gradients together, at most",
    },
    "--label-smoothing": {
        "type": float,
        "metavar": "SHARE",
        "help": "of each target, over all classes",
    },
    "--augment": {
        "type": setting,
        "nargs": "*",
        "metavar": "NAME=VALUE",
        "help": "change the pictures: shift=2 rotate=10; without any, leave them. "
        + ", ".join(KINDS),
    },
}


def add_choices(parser: argparse.ArgumentParser, *flags: str) -> None:
    """Add those of `CHOICES` that are named."""
    for name in flags:
        parser.add_argument(name, **CHOICES[name])


def given_options(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """Return those of the options that were given, by name.

    Raises
    ------
    ArgumentError
        If one of NAME=VALUE has a name twice.
    """
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    for name in given.keys() & {"model_options", "augment"}:
        settings = dict(given[name])
        if len(settings) < len(given[name]):
            raise ArgumentError(f"{flag(name)} has a name twice: {given[name]}.")
        given[name] = settings
    return given


def settings_as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as they are written on the command line, NAME=VALUE."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def flag(name: str) -> str:
    """Return the option of a name: ``--batch-size`` of "batch_size"."""
    return f"--{name.replace('_', '-')}"
