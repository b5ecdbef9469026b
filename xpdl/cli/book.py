"""``xpdl book``: a script of the book, unchanged, on xpdl's engine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from xpdl.book.script import run_script
from xpdl.cli.command import Parser, add_device_options
from xpdl.errors import ArgumentError
from xpdl.precision import get_precision


def add_book(commands: Any) -> None:
    """Add the command to the parser of all."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "book",
        help="run a script of the book, unchanged, on xpdl's engine",
        description="Run a script of the book, unchanged, with xpdl's modules in place of its "
        "common and dataset. Convolutions of float32 images stay in float32; --dtype float64 "
        "gives the book's digits.",
        epilog="Options may stand behind SCRIPT as well; what follows -- is the script's alone.\n\n"
        "example:\n  xpdl book --backend numba ch08/train_deepnet.py",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=_book)
    _add_options(parser)
    parser.add_argument("script", metavar="SCRIPT", help="a Python file of the reader's own copy")
    parser.add_argument(
        "arguments",
        metavar="ARGS",
        nargs=argparse.REMAINDER,
        action=_ArgumentsOfScript,
        help="what the script finds in sys.argv",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_device_options(parser)
    parser.add_argument(
        "--save", metavar="DIR", help="keep figures as files there, and open no window"
    )


class _ArgumentsOfScript(argparse.Action):
    """Take the command's own options out of what stands behind the script, up to ``--``."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = list(values or ())
        end = words.index("--") if "--" in words else len(words)
        own = Parser(prog=parser.prog, add_help=False, allow_abbrev=False)
        _add_options(own)
        _, left = own.parse_known_args(words[:end], namespace)
        setattr(namespace, self.dest, [*left, *words[end + 1 :]])


def _book(options: argparse.Namespace) -> int:
    dtype = get_precision(options.dtype).name
    if dtype == "float16":
        raise ArgumentError(
            "a script of the book computes in float32 or float64, got float16; let the script "
            "make its arrays float16, as the book does in section 8.5."
        )
    return run_script(options.script, options.arguments, dtype=dtype, figures=options.save)
