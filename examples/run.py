"""Run the examples, and keep the table of what they show.

    python -m examples.run                    a glimpse at each, into figures/
    python -m examples.run --full             the whole of each, into examples/results/
    python -m examples.run gates im2col       only these

From the repository's root. A chapter's folder stands for its examples. The full run skips what it
has done already with the same file of the example, seed, and backend if one is named; the longest
trainings go on from their last whole epoch; the table in examples/README.md is refreshed each time.
"""

import argparse
import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from xpdl.cli.command import Parser, add_device_options, escape_output, run_command, seed
from xpdl.errors import ArgumentError, DataFileError, UnknownNameError
from xpdl.files import make_folder, read_json, write_bytes

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
MOST, LONGEST = 9, 60  # numbers of an example in the table, and characters of one
README = FOLDER / "README.md"
START, END = "<!-- results: python -m examples.run --table -->", "<!-- end of results -->"
CHAPTERS = {
    "ch01_arrays": "Chapter 1: arrays",
    "ch02_perceptron": "Chapter 2: the perceptron",
    "ch03_neural_network": "Chapter 3: neural networks",
    "ch04_learning": "Chapter 4: learning",
    "ch05_backpropagation": "Chapter 5: backpropagation",
    "ch06_learning_techniques": "Chapter 6: techniques of learning",
    "ch07_convolution": "Chapter 7: convolutional networks",
    "ch08_deep_learning": "Chapter 8: deep learning",
}


def examples() -> dict[str, Path]:
    """Return the examples by name, chapter by chapter, in the order of the book's sections."""
    paths = [path for chapter in CHAPTERS for path in (FOLDER / chapter).glob("*.py")]
    return {path.stem: path for path in sorted(paths, key=_place)}


def _place(path: Path) -> tuple[str, list[int], str]:
    """Return the chapter and the first section that the example's docstring names."""
    section = _reference(path.read_text("utf-8")).removeprefix("section").removeprefix("s").split()
    first = section[0].strip(",;") if section else ""
    numbers = [int(part) for part in first.split(".") if part.isdigit()]
    return path.parent.name, numbers, path.stem


def _reference(text: str) -> str:
    """Return what follows "Book, " in a text, up to the end of the sentence."""
    _, _, after = text.partition("Book, ")
    return " ".join(after.split()).partition(". ")[0].partition('."""')[0].rstrip(".")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_results(name: str, folder: Path = RESULTS) -> dict[str, Any]:
    """Return what an example left in `folder`; empty if it has not run."""
    path = folder / f"{name}.json"
    return read_json(path) if path.exists() else {}


def is_done(results: dict[str, Any], path: Path, folder: Path, options: argparse.Namespace) -> bool:
    """Tell whether `results` are of the full run of this very example, with these options."""
    wanted = {"quick": False, "seed": options.seed, "source": digest(path)}
    asked = {"backend": options.backend, "dtype": options.dtype}
    wanted |= {name: value for name, value in asked.items() if value is not None}
    made = {name: results.get(name) for name in wanted} == wanted
    return made and all((folder / figure).exists() for figure in results["figures"])


def table() -> str:
    """Return the table of the full run's results, as Markdown."""
    lines, known = [], examples()
    for chapter, title in CHAPTERS.items():
        lines += [f"### {title}", "", "| | what came out | |", "|---|---|---|"]
        for name, path in known.items():
            if path.parent.name == chapter:
                lines.append(row(name, path, read_results(name)))
        lines.append("")
    return "\n".join(lines)


def row(name: str, path: Path, results: dict[str, Any]) -> str:
    file = f"[`{path.name}`]({path.parent.name}/{path.name})"
    if not results:
        return f"| {file} | not run yet | |"
    numbers = sorted(results["shown"], key=lambda number: not number["book"])
    told = [number for number in numbers if number["book"] or len(number["text"]) <= LONGEST]
    lines = [
        f"{number['label']}: **{number['text']}**"
        + (f" (the book: {number['book']})" if number["book"] else "")
        for number in told[:MOST]
    ]
    if len(lines) < len(numbers):
        lines.append(f"[and {len(numbers) - len(lines)} more](results/{name}.json)")
    stale = "" if results["source"] == digest(path) else ", by an earlier version of the example"
    took = (
        f"seed {results['seed']}, {_duration(results['seconds'])} on `{results['backend']}`{stale}"
    )
    pictures = " ".join(
        f'<img src="results/{f}" alt="{f}" width="220">' for f in results["figures"]
    )
    what = f"**{_reference(results['about'])}**<br>{results['title']}<br>{file}"
    ours = "<br>".join([*lines, f"<sub>{took}</sub>"])
    return f"| {what} | {ours} | {pictures} |"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def refresh_readme() -> None:
    """Put the table of results in its place in README.md."""
    before, start, rest = README.read_text("utf-8").partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise DataFileError(f"{README} has lost the lines {START!r} and {END!r}; put them back.")
    write_bytes(README, f"{before}{START}\n\n{table()}\n{END}{after}".encode())


def run_all(options: argparse.Namespace) -> int:
    known = examples()
    names = []
    for name in options.names:
        chapter = [key for key, path in known.items() if path.parent.name == Path(name).name]
        if not chapter and Path(name).stem not in known:
            raise UnknownNameError("example or chapter", name, [*CHAPTERS, *known])
        names += chapter or [Path(name).stem]
    if options.table:
        if names:
            raise ArgumentError("--table refreshes the whole table; leave the names out.")
        refresh_readme()
        return 0
    standard = RESULTS if options.full else "figures"
    out = make_folder(standard if options.out is None else options.out, "--out")
    if out.resolve() == RESULTS and not options.full:
        raise ArgumentError("examples/results is for the full run: add --full, or choose --out.")
    failed = []
    for name in names or known:
        path = known[name]
        if options.full and is_done(read_results(name, out), path, out, options):
            print(f"{name}: done before, in {out}", flush=True)
            continue
        print(f"== {path.relative_to(FOLDER)}", flush=True)
        command = [sys.executable, str(path), "--out", str(out), "--seed", str(options.seed)]
        command += [] if options.full else ["--quick"]
        for option in ("backend", "dtype"):
            value = getattr(options, option)
            command += [] if value is None else [f"--{option}", value]
        start = time.perf_counter()
        code = subprocess.run(command).returncode
        if code == 130:  # Ctrl-C, which the example has seen too
            raise KeyboardInterrupt
        if code:
            failed.append(name)
        print(f"   {time.perf_counter() - start:.1f} s", flush=True)
        if out.resolve() == RESULTS:
            refresh_readme()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    escape_output()
    parser = Parser(prog="python -m examples.run", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("names", nargs="*", metavar="NAME", help="examples or chapters (default: all)")
    add("--full", action="store_true", help="the whole of each, which takes hours; else a glimpse")
    add("--table", action="store_true", help="only refresh the table in examples/README.md")
    add("--out", metavar="DIR", help="default: figures, or, full, examples/results")
    add("--seed", type=seed, default=0, metavar="N", help="default: 0")
    add_device_options(parser)
    return run_command("examples.run", parser.parse_args(), run_all)


if __name__ == "__main__":
    sys.exit(main())
