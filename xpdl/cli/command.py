"""What every command line of xpdl does the same way: its options, and how it ends."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from xpdl.backends import BACKEND_NAMES, use_backend
from xpdl.backends.numpy.threads import thread_count
from xpdl.distributed import take_gpu
from xpdl.errors import FileAccessError, XpdlError, nearest
from xpdl.files import expect_writable
from xpdl.precision import PRECISIONS, get_precision


def escape_output() -> None:
    """Let names be printed that do not fit the terminal's code; to be called before parsing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")

    def refuse(self, surplus: Sequence[str]) -> NoReturn:
        """End for arguments that it does not know, and name the options that may be meant."""
        # Those that take a value first: what has none is seldom meant by a few letters.
        options = sorted(
            self._option_string_actions.items(), key=lambda option: option[1].nargs == 0
        )
        names = [name[2:] for name, _ in options if name.startswith("--")]
        unknown = [word.lstrip("-").partition("=")[0] for word in surplus if word.startswith("-")]
        meant = [f"--{name}" for word in unknown if (name := nearest(word, names)) is not None]
        hint = f" (did you mean {', '.join(dict.fromkeys(meant))}?)" if meant else ""
        self.error(f"unknown: {' '.join(surplus)}{hint}")


def add_device_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--backend`` and ``--dtype``."""
    parser.add_argument(
        "--backend",
        metavar="NAME",
        help=f"{', '.join(BACKEND_NAMES)} (default: $XPDL_BACKEND, else numpy)",
    )
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help=f"{', '.join(PRECISIONS)} (default: $XPDL_DTYPE, else float32)",
    )


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
) -> argparse.ArgumentParser:
    """Add a command, with the options of the device, and return its parser."""
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


def place(text: str) -> str:
    """Return the name of a file or folder that an argument says."""
    if not text:
        raise argparse.ArgumentTypeError("must be the name of a file or folder, got ''")
    return text


def chart(text: str) -> str:
    """Return the name of a PNG file that an argument says, if it can be written."""
    if Path(place(text)).suffix.lower() != ".png":
        raise argparse.ArgumentTypeError(f"must be the name of a PNG file, x.png, got {text!r}")
    try:
        expect_writable(text)
    except FileAccessError as error:
        raise argparse.ArgumentTypeError(str(error).removesuffix(".")) from error
    return text


def count(text: str) -> int:
    """Return the whole number of at least 1 that an argument says."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    """Return the whole number of at least 0 that an argument says."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, got {text!r}")
    return int(text)


def shifts(text: str) -> int:
    """Return how far pictures are moved, of an argument; 0 is not at all."""
    return 0 if text == "0" else count(text)


def rate(text: str) -> float:
    """Return the number above 0 that an argument says."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return value


def complain(options: argparse.Namespace, message: str) -> int:
    """Say in one line what is wrong, and return the exit code of bad input."""
    print(f"xpdl {options.command}: {message}", file=sys.stderr)
    return 2


def run_command(
    title: str, options: argparse.Namespace, run: Callable[[argparse.Namespace], int]
) -> int:
    """Do what a command line asks, on the device it names, and return the exit code.

    That is what `run` returns; 2 after an error of ours or of the system, which is said in one line
    that begins with `title`; 130 after Ctrl-C; 141 where the reader of the output has gone.
    """
    try:
        take_gpu()
        chosen: AbstractContextManager[object] = nullcontext()
        if options.backend is not None:
            chosen = use_backend(options.backend)
        with chosen:
            get_precision(options.dtype)
            thread_count()
            code = run(options)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except XpdlError as error:
        print(f"{title}: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print(
            f"{title}: out of memory; use smaller batches or a smaller network.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"{title}: interrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output is gone; Python must not complain about it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        print(f"{title}: {error}", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
