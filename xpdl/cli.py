"""The command ``xpdl``: parse, call, print."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import xpdl
from xpdl.backends import available_backends, get_backend
from xpdl.backends.threads import thread_count
from xpdl.command import Parser, add_device_options, count, escape_output, rate, run_command, seed
from xpdl.datasets import DATA_SETS, data_folder, folder_status, prepare_digit
from xpdl.errors import BackendUnavailableError, XpdlError
from xpdl.files import replacing
from xpdl.functions import softmax
from xpdl.models import MODELS, make_model
from xpdl.optimizers import BY_NAME as OPTIMIZERS
from xpdl.optimizers import Adam
from xpdl.precision import get_precision
from xpdl.schedules import BY_NAME as SCHEDULES
from xpdl.storage import load_with_notes
from xpdl.training.profile import profile_step
from xpdl.training.recipes import RECIPES
from xpdl.training.run import LOADERS, Result, Run, evaluate, expect_digits, make_options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C."""
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
    _add_profile(commands)
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
    recipes = "; ".join(f"{name}: {recipe.about}" for name, recipe in RECIPES.items())
    add(
        "--recipe",
        metavar="NAME",
        help=f"where options not given come from (default: fast). {recipes}",
    )
    add("--model", metavar="NAME", help=", ".join(MODELS))
    add("--data", metavar="NAME", help=f"{', '.join(LOADERS)} (default: mnist)")
    add("--epochs", type=count, metavar="N", help="passes over the training data")
    add("--batch-size", type=count, metavar="N", help="images a step")
    add("--optimizer", metavar="NAME", help=", ".join(OPTIMIZERS))
    add("--learning-rate", type=rate, metavar="RATE", help="its peak, if it has a schedule")
    add("--schedule", metavar="NAME", help=", ".join(SCHEDULES))
    add("--seed", type=seed, metavar="N", help="for weights, order and dropout (default: 0)")
    add("--out", metavar="DIR", help="the run's folder (default: runs/<model>-<time>)")
    add("--resume", metavar="RUN", help="go on with an interrupted run")


def _train(options: argparse.Namespace) -> int:
    names = ("model", "epochs", "batch_size", "optimizer", "learning_rate", "schedule")
    overrides = {name: getattr(options, name) for name in names}
    if options.resume is not None:
        given = [
            "--" + name.replace("_", "-")
            for name in (*names, "recipe", "data", "seed", "dtype", "out")
            if getattr(options, name) is not None
        ]
        if given:
            return _complain(options, f"--resume takes the run's own options; omit {given[0]}.")
        run = Run.resume(options.resume)
    else:
        run = Run(
            make_options(
                options.recipe or "fast",
                data=options.data or "mnist",
                seed=options.seed or 0,
                dtype=options.dtype,
                **overrides,
            ),
            options.out,
        )
    o = run.options
    print(
        f"{o.model} on {o.data}: {o.epochs} {'epoch' if o.epochs == 1 else 'epochs'}, {o.optimizer}"
        f" {o.learning_rate:g} ({o.schedule}), batch {o.batch_size}, seed {o.seed}, {o.dtype} on "
        f"{o.backend}",
        flush=True,
    )
    if o.dtype == "float16" and o.backend != "cupy":
        print("float16 is emulated on a CPU: products are computed in float32, and it is slow.")
    try:
        result = run.fit()
    except KeyboardInterrupt:
        done = len(run.trainer.history.epochs)
        print(
            f"xpdl train: interrupted after {done} of {o.epochs} epochs; the network as it is now "
            f"is in {run.folder}. Go on from the last whole epoch with: "
            f"xpdl train --resume {run.folder}",
            file=sys.stderr,
        )
        return 130
    print(f"{_score(result)}, trained in {result.seconds:.1f} s")
    epochs = run.trainer.history.epochs
    if epochs[-1].loss_scale is not None:
        skipped = sum(epoch.skipped_steps for epoch in epochs)
        print(f"loss scale {epochs[-1].loss_scale:g} at the end, {skipped} steps skipped")
    print(f"{result.folder}: {', '.join(sorted(path.name for path in result.folder.iterdir()))}")
    return 0


def _complain(options: argparse.Namespace, message: str) -> int:
    print(f"xpdl {options.command}: {message}", file=sys.stderr)
    return 2


def _score(result: Result) -> str:
    return f"test accuracy {result.accuracy:.2%} ({result.wrong} of {result.images:,} wrong)"


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


def _evaluate(options: argparse.Namespace) -> int:
    network, about = load_with_notes(options.network, dtype=options.dtype)
    data = options.data or about.get("data", "mnist")
    result, loss = evaluate(network, data, Path(options.network))
    print(f"{network.name} on {data}: {_score(result)}, loss {loss:.4f}, {result.seconds:.1f} s")
    return 0


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


def _predict(options: argparse.Namespace) -> int:
    network, about = load_with_notes(options.network, dtype=options.dtype)
    data = about.get("data", "mnist")
    if data != "mnist":
        print(f"{network.name} was trained on {data}.", file=sys.stderr)
    expect_digits(network)
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
        probabilities = network.backend.to_numpy(softmax(network.predict(x)))[0]
        best = probabilities.argsort()[::-1][:3]
        answers = ", ".join(f"{names[i]} ({probabilities[i]:.1%})" for i in best)
        print(f"{path}: {answers}")
    return code


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
    used = {providers[name] for name in ("convolution", "matmul", "max_pooling", "relu", "adam")}
    print(f"computed by: {', '.join(sorted(used))} (see xpdl info --backend {backend.name})")
    if options.chart is not None:
        figure = profile.chart()
        with replacing(Path(options.chart)) as beside:
            figure.savefig(beside, format="png", dpi=110)
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
        home = data_folder(name)
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
