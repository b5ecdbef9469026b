"""The command ``xpdl``: parse, call, print."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

import xpdl
from xpdl.backends import available_backends, get_backend
from xpdl.backends.numpy.threads import thread_count
from xpdl.cli.book import add_book
from xpdl.cli.command import (
    Parser,
    add_device_options,
    count,
    escape_output,
    rate,
    run_command,
    seed,
)
from xpdl.datasets import DATA_SETS, data_folder, folder_status, prepare_digit
from xpdl.datasets.augmentation import BY_NAME as KINDS
from xpdl.datasets.batches import batch_sizes
from xpdl.errors import ArgumentError, BackendUnavailableError, FileAccessError, XpdlError
from xpdl.models import MODELS, make_model
from xpdl.network import Network
from xpdl.optimizers import BY_NAME as OPTIMIZERS
from xpdl.optimizers import Adam
from xpdl.precision import get_precision
from xpdl.runs.ensemble_run import resume_run, start_run
from xpdl.runs.evaluation import evaluate, load_trained
from xpdl.runs.folder import resuming, save_figures
from xpdl.runs.options import RunOptions, make_options
from xpdl.runs.preparation import (
    expect_digits,
    load_data,
    make_augmentation_for,
    make_network,
    make_optimizer,
)
from xpdl.runs.recipes import RECIPES, TrainingOptions
from xpdl.runs.run import Result
from xpdl.schedules import BY_NAME as SCHEDULES
from xpdl.training.divergence import ON_DIVERGENCE
from xpdl.tuning.ensemble import Ensemble
from xpdl.tuning.learning_rate import RateSweep, find_learning_rate
from xpdl.tuning.profile import profile_step
from xpdl.tuning.shifts import answering


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C, 143."""
    escape_output()
    options, surplus = _parser().parse_known_args(arguments)
    command = f"xpdl {options.command}"
    if surplus:
        print(f"{command}: unknown: {' '.join(surplus)}. See {command} --help.", file=sys.stderr)
        return 2
    return run_command(command, options, options.run)


