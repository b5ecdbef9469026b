"""Read hostile files, each within a second and 512 MB, and say in a line of JSON how it went.

python tests/hostile/hostile_run.py --cases 300                    # of each reader
python tests/hostile/hostile_run.py picture --first 1234 --cases 1 # one again
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # or its time counts twice

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

from hostile_readers import READERS, Place, put, reader_of

SECONDS = 1.0  # of the processor
MEMORY = 512 * 2**20  # bytes of address space beyond what is in use at the start
HANG = 30  # seconds by the clock, after which a case is killed
SHOWN = 2000  # bytes of a file in a message
MOST_FAILURES = 20

# What no reader does, as Python tells it to an audit hook.
FORBIDDEN = {
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.find_class",
}
FORBIDDEN |= {
    "socket.connect",
    "shutil.rmtree",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "ctypes.dlopen",
}


class Watch:
    """Notes, while it is on, what a reader must not do."""

    def __init__(self):
        self.on = False
        self.seen = []
        self.may_remove = None
        sys.addaudithook(self.hook)
        sys.unraisablehook = lambda problem: self.seen.append(f"unraisable: {problem.exc_value!r}")

    def hook(self, event, arguments):
        if self.on and event == "open":
            path, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(path).endswith(".pyc"):
                self.seen.append(f"opened for writing: {path}")
        elif self.on and event in FORBIDDEN and not self.permits(event, arguments):
            self.seen.append(f"{event} {arguments}")

    def permits(self, event, arguments):
        return event == "os.remove" and Path(os.fsdecode(arguments[0])) == self.may_remove


def bound_memory(more):
    """Let the process take `more` bytes of address space than it has now; None lifts the bound."""
    bound = resource.RLIM_INFINITY
    if more is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        bound = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (bound, resource.RLIM_INFINITY))


def read_bounded(reader, subject, watch):
    """Return what a reader made of its file, the error if it refused it, and the seconds taken."""
    watch.seen.clear()
    value = refusal = None
    start = time.process_time()
    # What a case is made of is not held against its reader: the bound is on what comes on top.
    bound_memory(MEMORY)
    watch.on = True
    try:
        value = reader.read(reader.path, subject)
    except reader.allowed as error:
        refusal = error.with_traceback(None)  # whose frames hold what was read
        refusal.__cause__ = refusal.__context__ = None
    finally:
        watch.on = False
        bound_memory(None)
    return value, refusal, time.process_time() - start


def run_case(reader, number, watch):
    """Read a case; return whether it could be read, and in how many seconds.

    Raises
    ------
    AssertionError
        If anything about it is wrong; what else the reader raises, too.
    """
    content = reader.case(number)
    put(content, reader.path)
    subject = reader.subject()
    value, refusal, seconds = read_bounded(reader, subject, watch)
    assert not watch.seen, watch.seen
    if refusal is None:
        assert not isinstance(content, Place), "it was read, whatever that was"
        reader.check(content, value, subject)
    else:
        assert str(refusal), "it was refused without a word"
        assert len(str(refusal)) < 50_000, "it was refused with too many words"
        assert not 0 <= number < len(reader.seeds), f"a right file was refused: {refusal}"
        reader.unchanged(subject)
    assert seconds < SECONDS, f"it took {seconds:.2f} s of the processor"
    return refusal is None, seconds


def run(reader, first, cases, answer):
    """Run cases, and write what came of them, in a process of its own."""
    watch = Watch()
    watch.may_remove = reader.may_remove
    warnings.simplefilter("error")
    start = time.monotonic()
    tally = {"read": 0, "refused": 0, "slowest": 0.0, "slowest case": "", "failures": []}
    for number in range(first, first + cases):
        os.pwrite(answer, f"{number:<20}".encode(), 0)
        signal.alarm(HANG)
        try:
            loaded, seconds = run_case(reader, number, watch)
        except Exception as error:
            content = reader.case(number)
            lines = "".join(traceback.format_exception(error)[-6:])
            failure = {"case": number, "title": reader.title(number), "error": lines[-1500:]}
            failure["hex"] = "" if isinstance(content, Place) else content[:SHOWN].hex()
            tally["failures"].append(failure)
            if len(tally["failures"]) == MOST_FAILURES:
                break
            continue
        tally["read" if loaded else "refused"] += 1
        if seconds > tally["slowest"]:
            tally |= {"slowest": round(seconds, 3), "slowest case": reader.title(number)}
    signal.alarm(0)
    tally["seconds"] = round(time.monotonic() - start, 1)
    os.pwrite(answer, json.dumps(tally).encode(), 20)


def run_apart(name, first, cases, folder):
    """Run cases of the reader `name` in a child process; return what came of them."""
    reader = reader_of(name, folder)
    reader.seeds, reader.worst  # noqa: B018  made once
    if first is None:
        first = -len(reader.dear)
        cases -= first
    path = Path(folder) / "answer"
    path.write_bytes(b"")
    child = os.fork()
    if not child:
        try:
            with open(path, "r+b") as answer:
                run(reader, first, cases, answer.fileno())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    content = path.read_bytes()
    if status == 0:
        return {"reader": name, **json.loads(content[20:])}
    number = int(content[:20] or first)
    how = f"signal {signal.Signals(os.WTERMSIG(status)).name}" if os.WIFSIGNALED(status) else status
    case = reader.case(number)
    shown = "" if isinstance(case, Place) else case[:SHOWN].hex()
    failure = {"case": number, "title": reader.title(number), "error": f"ended by {how}"}
    return {"reader": name, "failures": [failure | {"hex": shown}]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    names = [kind.name for kind in READERS]
    parser.add_argument("readers", nargs="*", metavar="READER", help=", ".join(names))
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--cases", type=int, default=300, help="how many of each reader")
    parser.add_argument("--all", action="store_true", help="also those that take long to make")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in options.readers or names:
            first = None if options.all else options.first
            print(json.dumps(run_apart(name, first, options.cases, folder)), flush=True)


if __name__ == "__main__":
    main()
