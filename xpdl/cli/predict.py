"""``xpdl predict``: what pictures show."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xpdl.cli.command import add_command, complain
from xpdl.cli.trained import add_trained, looks_of, name_of
from xpdl.datasets import prepare_digit
from xpdl.errors import XpdlError
from xpdl.network import Network
from xpdl.runs.evaluation import load_trained
from xpdl.runs.preparation import expect_digits
from xpdl.tuning.shifts import answering


def add_predict(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser = add_command(
        commands,
        "predict",
        _predict,
        "say what pictures show",
        "xpdl predict runs/simple seven.png",
    )
    add_trained(parser)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="PNG, JPEG ... of one digit")


def _predict(options: argparse.Namespace) -> int:
    model, about = load_trained(options.network, dtype=options.dtype)
    network = model if isinstance(model, Network) else model.members[0]
    data = about.get("data", "mnist")
    if data != "mnist":
        print(f"{name_of(model)} was trained on {data}.", file=sys.stderr)
    expect_digits(network)
    together = answering(model, looks_of(options, about))
    classes = network.output_shape[0]
    names = about.get("class_names") or []
    if len(names) != classes:
        names = [str(i) for i in range(classes)]
    code = 0
    for path in options.images:
        try:
            digit = prepare_digit(path)
        except XpdlError as error:
            code = complain(options, str(error))
            continue
        x = network.backend.asarray(digit.reshape(1, *network.input_shape))
        probabilities = network.backend.to_numpy(together.predict(x))[0]
        best = probabilities.argsort()[::-1][:3]
        answers = ", ".join(f"{names[i]} ({probabilities[i]:.1%})" for i in best)
        print(f"{path}: {answers}")
    return code
