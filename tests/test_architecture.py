"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import xpdl

ROOT = Path(__file__).parents[1]
PACKAGE = Path(xpdl.__file__).parent
ARRAY_CODE = [
    *sorted((PACKAGE / "layers").glob("*.py")),
    PACKAGE / "functions.py",
    *sorted((PACKAGE / "optimizers").glob("*.py")),
    *(
        PACKAGE / f"{name}.py"
        for name in ("losses", "loss_checks", "class_weights", "measures", "targets")
    ),
]


def test_a_room_uses_only_rooms_on_lower_floors() -> None:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def annotations(tree: ast.AST) -> set[ast.AST]:
    """Return all nodes that stand in a type annotation."""
    roots: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            roots.append(node.annotation)
        elif isinstance(node, ast.FunctionDef):
            roots.append(node.returns)
    return {inner for root in roots if root is not None for inner in ast.walk(root)}


@pytest.mark.parametrize("path", ARRAY_CODE, ids=lambda path: path.name)
def test_array_code_uses_numpy_for_types_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    types = annotations(tree)
    used = [
        f"line {node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id in ("np", "numpy") and node not in types
    ]
    assert not used, f"{path.name} computes with NumPy at {', '.join(used)}; use array_module(x)"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_nothing_is_pickled_or_evaluated(path: Path) -> None:
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)
             for alias in node.names}  # fmt: skip
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not (names | modules) & {"pickle", "marshal", "shelve", "dill"}
    assert not calls & {"eval", "exec", "compile"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_names_say_what_a_thing_is(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}


# What a batch walks through, and no more; and what makes, describes and keeps that, and once was
# among it: so a file that moves out shows here.
CORE = [
    *("backends/base", "network", "optimizers", "losses.py", "targets.py", "parameters.py"),
    *("layers/base.py", "layers/arrays.py", "layers/door.py", "layers/kept.py"),
    "layers/graph.py",
    *("training/step.py", "training/trainer.py", "training/resuming.py"),
]
BESIDE = [
    *("architecture", "layers/node.py", "layers/wiring.py", "layers/checks.py", "configs.py"),
    *("loss_checks.py", "class_weights.py", "optimizer_checks.py", "tuning/answers.py"),
    *("backends/generators.py", "backends/machine.py", "backends/providers.py"),
]
LONGEST_CORE = 2_200  # lines of code, as the design has it
LONGEST_FILE = 400


def lines_of_code(path: Path) -> int:
    """Return how many lines of a file are neither docstring nor comment nor blank."""
    text = path.read_text()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            continue
        if ast.get_docstring(node):
            first = node.body[0]
            docstrings |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    nothing = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
               tokenize.ENDMARKER}  # fmt: skip
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in nothing:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def lengths_of(names: list[str]) -> dict[str, int]:
    lengths = {}
    for name in names:
        place = PACKAGE / name
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        lengths[name] = sum(map(lines_of_code, files))
    return lengths


def test_the_core_can_be_read_in_an_afternoon(capsys: pytest.CaptureFixture[str]) -> None:
    core, beside = lengths_of(CORE), lengths_of(BESIDE)
    total = sum(core.values())
    with capsys.disabled():
        for title, lengths in ("the core", core), ("beside it", beside):
            parts = ", ".join(f"{name} {n}" for name, n in lengths.items())
            print(f"\n{title}: {sum(lengths.values()):,} lines of code, of them {parts}")
    assert total <= LONGEST_CORE


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_no_file_is_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_FILE