def _parser() -> Parser:
    parser = Parser(
        prog="xpdl",
        description="Train the networks of the book Deep Learning from Scratch.",
        epilog="Start with: xpdl train",
    )
    parser.add_argument("--version", action="version", version=f"xpdl {xpdl.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_find_lr(commands)
    _add_profile(commands)
    add_book(commands)
    _add_info(commands)
    return parser


def _add(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add_device_options(parser)
    return parser


# ---- train --------------------------------------------------------------------------------------


def _add_train(commands: Any) -> None:
    parser = _add(
        commands,
        "train",
        _train,
        "train a network on MNIST and leave it in a folder",
        "xpdl train --model SimpleConvNet --epochs 2 --out runs/simple",
    )
    add = parser.add_argument
    add("--list-recipes", action="store_true", help="print the recipes as JSON, and train nothing")
    _add_choices(parser, *_CHOICES)
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
        type=_shifts,
        metavar="PIXELS",
        help="answer by the average over pictures moved so far, nine looks at each; 0 is one look",
    )
    add("--members", type=count, metavar="N", help="train N networks, which answer together")
    add("--seed", type=seed, metavar="N", help="for weights, order and dropout (default: 0)")
    add("--out", metavar="DIR", help="the run's folder (default: runs/<model>-<time>)")
    add("--resume", metavar="RUN", help="go on with an interrupted run")
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


def _setting(text: str) -> tuple[str, Any]:
    """Return the name and the value, as JSON has it, of an argument NAME=VALUE."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError(
            f'must be NAME=VALUE with a number, true, false, "...", [...] or {{...}}, got {text!r}'
        ) from None


# What decides how one step is made; each takes the place of what the recipe says.
_CHOICES: dict[str, dict[str, Any]] = {
    "--recipe": {
        "metavar": "NAME",
        "help": "where options not given come from (default: fast). "
        + "; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items()),
    },
    "--model": {"metavar": "NAME", "help": ", ".join(MODELS)},
    "--model-options": {
        "type": _setting,
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
        "type": _setting,
        "nargs": "*",
        "metavar": "NAME=VALUE",
        "help": "change the pictures: shift=2 rotate=10; without any, leave them. "
        + ", ".join(KINDS),
    },
}


def _add_choices(parser: argparse.ArgumentParser, *flags: str) -> None:
    for flag in flags:
        parser.add_argument(flag, **_CHOICES[flag])


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
    names = [field.name for field in fields(TrainingOptions)]
    names += ["checkpoint_every", "on_divergence"]
    overrides = _given(options, *names)
    if options.resume is not None:
        lone = [f"--{name}" for name in ("recipe", "out") if getattr(options, name) is not None]
        if lone:
            return _complain(options, f"--resume goes on where the run is; omit {lone[0]}.")
        changes = overrides | _given(options, "data", "seed", "dtype")
        run = resume_run(options.resume, changes, on_its_backend=options.backend is None)
    else:
        run = start_run(
            make_options(
                "fast" if options.recipe is None else options.recipe,
                data="mnist" if options.data is None else options.data,
                seed=options.seed or 0,
                dtype=options.dtype,
                **overrides,
            ),
            options.out,
        )
    if run.changes:
        told = (f"{name} {now!r} (was {was!r})" for name, (was, now) in run.changes.items())
        print(f"with other options than it began: {', '.join(told)}", flush=True)
    o = run.options
    print(
        f"{o.model} on {o.data}: {o.epochs} {'epoch' if o.epochs == 1 else 'epochs'}, {o.optimizer}"
        f" {o.learning_rate:g} ({o.schedule}), batch {_show_batch_size(o.batch_size)}, seed "
        f"{o.seed}, {o.dtype} on {o.backend}",
        flush=True,
    )
    more = {
        name: getattr(o, name)
        for name in (
            "model_options",
            "warm_up",
            "weight_decay",
            "clip_norm",
            "label_smoothing",
            "average",
            "augment",
            "shifts",
        )
    }
    more["members"] = o.members if o.members > 1 else 0
    if any(more.values()):
        told = (f"{name.replace('_', ' ')} {_show(value)}" for name, value in more.items() if value)
        print(f"with {', '.join(told)}", flush=True)
    if o.dtype == "float16" and o.backend != "cupy":
        print("float16 is emulated on a CPU: products are computed in float32, and it is slow.")
    try:
        result = run.fit()
    except KeyboardInterrupt as error:
        print(
            f"xpdl train: interrupted {run.standing()}. Go on with: {resuming(run.folder)}",
            file=sys.stderr,
        )
        return 128 + getattr(error, "number", signal.SIGINT)
    print(f"{_score(result)}, trained in {result.seconds:.1f} s")
    epochs = run.epochs()
    if epochs[-1].loss_scale is not None:
        skipped = sum(epoch.skipped_steps for epoch in epochs)
        print(f"loss scale {epochs[-1].loss_scale:g} at the end, {skipped} steps skipped")
    print(f"{result.folder}: {', '.join(sorted(path.name for path in result.folder.iterdir()))}")
    return 0


def _show(value: Any) -> str:
    """Return a value as a heading has it; settings as they are written on the command line."""
    return " ".join(_settings(value)) if isinstance(value, Mapping) else str(value)


def _settings(settings: Mapping[str, Any]) -> list[str]:
    return [f"{name}={json.dumps(value)}" for name, value in settings.items()]


def _given(options: argparse.Namespace, *names: str) -> dict[str, Any]:
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
            raise ArgumentError(f"{_flag(name)} has a name twice: {given[name]}.")
        given[name] = settings
    return given


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _show_batch_size(batch_size: int | Mapping[int, int]) -> str:
    return ", ".join(
        f"{size} from epoch {first + 1} on" if first else str(size)
        for first, size in batch_sizes(batch_size).items()
    )


def _complain(options: argparse.Namespace, message: str) -> int:
    print(f"xpdl {options.command}: {message}", file=sys.stderr)
    return 2


def _score(result: Result) -> str:
    told = f"test accuracy {result.accuracy:.2%} ({result.wrong} of {result.images:,} wrong)"
    if result.single_look_accuracy is not None:
        told += f" over shifts; {result.single_look_accuracy:.2%} at one look"
    return told


# ---- evaluate and predict -----------------------------------------------------------------------


def _add_evaluate(commands: Any) -> None:
    parser = _add(
        commands,
        "evaluate",
        _evaluate,
        "measure a trained network on the test images",
        "xpdl evaluate runs/simple",
    )
    parser.add_argument("network", metavar="RUN", help="a run's folder, or a .safetensors file")
    parser.add_argument("--data", metavar="NAME", help="another data set than it was trained on")
    _add_shifts(parser)


def _add_shifts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--shifts",
        type=_shifts,
        metavar="PIXELS",
        help="answer by the average over pictures moved so far, nine looks at each; 0 is one look "
        "(default: as it was trained for)",
    )


def _shifts(text: str) -> int:
    """Return how far pictures are moved, of an argument; 0 is not at all."""
    return 0 if text == "0" else count(text)


def _evaluate(options: argparse.Namespace) -> int:
    model, about = load_trained(options.network, dtype=options.dtype)
    data = about.get("data", "mnist") if options.data is None else options.data
    shifts = _looks(options, about)
    result, loss = evaluate(model, data, Path(options.network), shifts)
    smoothing = 0.0
    if isinstance(model, Network) and not shifts:
        smoothing = getattr(model.loss_layer, "label_smoothing", 0.0)
    told = f" (with label smoothing {smoothing:g})" if smoothing else ""
    print(
        f"{_name(model)} on {data}: {_score(result)}, loss {loss:.4f}{told}, {result.seconds:.1f} s"
    )
    return 0


def _looks(options: argparse.Namespace, about: Mapping[str, Any]) -> int:
    """Return the shifts by which a network answers: those asked for, or its own."""
    shifts: int = about.get("shifts", 0) if options.shifts is None else options.shifts
    return shifts


def _name(model: Network | Ensemble) -> str:
    if isinstance(model, Network):
        return model.name
    return f"{len(model)} x {model.members[0].name}"


def _add_predict(commands: Any) -> None:
    parser = _add(
        commands,
        "predict",
        _predict,
        "say what pictures show",
        "xpdl predict runs/simple seven.png",
    )
    parser.add_argument("network", metavar="RUN", help="a run's folder, or a .safetensors file")
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="PNG, JPEG ... of one digit")
    _add_shifts(parser)


def _predict(options: argparse.Namespace) -> int:
    model, about = load_trained(options.network, dtype=options.dtype)
    network = model if isinstance(model, Network) else model.members[0]
    data = about.get("data", "mnist")
    if data != "mnist":
        print(f"{_name(model)} was trained on {data}.", file=sys.stderr)
    expect_digits(network)
    together = answering(model, _looks(options, about))
    classes = network.output_shape[0]
    names = about.get("class_names") or []
    if len(names) != classes:
        names = [str(i) for i in range(classes)]
    code = 0
    for path in options.images:
        try:
            digit = prepare_digit(path)
        except XpdlError as error:
            code = _complain(options, str(error))
            continue
        x = network.backend.asarray(digit.reshape(1, *network.input_shape))
        probabilities = network.backend.to_numpy(together.predict(x))[0]
        best = probabilities.argsort()[::-1][:3]
        answers = ", ".join(f"{names[i]} ({probabilities[i]:.1%})" for i in best)
        print(f"{path}: {answers}")
    return code


# ---- find-lr ------------------------------------------------------------------------------------


def _add_find_lr(commands: Any) -> None:
    parser = _add(
        commands,
        "find-lr",
        _find_lr,
        "find a learning rate by a short training in which it rises",
        "xpdl find-lr --model SimpleConvNet --optimizer momentum --chart rates.png",
    )
    add = parser.add_argument
    _add_choices(parser, *_CHOICES)
    add("--batch-size", type=count, metavar="N", help="images a step")
    add("--low", type=rate, metavar="RATE", default=1e-6, help="the first rate (default: 1e-6)")
    add("--high", type=rate, metavar="RATE", default=10.0, help="the last rate (default: 10)")
    add("--steps", type=count, metavar="N", default=200, help="how many (default: 200)")
    add("--seed", type=seed, metavar="N", help="for weights, order and dropout (default: 0)")
    add("--chart", metavar="FILE", help="draw the loss by the rate, a PNG")


def _find_lr(options: argparse.Namespace) -> int:
    choices = (flag.removeprefix("--").replace("-", "_") for flag in _CHOICES)
    given = _given(options, *choices, "batch_size", "seed", "dtype")
    usual: dict[str, Any] = {"recipe": "fast", "data": "mnist", "seed": 0, "dtype": None}
    o = make_options(**usual | given)
    sweep = _sweep(o, options)
    print(sweep.table())
    if sweep.diverged:
        print(f"the loss diverged at {sweep.rates[-1]:.2g}")
    suggestion, code = sweep.suggestion, 0
    if suggestion is None:
        code = _complain(
            options,
            f"no suggestion: the loss hardly falls before {sweep.lowest:.2g}; use more --steps, a "
            "lower --low or a higher --high.",
        )
    else:
        given |= _given(options, "backend")
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
        words.append(_flag(name))
        words += _settings(value) if isinstance(value, Mapping) else [str(value)]
    return "".join(f"{shlex.quote(word)} " for word in words)


def _sweep(o: RunOptions, options: argparse.Namespace) -> RateSweep:
    """Say what is trained, and train it while its rate rises."""
    network = make_network(o)
    batch_size = batch_sizes(o.batch_size)[0]
    train, _ = load_data(o.data, network, normalize=False)
    print(
        f"{o.model} on {o.data}: {o.optimizer} from {options.low:g} to {options.high:g}, at most "
        f"{options.steps} steps, batch {batch_size}, seed {o.seed}, {o.dtype} on {o.backend}",
        flush=True,
    )
    return find_learning_rate(
        network,
        train,
        optimizer=make_optimizer(o),
        batch_size=batch_size,
        low=options.low,
        high=options.high,
        steps=options.steps,
        seed=o.seed,
        augment=make_augmentation_for(network, o),
    )


# ---- profile ------------------------------------------------------------------------------------


def _add_profile(commands: Any) -> None:
    parser = _add(
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
    add("--chart", metavar="FILE", help="draw the times as a chart, a PNG (Figure 8-14)")


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
    main = ("convolution", "matmul", "max_pooling", "relu", "update_rule")
    used = {providers[name] for name in main}
    print(f"computed by: {', '.join(sorted(used))} (see xpdl info --backend {backend.name})")
    if options.chart is not None:
        save_figures(Path(), {options.chart: profile.chart()})
        print(options.chart)
    return 0


# ---- info ---------------------------------------------------------------------------------------


def _add_info(commands: Any) -> None:
    _add(
        commands,
        "info",
        _info,
        "show backends, threads, libraries and data",
        "xpdl info --backend cupy",
    )


def _info(options: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_info

    try:
        active, libraries = get_backend().name, get_backend().describe()
    except BackendUnavailableError:
        active, libraries = "", {}  # the list below says why
    _section(
        "xpdl",
        {
            "version": xpdl.__version__,
            "Python": f"{platform.python_version()} on {platform.platform()}",
            **libraries,
        },
    )
    backends = {
        name: state + (", active" if name == active else "")
        for name, state in available_backends().items()
    }
    _section("backends", backends)
    blas = {
        f"BLAS ({library['internal_api']})": f"{library['num_threads']} threads, "
        f"{library.get('version')}, {library.get('architecture', 'unknown architecture')}"
        for library in threadpool_info()
        if library["user_api"] == "blas"
    }
    _section(
        "computing",
        {
            "float policy": get_precision(options.dtype).name,
            "threads": f"{thread_count()} of {os.cpu_count()} cores",
            **blas,
        },
    )
    if active:
        dtype = get_precision(options.dtype).compute
        by_provider: dict[str, list[str]] = {}
        for primitive, provider in get_backend().providers(dtype).items():
            by_provider.setdefault(provider, []).append(primitive)
        _section(
            f"who computes what on {active}, {dtype.name}",
            {provider: ", ".join(names) for provider, names in by_provider.items()},
        )
    for name in DATA_SETS:
        try:
            home = data_folder(name)
        except FileAccessError as error:
            _section(f"data: {name}", {"folder": str(error)})
            continue
        states = {
            status.name: status.state
            if status.path.parent == home or status.state == "missing"
            else f"{status.state}, in {status.path.parent}"
            for status in folder_status(name)
        }
        _section(f"data: {name} in {home}", states)
    return 0


def _section(title: str, rows: dict[str, str]) -> None:
    print(title)
    width = max(map(len, rows))
    for label, text in rows.items():
        print(f"  {label:<{width}}  {text}")
