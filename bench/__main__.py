"""The command ``python -m bench``: parse, measure, print, record."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import xpdl
from bench import accuracy, charts, convolutions, distributed, imagenet, memory, scaling
from bench.book_scripts import NETWORKS as BOOK_NETWORKS
from bench.book_scripts import PLAIN, script_step
from bench.choose import CANDIDATES, choose
from bench.gpu import command as gpu
from bench.measure import Run, compare, in_turns, record, show
from bench.networks import NETWORKS
from bench.programs import (
    batch,
    book_step,
    torch_inference,
    torch_layers,
    torch_step,
    xpdl_inference,
    xpdl_step,
)
from xpdl.errors import XpdlError
from xpdl.optimizers import Adam
from xpdl.tuning.profile import profile_step

RESULTS = Path(__file__).parent / "results"


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


PEERS = ("torch", "generic", "numpy", "numba")
_DEFAULTS: dict[str, Any] = {
    "dtype": "float32", "rounds": None, "batch_size": 100, "network": "deep", "book_path": None,
    "one_thread": False,
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "--dtype": {"metavar": "TYPE"},
    "--rounds": {"type": _count, "metavar": "N", "help": "turns of each program"},
    "--batch-size": {"type": _count, "metavar": "N", "help": "(default: 100)"},
    "--network": {"choices": NETWORKS, "help": "(default: deep: DeepConvNet)"},
    "--one-thread": {
        "action": "store_true",
        "help": "and the time of its core: for a busy machine",
    },
    "--book-path": {"type": Path, "help": "the folder of the book's code, to be measured, too"},
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def main(arguments: list[str] | None = None) -> int:
    command = ""
    try:
        options = _parse(arguments)
        command = f" {options.command}"
        return options.run(options) or 0
    except XpdlError as error:
        print(f"python -m bench{command}: {error}", file=sys.stderr)
        return 2


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="python -m bench", description="Measure xpdl beside its peers.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    usual = ["--dtype", "--rounds", "--batch-size", "--network"]
    for name, run, flags, peers, text in (
        ("step", _step, [*usual, "--book-path"], [*PEERS, "book"], "one training step with Adam"),
        ("inference", _inference, usual, PEERS, "prediction of 10,000 images"),
        ("memory", _memory, ["--batch-size"], PEERS, "peak memory of a training run"),
        ("scaling", _scaling, usual[:2], (), "time and memory by sizes, depth and threads"),
        ("layers", _layers, usual, ["torch"], "time by layer, against what the machine can do"),
        (
            "convolutions",
            _convolutions,
            ["--rounds", "--one-thread"],
            ["torch"],
            "single convolutions, by shape",
        ),
        ("loop", _loop, usual[:3], (), "what the training loop adds to its steps"),
        ("book", _book, [*usual[1:], "--book-path"], (), "a script of the book, and plain NumPy"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, against=[], **_DEFAULTS)
        add = command.add_argument
        add("--backend", default=xpdl.get_backend().name)
        for flag in flags:
            add(flag, default=_DEFAULTS[flag[2:].replace("-", "_")], **_OPTIONS[flag])
        if peers:
            add("--against", nargs="*", choices=peers, default=[], help="programs beside ours")
        add("--out", type=Path, default=RESULTS, help="folder (default: bench/results)")
    text = "all that wants a GPU, in one run: gradients, steps, kernels, training, memory, tests"
    gpu.add_options(commands.add_parser("gpu", help=text, description=text), _count, RESULTS)
    text = "the pictures of a record that gpu has written"
    gpu.add_chart_options(commands.add_parser("gpu-charts", help=text, description=text))
    text = "several processes beside one, and a model of up to 1,000 (wants pip install '.[mpi]')"
    distributed.add_options(
        commands.add_parser("distributed", help=text, description=text), _count, RESULTS
    )
    text = "networks of ImageNet's size: time and peak memory"
    imagenet.add_options(
        commands.add_parser("imagenet", help=text, description=text), _count, RESULTS
    )
    _add_choose(commands)
    text = "whole trainings by a recipe: accuracy and wall clock, seed by seed"
    accuracy.add_options(
        commands.add_parser("time-to-accuracy", help=text, description=text), RESULTS
    )
    options = parser.parse_args(arguments)
    if options.command in ("choose", "distributed"):
        return options
    if options.command == "book" and options.network not in BOOK_NETWORKS:
        parser.error(f"book has the networks {' and '.join(BOOK_NETWORKS)} alone")
    if "book" in options.against and options.book_path is None:
        parser.error("--against book wants --book-path DIR")
    if "book" in options.against and options.network != "deep":
        parser.error("--against book has the network deep alone")
    if "torch" in options.against:
        try:
            import torch  # noqa: F401
        except ImportError:
            parser.error("--against torch needs PyTorch: pip install torch")
    return options


def _add_choose(commands: Any) -> None:
    text = "candidates for a recipe, on validation data"
    command = commands.add_parser("choose", help=text, description=text)
    command.set_defaults(run=_choose)
    add = command.add_argument
    add("recipe", choices=CANDIDATES)
    add("--only", nargs="+", metavar="NAME", help="these candidates (default: all)")
    add("--seeds", type=int, nargs="+", default=[0, 1], metavar="N")
    add("--workers", type=_count, default=2, metavar="N", help="trainings at a time (default: 2)")
    add("--backend", default=xpdl.get_backend().name)
    add("--out", type=Path, default=RESULTS, help="folder (default: bench/results)")


def _choose(options: argparse.Namespace) -> None:
    choose(
        options.recipe,
        options.only,
        options.seeds,
        options.workers,
        options.backend,
        options.out,
    )


def _ours(options: argparse.Namespace) -> str:
    suffix = "" if options.dtype == "float32" else f" {options.dtype}"
    return f"xpdl {options.backend}{suffix}"


def _file(options: argparse.Namespace, *parts: str) -> Path:
    names = [options.command, *parts, options.backend]
    if options.dtype != "float32":
        names.append(options.dtype)
    if options.batch_size != 100:
        names.append(f"batch{options.batch_size}")
    folder: Path = options.out
    return folder / "-".join(names)


def _compare(
    options: argparse.Namespace,
    title: str,
    rounds: int,
    ours: Callable[[str, str], Run],
    torch: Callable[[bool], Run],
) -> None:
    """Time the programs asked for in turns; print, record and draw."""
    factory = NETWORKS[options.network]
    programs = {_ours(options): ours(options.backend, options.dtype)}
    for peer in options.against:
        if peer == "torch":
            programs["PyTorch eager"] = torch(False)
            if options.network != "layers":  # it has no image to lay out
                programs["PyTorch channels_last"] = torch(True)
        elif peer == "book":
            programs["the book's code"] = book_step(options.book_path, options.batch_size)
        elif peer != options.backend or options.dtype != "float32":
            programs[f"xpdl {peer}"] = ours(peer, "float32")
    rows = compare(in_turns(programs, options.rounds or rounds), _ours(options))
    show(title, rows)
    backend = xpdl.get_backend(options.backend)
    providers = backend.providers(factory(dtype=options.dtype).precision.compute)
    print(f"  {_ours(options)}: convolution by {providers['convolution']}, "
          f"products by {providers['matmul']}, pooling by {providers['max_pooling']}")  # fmt: skip
    path = _file(options, options.network)
    record(path.with_suffix(".json"), {"title": title, "results": rows, "providers": providers})
    charts.bars(path.with_suffix(".png"), rows, title)


def _step(options: argparse.Namespace) -> None:
    factory, batch_size = NETWORKS[options.network], options.batch_size
    _compare(
        options,
        f"one training step of {factory().name}, batch {batch_size}",
        12,
        lambda backend, dtype: xpdl_step(factory, batch_size, backend, dtype),
        lambda channels_last: torch_step(factory, batch_size, channels_last),
    )


def _book(options: argparse.Namespace) -> None:
    name, batch_size = BOOK_NETWORKS[options.network], options.batch_size
    ours, plain = f"xpdl book on {options.backend}", "plain NumPy, float64"
    modules: dict[str, str | Path] = {ours: options.backend, plain: PLAIN}
    if options.book_path is not None:
        modules["the book's own modules"] = options.book_path.resolve()
    programs = {name: script_step(options.network, batch_size, m) for name, m in modules.items()}
    title = f"a step of a script of the book, {name}, batch {batch_size}"
    rows = compare(in_turns(programs, options.rounds or 12), ours)
    show(title, rows)
    for name in list(rows)[1:]:
        print(f"  {rows[name]['median_ms'] / rows[ours]['median_ms']:.1f} times as fast as {name}")
    path = _file(options, options.network)
    record(path.with_suffix(".json"), {"title": title, "results": rows})


def _inference(options: argparse.Namespace) -> None:
    factory, batch_size, count = NETWORKS[options.network], options.batch_size, 10_000
    _compare(
        options,
        f"{factory().name} predicts {count:,} images, {batch_size} at a time",
        5,
        lambda backend, dtype: xpdl_inference(factory, count, batch_size, backend, dtype),
        lambda channels_last: torch_inference(factory, count, batch_size, channels_last),
    )


def _memory(options: argparse.Namespace) -> None:
    programs = [f"xpdl {options.backend}"]
    for peer in options.against:
        if peer == "torch":
            programs += ["PyTorch eager", "PyTorch channels_last"]
        elif peer != options.backend:
            programs.append(f"xpdl {peer}")
    steps = max(1, min(20, memory.EXAMPLES // options.batch_size))
    rows = {name: memory.measure(name, options.batch_size, steps) for name in programs}
    title = f"memory over the data, DeepConvNet, {steps} steps of {options.batch_size}"
    print(title)
    for row in rows.values():
        row["ours_takes"] = round(rows[programs[0]]["over_data_mib"] / row["over_data_mib"], 3)
    for name, row in rows.items():
        print(
            f"  {name:<22} {row['over_data_mib']:7.0f} MiB (of which the training: "
            f"{row['over_start_mib']:.0f})  ours takes {row['ours_takes']:.2f} of it"
        )
    path = _file(options)
    record(path.with_suffix(".json"), {"title": title, "results": rows})
    charts.memory(path.with_suffix(".png"), rows, title)


def _scaling(options: argparse.Namespace) -> None:
    results = scaling.measure(options.backend, options.dtype, options.rounds or 5)
    results["threads"] = scaling.measure_threads(
        options.backend, options.dtype, options.rounds or 8
    )
    title = f"a training step of xpdl {options.backend} {options.dtype}"
    print(title)
    for name, curve in results.items():
        points = zip(curve["values"], curve["step_ms"], strict=True)
        print(f"  {name}: " + ", ".join(f"{value}: {ms:.1f} ms" for value, ms in points))
        larger = curve.get("time_exponent_of_the_larger")
        text = f"    time ~ work^{curve['time_exponent']:.2f}"
        if larger is not None:
            text += (
                f" (the larger sizes: {larger:.2f}); memory ~ work^{curve['memory_exponent']:.2f}"
            )
        print(text)
    per_image = {
        size: ms / size
        for size, ms in zip(
            results["batch size"]["values"], results["batch size"]["step_ms"], strict=True
        )
    }
    ratio = per_image[1000] / per_image[100]
    print(f"  per image, batch 1000 takes {ratio:.2f} of batch 100")
    path = _file(options)
    record(
        path.with_suffix(".json"),
        {"title": title, "results": results, "per_image_1000_over_100": round(ratio, 3)},
    )
    charts.curves(path.with_suffix(".png"), results, title)


def _layers(options: argparse.Namespace) -> None:
    network = NETWORKS[options.network](dtype=options.dtype).to(options.backend)
    with xpdl.use_backend(options.backend) as backend:
        x, t = map(backend.asarray, batch(network, options.batch_size))
        profile = profile_step(network, x, t, Adam(), rounds=options.rounds or 30)
    print(profile.title)
    print(profile.table())
    results: dict[str, Any] = {"title": profile.title, "profile": asdict(profile)}
    if "torch" in options.against:
        theirs = torch_layers(NETWORKS[options.network], options.batch_size, options.rounds or 30)
        results["torch_ms"] = theirs
        print("PyTorch channels_last, each layer alone (forward, backward ms):")
        for name, (ahead, back) in theirs.items():
            print(f"{name:<12} {ahead:9.2f} {back:9.2f}")
    path = _file(options, options.network)
    record(path.with_suffix(".json"), results)
    charts.save(profile.chart(), path.with_suffix(".png"))


def _convolutions(options: argparse.Namespace) -> None:
    rows = convolutions.measure(
        options.backend, "torch" in options.against, options.rounds or 8, options.one_thread
    )
    title = f"convolutions forward and backward, xpdl {options.backend}"
    title += ", one thread" if options.one_thread else ""
    print(f"{title}: batch, channels, pixels, filters, size, stride, pad")
    for row in rows:
        print(convolutions.line(row))
    results: dict[str, Any] = {"title": title, "results": rows}
    if options.against:
        results["mean_ratio"] = round(convolutions.mean_ratio(rows), 3)
        print(f"  geometric mean of the ratios {results['mean_ratio']:.2f}, "
              f"the worst {max(row['ratio'] for row in rows):.2f}")  # fmt: skip
    path = _file(options, *(["one-thread"] if options.one_thread else []))
    record(path.with_suffix(".json"), results)


def _loop(options: argparse.Namespace) -> None:
    """Train for some epochs with everything on, and see what was not spent in the steps."""
    rng = np.random.default_rng(0)
    x = rng.random((100 * options.batch_size, 1, 28, 28), dtype=np.float32)
    t = rng.integers(0, 10, len(x))
    shares = []
    with xpdl.use_backend(options.backend):
        network = NETWORKS["deep"](dtype=options.dtype)
        trainer = xpdl.Trainer(
            network, (x, t), epochs=1 + (options.rounds or 5), batch_size=options.batch_size
        )
        trainer.progress.visible = False
        spent = 0.0

        def timed(call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                nonlocal spent
                start = time.perf_counter()
                result = call(*arguments)
                spent += time.perf_counter() - start
                return result

            return run

        for name in ("_step_on", "_whole_step"):
            setattr(trainer.feeding, name, timed(getattr(trainer.feeding, name)))

        def after(trainer: xpdl.Trainer, epoch: Any) -> None:
            nonlocal spent
            shares.append(epoch.seconds / spent - 1)
            spent = 0.0

        trainer.callbacks.append(after)
        trainer.fit()
    share = statistics.median(shares[1:])
    title = f"the loop around the steps, DeepConvNet, xpdl {options.backend} {options.dtype}"
    print(f"{title}: {100 * share:.2f} % of them (epochs: "
          + ", ".join(f"{100 * s:.2f}" for s in shares[1:]) + ")")  # fmt: skip
    record(_file(options).with_suffix(".json"), {"title": title, "share": share, "epochs": shares})


if __name__ == "__main__":
    sys.exit(main())
