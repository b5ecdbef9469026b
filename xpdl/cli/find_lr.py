"""``xpdl find-lr``: a learning rate, by a short training in which it rises."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xpdl.cli.choices import (
    CHOICES,
    add_choices,
    flag,
    given_options,
    options_and_pictures,
    settings_as_arguments,
)
from xpdl.cli.command import add_command, chart, complain, count, rate, seed
from xpdl.datasets import PictureData
from xpdl.datasets.batches import batch_sizes
from xpdl.runs.data import as_taken, title_of
from xpdl.runs.folder import save_figures
from xpdl.runs.options import RunOptions
from xpdl.runs.preparation import make_augmentation_for, make_network, make_optimizer
from xpdl.tuning.learning_rate import RateSweep, find_learning_rate


def add_find_lr(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser = add_command(
        commands,
        "find-lr",
        _find_lr,
        "find a learning rate by a short training in which it rises",
        "xpdl find-lr --model SimpleConvNet --optimizer momentum --chart rates.png",
    )
    add = parser.add_argument
    add_choices(parser, *CHOICES)
    add("--batch-size", type=count, metavar="N", help="images a step")
    add("--low", type=rate, metavar="RATE", default=1e-6, help="the first rate (default: 1e-6)")
    add("--high", type=rate, metavar="RATE", default=10.0, help="the last rate (default: 10)")
    add("--steps", type=count, metavar="N", default=200, help="how many (default: 200)")
    add("--seed", type=seed, metavar="N", help="for weights, order and dropout (default: 0)")
    add("--chart", type=chart, metavar="FILE", help="draw the loss by the rate, a PNG")


def _find_lr(options: argparse.Namespace) -> int:
    choices = (name.removeprefix("--").replace("-", "_") for name in CHOICES)
    given = given_options(options, *choices, "batch_size", "seed", "dtype")
    taken = {"recipe", "data", "seed", "dtype"}
    overrides = {name: value for name, value in given.items() if name not in taken}
    o, pictures = options_and_pictures(options, overrides)
    sweep = _sweep(o, pictures, options)
    print(sweep.table())
    if sweep.diverged:
        print(f"the loss diverged at {sweep.rates[-1]:.2g}")
    suggestion, code = sweep.suggestion, 0
    if suggestion is None:
        code = complain(
            options,
            f"no suggestion: the loss hardly falls before {sweep.lowest:.2g}; use more --steps, a "
            "lower --low or a higher --high.",
        )
    else:
        given |= given_options(options, "backend")
        print(
            f"suggestion: {suggestion:.2g}, where the loss falls most steeply. The peak of a "
            f"schedule may lie above it, but below {sweep.lowest:.2g}, where the loss is lowest.\n"
            f"Use it with: xpdl train {_as_arguments(given)}--learning-rate {suggestion:.2g}"
        )
    if options.chart is not None:
        save_figures(Path(), {options.chart: sweep.chart()})
        print(options.chart)
    return code


def _as_arguments(given: Mapping[str, Any]) -> str:
    """Return options as they are written on the command line, a space behind each."""
    words: list[str] = []
    for name, value in given.items():
        words.append(flag(name))
        if isinstance(value, Mapping):
            words += settings_as_arguments(value)
        elif isinstance(value, tuple):
            words.append("x".join(map(str, value)))
        elif value is not True:
            words.append(str(value))
    return "".join(f"{shlex.quote(word)} " for word in words)


def _sweep(o: RunOptions, pictures: PictureData, options: argparse.Namespace) -> RateSweep:
    """Say what is trained, and train it while its rate rises."""
    network = make_network(o, pictures)
    batch_size = batch_sizes(o.batch_size)[0]
    for note in pictures.notes:
        print(note)
    print(
        f"{o.model} on {title_of(o.data)}: {o.optimizer} from {options.low:g} to "
        f"{options.high:g}, at most {options.steps} steps, batch {batch_size}, "
        f"seed {o.seed}, {o.dtype} on {o.backend}",
        flush=True,
    )
    return find_learning_rate(
        network,
        as_taken(network, pictures.train),
        optimizer=make_optimizer(o, network),
        batch_size=batch_size,
        low=options.low,
        high=options.high,
        steps=options.steps,
        seed=o.seed,
        augment=make_augmentation_for(network, o, pictures.shape),
    )
