"""``xpdl predict``: what pictures show."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xpdl.cli.command import add_command, complain
from xpdl.cli.trained import add_trained, looks_of, name_of
from xpdl.errors import ArgumentError, XpdlError
from xpdl.models import pretrained
from xpdl.network import Network
from xpdl.runs.classify import Answer, classify
from xpdl.runs.evaluation import load_trained
from xpdl.tuning.ensemble import Ensemble

SHOWN = 5
"""How many classes an answer names, the most probable ones."""


def add_predict(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser = add_command(
        commands,
        "predict",
        _predict,
        "say what pictures show",
        "xpdl predict runs/flowers photo.jpg holidays/ --json",
    )
    add_trained(parser, others=True)
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="+", help="a picture, or a folder of some; - reads one")
    add(
        "--digits",
        action=argparse.BooleanOptionalAction,
        help="bring pictures to the form of MNIST's digits (default: for a network of MNIST)",
    )
    add("--skip-broken", action="store_true", help="no error for what cannot be read; it is said")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list, a line a picture")
    form.add_argument("--csv", action="store_true", help="print a table, comma-separated values")


def _predict(options: argparse.Namespace) -> int:
    model, about, images = _asked(options)
    if about.get("data") == "fashion-mnist":
        print(
            f"{name_of(model)} was trained on fashion-mnist, light clothes on black.",
            file=sys.stderr,
        )
    broken: list[str] = []

    def leave_out(name: str, error: XpdlError) -> None:
        broken.append(name)
        complain(options, str(error))

    answers = classify(
        model,
        [sys.stdin.buffer if image == "-" else image for image in images],
        **looks_of(options, about)._asdict(),
        digits=options.digits,
        about=about,
        on_error=leave_out,
    )
    write: Callable[[Iterator[Answer]], None] = _write_lines
    if options.json or options.csv:
        write = _write_json if options.json else _write_csv
    write(answers)
    return 2 if broken and not options.skip_broken else 0


def _asked(
    options: argparse.Namespace,
) -> tuple[Network | Ensemble, Mapping[str, Any], list[str]]:
    """Return the network, what is known of it, and the pictures that are asked for."""
    given = [] if options.network is None else [options.network]
    if options.pretrained != (options.model is not None):
        raise ArgumentError(
            "--model NAME and --pretrained go together: xpdl predict --model mobilenet_v2 "
            "--pretrained photo.jpg"
        )
    if options.pretrained:  # then there is no RUN, and what stands first is a picture
        network = pretrained(options.model, dtype=options.dtype)
        return network, {"data": "imagenet"}, [*given, *options.images]
    if not given:
        raise ArgumentError(
            f"RUN or IMAGE is missing beside {options.images[0]!r}: give a trained network, and a "
            "picture; or a picture, --model NAME and --pretrained."
        )
    model, about = load_trained(options.network, dtype=options.dtype)
    return model, about, options.images


def _write_lines(answers: Iterator[Answer]) -> None:
    for answer in answers:
        print(answer)


def _write_json(answers: Iterator[Answer]) -> None:
    """Print a list, each answer when it is there."""
    before = "["
    for answer in answers:
        top = [{"class": name, "probability": round(p, 6)} for name, p in answer.top(SHOWN)]
        print(before, json.dumps({"picture": answer.picture, "top": top}), sep="\n", end="")
        before = ","
    print("[]" if before == "[" else "\n]")


def _write_csv(answers: Iterator[Answer]) -> None:
    """Print a line of names, and one for each picture: its classes, the most probable one first."""
    table = csv.writer(sys.stdout, lineterminator="\n")
    for number, answer in enumerate(answers):
        top = answer.top(SHOWN)
        if not number:
            columns = ((f"class {i}", f"probability {i}") for i in range(1, len(top) + 1))
            table.writerow(["picture", *(name for pair in columns for name in pair)])
        table.writerow([answer.picture, *(v for name, p in top for v in (name, f"{p:.6f}"))])
