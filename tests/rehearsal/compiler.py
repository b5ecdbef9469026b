"""From CUDA source to functions that Python can call, by way of g++.

A library is built once for each content, in a folder of the user's under the system's temporary
directory; the file appears there whole or not at all, so that processes may build side by side.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rehearsal.errors import CompileError

OLDEST = 12
"""The first g++ whose C++ has _Float16."""

INCLUDE = Path(__file__).parent / "include"

# Every operation is rounded as IEEE says; the compiler may not fuse a * b + c by itself.
_FLAGS = ("-std=c++17", "-O2", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden", "-w")

# With XPDL_REHEARSAL_FMA=1, the other way: a GPU's compiler fuses by default.
_FUSED = ("-ffp-contract=fast", "-mfma")

# With XPDL_REHEARSAL_SANITIZE=1, for a process under LD_PRELOAD=libasan.so.
_SANITIZE = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")

# Options of the real compilers that change nothing which a rehearsal could show.
_IGNORED = re.compile(
    r"-(-?std=c\+\+(11|14|17|20)|-fmad=(true|false)|-ptxas-options=.*|-maxrregcount=\d+"
    r"|-?lineinfo|-generate-line-info|-restrict|-extra-device-vectorization)"
)
_DEFINE = re.compile(r"(-D|--define-macro=)(?P<macro>\w+(=.*)?)", re.DOTALL)

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_WORD = re.compile(r"\w+")


def why_not() -> str | None:
    """Return why nothing can be compiled here, or None."""
    if sys.platform != "linux":
        return f"CUDA kernels are rehearsed on Linux only, not on {sys.platform}"
    if shutil.which("g++") is None:
        return "the rehearsal of CUDA kernels needs g++, which is not installed"
    version = _compiler_version()
    if int(version.partition(".")[0]) < OLDEST:
        return f"the rehearsal of CUDA kernels needs g++ {OLDEST} for its halves, got {version}"
    return None


def sanitizing() -> bool:
    """Tell whether memory errors of kernels are to be caught."""
    return os.environ.get("XPDL_REHEARSAL_SANITIZE") == "1"


def macros_of(options: Sequence[str]) -> tuple[str, ...]:
    """Return the definitions among the options of a `RawModule`, as g++ takes them."""
    if isinstance(options, str):
        raise CompileError(f"options are a tuple of strings, got the string {options!r}")
    macros = []
    for option in options:
        if match := _DEFINE.fullmatch(option):
            macros.append("-D" + match["macro"])
        elif not _IGNORED.fullmatch(option):
            raise CompileError(f"the rehearsal does not know the compiler's option {option!r}")
    return tuple(macros)


def build(source: str, flags: Sequence[str] = (), include: Sequence[str] = ()) -> ctypes.PyDLL:
    """Compile C++ into a library and load it; files of `include` are put in front.

    Calls hold Python's lock: kernels share their static memory, so one runs at a time.
    """
    command = ["g++", "-shared", *_FLAGS, *_of_this_processor(), *flags, f"-I{INCLUDE}"]
    if os.environ.get("XPDL_REHEARSAL_FMA") == "1":
        command += _FUSED
    if sanitizing():
        if "libasan" not in os.environ.get("LD_PRELOAD", ""):
            raise CompileError(
                "XPDL_REHEARSAL_SANITIZE=1 needs the sanitizer in the process from its start: "
                "LD_PRELOAD=$(g++ -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0"
            )
        command += _SANITIZE
    for name in include:
        command += ["-include", name]
    library = _cache() / f"{_key(command, source)}.so"
    if not library.exists():
        _compile(command, source, library)
    return ctypes.PyDLL(str(library))


def _compile(command: list[str], source: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        unit, made = Path(folder) / "unit.cpp", Path(folder) / "unit.so"
        unit.write_text(source)
        _run([*command, "-o", str(made), str(unit)])
        made.replace(library)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompileError(f"g++ refuses the source:\n{done.stderr}")
    return done.stdout


def _cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"xpdl-rehearsal-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise CompileError(f"{folder} belongs to somebody else; code is not loaded from there")
    return folder


@functools.cache
def _of_this_processor() -> tuple[str, ...]:
    """Return flags for conversions and fmaf in hardware: same bits, ten times quicker."""
    try:
        known = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return ()
    return ("-mf16c", "-mfma", "-mavx2") if {"f16c", "fma", "avx2"} <= known else ()


@functools.cache
def _headers() -> bytes:
    return b"".join(path.read_bytes() for path in sorted(INCLUDE.iterdir()))


@functools.cache
def _compiler_version() -> str:
    return _run(["g++", "-dumpfullversion"]).strip()


def _key(command: list[str], source: str) -> str:
    digest = hashlib.sha256(_headers())
    for part in (_compiler_version(), *command, source):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:32]


# ---- reading a source --------------------------------------------------------------------------


def kernels_of(source: str, macros: Sequence[str]) -> dict[str, bool]:
    """Return the name of each kernel in a source, and whether its threads wait for each other."""
    if reason := why_not():
        raise CompileError(reason)
    text = _COMMENT.sub(" ", _preprocessed(source, macros))
    functions = [(_name(head), head, body) for head, body in _definitions(text)]
    waiting = _waiting({name: body for name, _, body in functions if name})
    return {name: name in waiting for name, head, _ in functions if "__global__" in head}


def _preprocessed(source: str, macros: Sequence[str]) -> str:
    """Return the source with macros replaced, but CUDA's own words as they are."""
    with tempfile.TemporaryDirectory() as folder:
        unit = Path(folder) / "unit.cpp"
        unit.write_text(source)
        options = [*macros, "-DREHEARSAL_SIGNATURES_ONLY", f"-I{INCLUDE}"]
        return _run(["g++", "-E", "-P", "-std=c++17", *options, str(unit)])


def _definitions(text: str) -> list[tuple[str, str]]:
    """Return head and body of whatever has a body at the outermost level of a source."""
    text = re.sub(r'"(\\.|[^"\\])*"', '""', text)
    found = []
    position = 0
    for match in re.finditer(r'\b(extern\s*""|namespace(\s+\w+)?)\s*\{', text):
        found += _flat(text[position : match.start()])
        position = match.end()
    return found + _flat(text[position:])


def _flat(text: str) -> list[tuple[str, str]]:
    found, depth, start, opened = [], 0, 0, 0
    for match in re.finditer(r"[{};]", text):
        mark, at = match[0], match.start()
        if mark == "{":
            if depth == 0:
                opened = at
            depth += 1
        elif mark == "}":
            depth = max(depth - 1, 0)  # a namespace ends at depth 0
            if depth == 0:
                found.append((text[start:opened], text[opened:at]))
                start = at + 1
        elif depth == 0:
            start = at + 1
    return found


def _name(head: str) -> str | None:
    """Return what a head declares: the word before the parameters, or a type's name."""
    head = re.sub(r"__launch_bounds__\s*\([^()]*\)", " ", head)
    if match := re.search(r"(\w+)\s*\(", head):
        return match[1]
    words = _WORD.findall(head)
    return words[-1] if words else None


def _waiting(bodies: dict[str, str]) -> set[str]:
    """Return the functions that reach a barrier or use shared memory, by themselves or not."""
    words = {name: set(_WORD.findall(body)) for name, body in bodies.items()}
    waiting = {name for name in words if words[name] & {"__syncthreads", "__shared__"}}
    while more := {name for name in words.keys() - waiting if words[name] & waiting}:
        waiting |= more
    return waiting
