"""The command ``xpdl``: its commands put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import xpdl
from xpdl.cli.book import add_book
from xpdl.cli.command import Parser, escape_output, run_command
from xpdl.cli.evaluate import add_evaluate
from xpdl.cli.find_lr import add_find_lr
from xpdl.cli.info import add_info
from xpdl.cli.predict import add_predict
from xpdl.cli.profile import add_profile
from xpdl.cli.together import alone
from xpdl.cli.train import add_train

TOGETHER = ("train", "profile", "info")
"""What several processes may do that were started together."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 for bad input, 130 for Ctrl-C, 143 ..."""
    escape_output()
    parser, commands = _parsers()
    options, surplus = parser.parse_known_args(arguments)
    if surplus:
        commands.choices[options.command].refuse(surplus)
    run = options.run if options.command in TOGETHER else alone(options.run)
    return run_command(f"xpdl {options.command}", options, run)


def _parsers() -> tuple[Parser, Any]:
    """Return the parser of all, and what holds that of each command."""
    parser = Parser(
        prog="xpdl",
        description="Train the networks of the book Deep Learning from Scratch.",
        epilog="Start with: xpdl train",
    )
    parser.add_argument("--version", action="version", version=f"xpdl {xpdl.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_train(commands)
    add_evaluate(commands)
    add_predict(commands)
    add_find_lr(commands)
    add_profile(commands)
    add_book(commands)
    add_info(commands)
    return parser, commands
