"""The options that decide how a step is made: how they are given, read and written."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from xpdl.cli.command import count, place, rate
from xpdl.datasets import DATA_SETS, PictureData
from xpdl.datasets.augmentation import BY_NAME as KINDS
from xpdl.errors import ArgumentError
from xpdl.models import MODELS
from xpdl.optimizers import BY_NAME as OPTIMIZERS
from xpdl.runs.data import SHARE, is_own, load_pictures, place_of
from xpdl.runs.options import RunOptions, make_options
from xpdl.runs.preparation import make_optimizer
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


def picture_size(text: str) -> tuple[int, int]:
    """Return the height and the width that an argument says: 64, or 48x64."""
    sides = text.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f"must be SIDE or HEIGHTxWIDTH, got {text!r}")
    return int(sides[0]), int(sides[-1])


def share(text: str) -> float:
    """Return the number from 0, and below 1, that an argument says."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 and below 1, got {text!r}")
    return value


# What decides how one step is made; each takes the place of what the recipe says.
CHOICES: dict[str, dict[str, Any]] = {
    "--recipe": {
        "metavar": "NAME",
        "help": "where options not given come from (default: what suits the data). "
        + "; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items()),
    },
    "--model": {"metavar": "NAME", "help": ", ".join(MODELS)},
    "--model-options": {
        "type": setting,
        "nargs": "+",
        "metavar": "NAME=VALUE",
        "help": "what the model is made with, beside the recipe's: drop_scores=false",
    },
    "--data": {
        "type": place,
        "metavar": "DATA",
        "help": f"{', '.join(DATA_SETS)}; or the place of your own: a folder of pictures with a "
        "folder for each class (or such folders train and test, or val), a .npz file, IDX files "
        "(default: mnist)",
    },
    "--picture-size": {
        "type": picture_size,
        "metavar": "SIDE",
        "help": "to which a folder's pictures are brought: 64, or HEIGHTxWIDTH (default: what "
        "most have, at most 224)",
    },
    "--channels": {
        "type": count,
        "metavar": "N",
        "help": "of a folder's pictures: 1 for grey, 3 for colour (default: what most have)",
    },
    "--skip-broken": {
        "action": "store_const",
        "const": True,
        "help": "leave out pictures of a folder that cannot be read",
    },
    "--test": {
        "type": share,
        "metavar": "SHARE",
        "help": "of your own pictures, set aside for testing where there are none for that "
        f"(default: {SHARE})",
    },
    "--validation": {
        "type": share,
        "metavar": "SHARE",
        "help": "of the training pictures, set aside to choose the best epoch by; 0 for none "
        f"(default: {SHARE} of your own pictures, none of a data set by name)",
    },
    "--optimizer": {
        "metavar": "NAME",
        "help": f"{', '.join(OPTIMIZERS)}; another than the recipe's has its usual learning rate",
    },
    "--optimizer-options": {
        "type": setting,
        "nargs": "+",
        "metavar": "NAME=VALUE",
        "help": "what the optimizer is made with, beside the recipe's: momentum=0.95",
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
    "--class-weights": {
        "metavar": "WAY",
        "help": "balanced: classes of few pictures count as much as others",
    },
    "--augment": {
        "type": setting,
        "nargs": "*",
        "metavar": "NAME=VALUE",
        "help": "change the pictures: shift=2 rotate=10; without any, leave them. "
        + ", ".join(KINDS),
    },
}


OF_PICTURES = ("picture_size", "channels", "skip_broken", "test", "validation")
"""The names of the options that say which pictures of the data are for what, in which form."""


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
    for name in given.keys() & {"model_options", "optimizer_options", "augment"}:
        settings = dict(given[name])
        if len(settings) < len(given[name]):
            raise ArgumentError(f"{flag(name)} has a name twice: {given[name]}.")
        given[name] = settings
    return given


def options_and_pictures(
    options: argparse.Namespace, overrides: Mapping[str, Any]
) -> tuple[RunOptions, PictureData]:
    """Return all that a command line says of a new run, and the pictures that it names.

    What does not serve whatever the pictures are is said before they are read.
    """
    data = place_of("mnist" if options.data is None else options.data)
    chosen: dict[str, Any] = {"validation": SHARE if is_own(data) else 0.0, **overrides}
    chosen |= {"data": data, "seed": options.seed or 0, "dtype": options.dtype}
    # How many epochs there are, to which batch sizes are held, may depend on the pictures.
    first = make_options(options.recipe, **chosen | {"batch_size": None})
    make_optimizer(first)
    pictures = load_pictures(**first.of_pictures())
    return make_options(options.recipe, pictures=pictures, **chosen), pictures


def settings_as_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as they are written on the command line, NAME=VALUE."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def flag(name: str) -> str:
    """Return the option of a name: ``--batch-size`` of "batch_size"."""
    return f"--{name.replace('_', '-')}"
