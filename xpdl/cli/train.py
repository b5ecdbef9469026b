"""``xpdl train``: a training that leaves its network in a folder."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from xpdl.backends import get_backend
from xpdl.cli.choices import (
    CHOICES,
    OF_PICTURES,
    add_choices,
    given_options,
    options_and_pictures,
    settings_as_arguments,
)
from xpdl.cli.command import add_command, count, place, rate, seed, shifts
from xpdl.cli.together import ending_together, expect_one_command
from xpdl.cli.trained import score
from xpdl.datasets.batches import batch_sizes
from xpdl.distributed import Ranks, find_ranks, for_arrays_of
from xpdl.errors import ArgumentError
from xpdl.models import PRETRAINED
from xpdl.runs.data import LOADERS, parts_told, place_of, title_of
from xpdl.runs.ensemble_run import resume_run, start_run
from xpdl.runs.folder import expect_free, resuming
from xpdl.runs.following import follow
from xpdl.runs.options import RunOptions
from xpdl.runs.preparation import BEFORE_THE_HEAD, epochs_of_the_head
from xpdl.runs.recipes import RECIPES, TrainingOptions
from xpdl.runs.run import Run
from xpdl.schedules import BY_NAME as SCHEDULES
from xpdl.training.divergence import ON_DIVERGENCE


def add_train(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser = add_command(
        commands,
        "train",
        _train,
        "train a network on MNIST, or on your own pictures, and leave it in a folder",
        "xpdl train --model SimpleConvNet --epochs 2 --out runs/simple\n"
        "  xpdl train --data flowers/ --backend numba",
    )
    add = parser.add_argument
    add("--list-recipes", action="store_true", help="print the recipes as JSON, and train nothing")
    add_choices(parser, *CHOICES)
    add(
        "--pretrained",
        metavar="NAME",
        help="in place of a model, a network with ImageNet's weights and a new head, which learns "
        f"first while the rest is frozen: {', '.join(PRETRAINED)}",
    )
    add("--epochs", type=count, metavar="N", help="passes over the training data")
    add(
        "--batch-size",
        type=_batch_size,
        metavar="N",
        help="images a step; 0:100,3:400 is 100 at first, and 400 after 3 epochs",
    )
    add("--learning-rate", type=rate, metavar="RATE", help="its peak, if it has a schedule")
    add("--schedule", metavar="NAME", help=", ".join(SCHEDULES))
    add(
        "--warm-up",
        type=float,
        metavar="SHARE",
        help="of the training, in which the rate rises; 0 leaves that to the schedule",
    )
    add("--average", type=float, metavar="DECAY", help="average the parameters: 0.999; 0 does not")
    add(
        "--shifts",
        type=shifts,
        metavar="PIXELS",
        help="answer by the average over pictures moved so far, nine looks at each; 0 is one look",
    )
    add(
        "--mirrored",
        action=argparse.BooleanOptionalAction,
        help="answer by the average over pictures and their mirror images",
    )
    add("--members", type=count, metavar="N", help="train N networks, which answer together")
    add(
        "--patience",
        type=count,
        metavar="N",
        help="stop after N epochs in which validation found none better, and take the best",
    )
    add("--seed", type=seed, metavar="N", help="for weights, order and dropout (default: 0)")
    add(
        "--out",
        metavar="DIR",
        help="the run's folder (default: runs/<model>-<time>, or runs/<data> of your own pictures)",
    )
    add("--overwrite", action="store_true", help="train anew in place of the run in --out")
    add("--resume", type=place, metavar="RUN", help="go on with a run that is not at its end")
    add(
        "--checkpoint-every",
        type=rate,
        metavar="SECONDS",
        help="how often to keep what is needed to go on, beside each epoch's end (default: 180)",
    )
    add(
        "--on-divergence",
        metavar="WAY",
        help="what to do when a step comes to NaN or infinity: "
        f"{', '.join(ON_DIVERGENCE)} (default: stop)",
    )
    add(
        "--reduce-dtype",
        metavar="TYPE",
        help="float16: several processes send each other their gradients in half as many bytes",
    )


def _batch_size(text: str) -> int | dict[int, int]:
    """Return the batch size that an argument says, or from which epoch on which."""
    if ":" not in text:
        return count(text)
    pairs = [part.split(":") for part in text.split(",")]
    if all(len(pair) == 2 and all(number.isdecimal() for number in pair) for pair in pairs):
        sizes = {int(first): int(size) for first, size in pairs}
        if len(sizes) == len(pairs):
            return sizes
    raise argparse.ArgumentTypeError(f"must be N or 0:N,EPOCH:N,..., got {text!r}")


def _train(options: argparse.Namespace) -> int:
    if options.list_recipes:
        listed = {name: {"about": r.about} | asdict(r) for name, r in RECIPES.items()}
        print(json.dumps(listed, indent=2))
        return 0
    ranks = find_ranks()
    if ranks is None:
        return _fit(_run(options))
    return ending_together("xpdl train", ranks, lambda: _train_together(options, ranks))


def _train_together(options: argparse.Namespace, ranks: Ranks) -> int:
    """Train on several ranks: the first has the run, the others follow."""
    expect_one_command(options, ranks)
    ranks = for_arrays_of(get_backend(), ranks)
    runs: list[Run] = []

    def begin() -> RunOptions:
        runs.append(_run(options, ranks))
        return runs[0].options

    chosen = ranks.first(begin)
    if runs:
        return _fit(runs[0])
    try:
        follow(chosen, ranks)
    except KeyboardInterrupt as error:
        return _stopped(error)
    return 0


def _stopped(error: KeyboardInterrupt) -> int:
    """Return the exit code of a training that a signal stopped."""
    return 128 + int(getattr(error, "number", signal.SIGINT))


def _fit(run: Run) -> int:
    """Train, and say what it came to."""
    _tell_options(run)
    try:
        result = run.fit()
    except KeyboardInterrupt as error:
        print(
            f"xpdl train: interrupted {run.standing()}. Go on with: {resuming(run.folder)}",
            file=sys.stderr,
        )
        return _stopped(error)
    if (early := run.stopped_early()) is not None:
        print(early)
    print(f"{score(result, run.options.looks)}, trained in {result.seconds:.1f} s")
    sums = run.trainer.step.gradient_sum
    if sums is not None and sums.seconds:
        print(f"waited for gradients in {sums.waited / sums.seconds:.0%} of the time")
    epochs = run.epochs()
    if epochs[-1].loss_scale is not None:
        skipped = sum(epoch.skipped_steps for epoch in epochs)
        print(f"loss scale {epochs[-1].loss_scale:g} at the end, {skipped} steps skipped")
    print(f"{result.folder}: {', '.join(sorted(path.name for path in result.folder.iterdir()))}")
    return 0


def _run(options: argparse.Namespace, ranks: Ranks | None = None) -> Run:
    """Return the run that is asked for: a new one, or one that goes on."""
    names = [field.name for field in fields(TrainingOptions)]
    names += ["checkpoint_every", "on_divergence", "reduce_dtype", *OF_PICTURES]
    overrides = given_options(options, *names)
    if options.resume is not None:
        lone = [f"--{name}" for name in ("recipe", "out") if getattr(options, name) is not None]
        lone += ["--overwrite"] if options.overwrite else []
        if lone:
            raise ArgumentError(f"--resume goes on where the run is; omit {lone[0]}.")
        changes = overrides | given_options(options, "data", "seed", "dtype")
        if "data" in changes:
            changes["data"] = place_of(changes["data"])
        on_its_backend = options.backend is None
        return resume_run(options.resume, changes, on_its_backend=on_its_backend, ranks=ranks)
    if options.overwrite and options.out is None:
        raise ArgumentError("--overwrite is for the run in a folder; name it with --out.")
    if options.out:  # before pictures are decoded, which may take long
        expect_free(Path(options.out), options.overwrite)
    chosen, pictures = options_and_pictures(options, overrides)
    more: dict[str, Any] = {"pictures": pictures, "ranks": ranks}
    return start_run(chosen, options.out, overwrite=options.overwrite, **more)


def _tell_options(run: Run) -> None:
    """Print how is trained: each time the same, then what is not always."""
    if run.changes:
        told = (f"{name} {now!r} (was {was!r})" for name, (was, now) in run.changes.items())
        print(f"with other options than it began: {', '.join(told)}", flush=True)
    o = run.options
    print(
        f"{o.model} on {title_of(o.data)}: {o.epochs} {'epoch' if o.epochs == 1 else 'epochs'}, "
        f"{o.optimizer} {o.learning_rate:g} ({o.schedule}), batch "
        f"{_show_batch_size(o.batch_size)}, seed {o.seed}, {o.dtype} on {o.backend}"
        f"{_show_ranks(run)}",
        flush=True,
    )
    more = {name: getattr(o, name) for name in _SOMETIMES}
    more["members"] = o.members if o.members > 1 else 0
    if o.data not in LOADERS or o.validation:
        for note in run.pictures.notes:
            print(note, flush=True)
        print(f"pictures: {parts_told(run.pictures)}", flush=True)
    if o.pretrained is not None:
        print(
            f"with ImageNet's weights and a new head, which learns alone for the first "
            f"{epochs_of_the_head(o)}; then all does, what is before it at {BEFORE_THE_HEAD:g} of "
            "the rate, and batch normalisation by the batch",
            flush=True,
        )
    if any(more.values()):
        told = (f"{name.replace('_', ' ')}{_show(value)}" for name, value in more.items() if value)
        print(f"with {', '.join(told)}", flush=True)
    if o.reduce_dtype is not None:
        alone = "which changes nothing: one process sends none"
        how = alone if run.ranks is None else "each rounded to 11 bits twice"
        print(f"gradients are sent as {o.reduce_dtype}, {how}", flush=True)
    if o.dtype == "float16" and o.backend != "cupy":
        print("float16 is emulated on a CPU: products are computed in float32, and it is slow.")


# Options that are told where there are any.
_SOMETIMES = (
    "model_options", "optimizer_options", "warm_up", "weight_decay", "clip_norm",
    "label_smoothing", "average", "augment", "shifts", "mirrored", "class_weights", "patience",
)  # fmt: skip


def _show_ranks(run: Run) -> str:
    return "" if run.ranks is None else f", {run.ranks.size} processes"


def _show(value: Any) -> str:
    """Return a value as a heading has it; settings as they are written on the command line."""
    if isinstance(value, Mapping):
        return f" {' '.join(settings_as_arguments(value))}"
    return "" if value is True else f" {value}"


def _show_batch_size(batch_size: int | Mapping[int, int]) -> str:
    return ", ".join(
        f"{size} from epoch {first + 1} on" if first else str(size)
        for first, size in batch_sizes(batch_size).items()
    )
