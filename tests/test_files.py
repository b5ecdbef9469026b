"""Files: the old one or the new one, never half of one; and nothing that lies is believed."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpdl
from xpdl import files
from xpdl.errors import ArgumentError, FileAccessError, ModelFileError

ROOT = Path(xpdl.__file__).parents[1]
OLD, NEW = b"the old content", b"new" * 1000


@pytest.fixture
def path(tmp_path):
    """A file with content, alone in its folder."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / "file.bin"
    file.write_bytes(OLD)
    return file


def assert_untouched(path):
    assert path.read_bytes() == OLD
    assert os.listdir(path.parent) == [path.name]


# ---- writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_the_new_file_takes_the_place_of_the_old(path, kind):
    files.write_bytes(kind(path), NEW)
    assert path.read_bytes() == NEW
    assert os.listdir(path.parent) == [path.name]


def test_a_new_file_is_made(path):
    new = path.with_name("other")
    files.write_bytes(new, NEW)
    assert new.read_bytes() == NEW
    assert sorted(os.listdir(path.parent)) == ["file.bin", "other"]


def test_a_relative_path(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    files.write_bytes("file.bin", NEW)
    assert path.read_bytes() == NEW


def test_a_reader_sees_the_old_file_until_the_end(path):
    with files.replacing(path) as stream:
        stream.write(NEW)
        stream.flush()
        assert path.read_bytes() == OLD
        assert len(os.listdir(path.parent)) == 2  # beside it, so that the rename cannot cross disks
    assert path.read_bytes() == NEW


def test_a_reader_at_work_keeps_the_old_file(path):
    with open(path, "rb") as reader:
        files.write_bytes(path, NEW)
        assert reader.read() == OLD


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_leaves_the_old_file_and_nothing_else(path, error):
    def write():
        with files.replacing(path) as stream:
            stream.write(NEW)
            raise error

    with pytest.raises(error):
        write()
    assert_untouched(path)


def test_a_killed_writer_leaves_the_old_file_whole(path):
    code = (
        "import os, sys; from xpdl import files\n"
        "with files.replacing(sys.argv[1]) as stream:\n"
        "    stream.write(b'half'); stream.flush(); os._exit(9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=60,
    )
    assert done.returncode == 9
    assert path.read_bytes() == OLD


def test_everything_is_on_the_disk_before_the_rename(path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        happened.append(("synced", os.fstat(descriptor).st_size))
        fsync(descriptor)

    def watched_replace(source, target):
        happened.append(("renamed", os.path.getsize(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    files.write_bytes(path, NEW)
    assert happened[:2] == [("synced", len(NEW)), ("renamed", len(NEW))]


# ---- where writing fails --------------------------------------------------------------------


def refused(path, action, *words):
    with pytest.raises(FileAccessError) as caught:
        action()
    message = str(caught.value)
    assert repr(str(path)) in message
    assert "\n" not in message
    assert "Errno" not in message
    for word in words:
        assert word in message


def test_a_missing_folder(tmp_path):
    target = tmp_path / "missing" / "file"
    refused(target, lambda: files.write_bytes(target, NEW), "No such file", "folder that exists")
    assert os.listdir(tmp_path) == []


def test_a_file_where_a_folder_should_be(path):
    target = path / "file"
    refused(target, lambda: files.write_bytes(target, NEW), "Not a directory")
    assert_untouched(path)


def test_a_folder_where_the_file_should_be(path):
    refused(path.parent, lambda: files.write_bytes(path.parent, NEW))
    assert_untouched(path)
    assert os.listdir(path.parent.parent) == [path.parent.name]


def test_a_read_only_folder(path, monkeypatch):
    # Root may write anywhere, so the refusal is played.
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "somewhere")

    monkeypatch.setattr("builtins.open", refuse)
    refused(path, lambda: files.write_bytes(path, NEW), "Permission denied", "writable")
    assert_untouched(path)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_at_any_step(path, monkeypatch, step):
    def refuse(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, refuse)
    refused(path, lambda: files.write_bytes(path, NEW), "No space left", "has room")
    monkeypatch.undo()
    assert_untouched(path)


def test_a_disk_that_takes_no_more_bytes(path):
    # A real refusal by the kernel, in the middle of the file.
    resource = pytest.importorskip("resource")
    del resource
    code = (
        "import resource, sys; from xpdl import files; from xpdl.errors import FileAccessError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: files.write_bytes(sys.argv[1], bytes(1 << 20))\n"
        "except FileAccessError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("cannot write "), done.stderr
    assert "File too large" in done.stdout
    assert_untouched(path)


def test_an_error_about_another_file_keeps_its_name(path):
    # What goes wrong inside the block need not be about the file being written.
    with pytest.raises(FileAccessError) as caught, files.replacing(path):
        files.read_bytes(path.with_name("another"))
    assert str(caught.value).startswith("cannot read ")
    assert_untouched(path)


# ---- permissions and links ------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_the_users_mask_is_obeyed_and_kept(path, umask, mode):
    before = os.umask(umask)
    try:
        new = path.with_name("new")
        files.write_bytes(new, NEW)
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == mode


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_a_link_leads_to_the_new_content_and_its_old_target_is_whole(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    files.write_bytes(link, NEW)
    assert link.read_bytes() == NEW
    assert path.read_bytes() in (OLD, NEW)
    assert sorted(os.listdir(tmp_path)) == ["folder", "link"]


# ---- folders, bytes, JSON -------------------------------------------------------------------


def test_make_folder(tmp_path):
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        assert files.make_folder(str(folder)) == folder
        assert folder.is_dir()


def test_make_folder_without_a_name():
    with pytest.raises(ArgumentError, match="--out is empty; name a folder"):
        files.make_folder("", "--out")


@pytest.mark.parametrize("below", ["", "deeper"])
def test_make_folder_where_a_file_is(path, below):
    target = path / below
    refused(target, lambda: files.make_folder(target), "cannot create the folder")
    assert_untouched(path)


def test_read_bytes(path):
    assert files.read_bytes(path) == OLD
    assert files.read_bytes(str(path)) == OLD


@pytest.mark.parametrize("read", [files.read_bytes, files.read_json, files.read_tensors])
def test_what_cannot_be_read_is_named(path, read):
    missing = path.with_name("missing")
    refused(missing, lambda: read(missing), "cannot read", "No such file")
    refused(path.parent, lambda: read(path.parent), "cannot read", "directory")


READERS = [files.read_bytes, files.read_json, files.read_tensors]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = (  # in a process that can be stopped, should it wait
        "import sys; from xpdl import files; from xpdl.errors import FileAccessError\n"
        "for read in (files.read_bytes, files.read_json, files.read_tensors):\n"
        "    try: read(sys.argv[1])\n"
        "    except FileAccessError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(pipe)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = f"cannot read {str(pipe)!r}: it is not a file, but a device or a pipe.\n"
    assert done.stdout == 3 * told


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs /dev/zero")
@pytest.mark.parametrize("read", READERS)
def test_a_device_without_end_is_refused(tmp_path, read):
    link = tmp_path / "link"
    for device in ("/dev/null", "/dev/zero"):
        link.symlink_to(device)
        refused(link, lambda: read(link), "cannot read", "device")
        link.unlink()


@pytest.mark.parametrize("read", READERS)
def test_a_file_that_is_too_large_is_not_read(tmp_path, read):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(10**11)  # a hole, which takes no room on the disk
    refused(path, lambda: read(path), "cannot read", "larger than", "MB")


def test_the_largest_file(path):
    assert files.read_bytes(path, len(OLD)) == OLD
    with pytest.raises(FileAccessError, match="larger than 0 MB"):
        files.read_bytes(path, len(OLD) - 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(value=json_values)
def test_json_comes_back(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.endswith("\n")


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), -float("inf"), {"loss": [float("nan")]}]
)
def test_json_has_no_nan(path, bad):
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(path, bad)
    assert_untouched(path)


def test_what_json_cannot_hold_leaves_the_old_file(path):
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert_untouched(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"hello", b"\xff\xfe\xfd", b"\x80", b"[" * 100_000, b"[1,]", b"1 2"]
)
def test_what_is_no_json_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="is not a JSON file") as caught:
        files.read_json(path)
    assert repr(str(path)) in str(caught.value)


def deep(levels):
    return b"[" * levels + b"1" + b"]" * levels


COSTLY = {
    "many containers": b"[" + b"[]," * files.MOST_CONTAINERS + b"0]",
    "many values": b"[" + b"0," * files.MOST_VALUES + b"0,0]",
    "long": b" " * (files.LONGEST_TEXT + 1) + b"0",
    "deep": deep(files.DEEPEST + 2),
    "deeper than Python goes": deep(900),
    "NaN": b'{"loss": NaN}',
    "infinity": b"[Infinity, -Infinity]",
    "infinity in digits": b"[1e999]",
    "infinity in many digits": b"[-" + b"9" * 400 + b".0]",
}


@pytest.mark.parametrize("content", COSTLY.values(), ids=COSTLY.keys())
def test_json_that_would_cost_much_or_has_no_value_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="is not a JSON file") as caught:
        files.read_json(path)
    assert len(str(caught.value)) < 500


def test_json_up_to_the_bounds_is_read(path):
    for content in (
        deep(files.DEEPEST),
        b"[" + b"[]," * (files.MOST_CONTAINERS - 1) + b"0]",
        b"[" + b"0," * files.MOST_VALUES + b"0]",
        b" " * (files.LONGEST_TEXT - 1) + b"0",
    ):
        path.write_bytes(content)
        files.read_json(path)


# ---- tensors --------------------------------------------------------------------------------

ARRAYS = {
    "conv1.W": np.arange(24, dtype=np.float32).reshape(2, 3, 4) - 7,
    "half": np.array([1.5, -0.25], np.float16),
    "double": np.array([[np.pi]]),
    "counts": np.array([1, -2, 2**40]),
    "bytes": np.arange(5, dtype=np.uint8),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
    "one number": np.array(3.5, np.float32),
    "not finite": np.array([np.nan, np.inf], np.float32),
    "transposed": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "every second": np.arange(10, dtype=np.int32)[::2],
    "backwards": np.arange(4, dtype=np.float64)[::-1],
    "big-endian": np.array([1, 2, 3], ">f4"),
    "Unicode é 数": np.ones(1, np.float32),
}
ABOUT = {"architecture": {"layers": [], "rate": 0.1}, "note": "é 数 \n \0", "": None}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_comes_back(path, name):
    expected = ARRAYS[name]
    files.write_tensors(path, {name: expected}, {})
    back, metadata = files.read_tensors(path)
    assert metadata == {}
    assert list(back) == [name]
    assert back[name].shape == expected.shape
    assert back[name].dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(back[name], expected)


def test_many_arrays_and_their_text_come_back(path):
    before = {name: array.copy() for name, array in ARRAYS.items()}
    files.write_tensors(str(path), ARRAYS, ABOUT)
    back, metadata = files.read_tensors(str(path))
    assert metadata == ABOUT
    assert set(back) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(back[name].ravel(), array.ravel())
        np.testing.assert_array_equal(array, before[name])
    assert os.listdir(path.parent) == [path.name]


def test_no_arrays_at_all(path):
    files.write_tensors(path, {}, {"a": "b"})
    assert files.read_tensors(path) == ({}, {"a": "b"})


def test_what_was_read_does_not_hang_on_the_file(path):
    files.write_tensors(path, {"W": ARRAYS["conv1.W"]}, {})
    back, _ = files.read_tensors(path)
    path.write_bytes(bytes(path.stat().st_size))
    path.unlink()
    back["W"] += 1  # and it may be changed, as parameters are
    np.testing.assert_array_equal(back["W"], ARRAYS["conv1.W"] + 1)


def _safetensors(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _tensor(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


def _zip():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.npy", b"x" * 100)
    return stream.getvalue()


DAMAGED = {
    "empty": b"",
    "short": b"\0\0\0",
    "text": b"This is a text file, and quite a long one for that.\n" * 10,
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "an archive": _zip(),
    "a pickle": b"\x80\x04\x95\x0b\0\0\0\0\0\0\0}\x94" + bytes(100),
    "noughts": bytes(100),
    "header longer than the file": _safetensors(_tensor(), bytes(8), length=10_000),
    "header shorter than itself": _safetensors(_tensor(), bytes(8), length=10),
    "header of length 0": _safetensors(_tensor(), bytes(8), length=0),
    "header longer than any": _safetensors(_tensor(), bytes(8), length=2**63),
    "header of the greatest length": _safetensors(_tensor(), bytes(8), length=2**64 - 1),
    "header no JSON": _safetensors(b"{not json at all}", bytes(8)),
    "header no UTF-8": _safetensors(b'{"\xff\xfe":1}', bytes(8)),
    "header a list": _safetensors([1, 2], bytes(8)),
    "data missing": _safetensors(_tensor(), b""),
    "data cut": _safetensors(_tensor(), bytes(7)),
    "data left over": _safetensors(_tensor(), bytes(9)),
    "shape that lies": _safetensors(_tensor(shape=(3,)), bytes(8)),
    "shape beyond all": _safetensors(_tensor(shape=(2**62, 2**62)), bytes(8)),
    "shape below nought": _safetensors(_tensor(shape=(-2,)), bytes(8)),
    "offsets swapped": _safetensors(_tensor(offsets=(8, 0)), bytes(8)),
    "offsets beyond": _safetensors(_tensor(offsets=(8, 16)), bytes(8)),
    "unknown dtype": _safetensors(_tensor(dtype="Q17"), bytes(8)),
    "metadata no text": _safetensors({"__metadata__": {"a": 1}} | _tensor(), bytes(8)),
    # Right files of other programs, of numbers that NumPy does not have.
    "bfloat16": _safetensors(_tensor(dtype="BF16", offsets=(0, 4)), bytes(4)),
    "float8": _safetensors(_tensor(dtype="F8_E4M3", offsets=(0, 2)), bytes(2)),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_or_foreign_file_is_named(path, content):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="is not a safetensors file") as caught:
        files.read_tensors(path)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_cut_anywhere_is_refused(path):
    files.write_tensors(path, {"W": ARRAYS["half"]}, {"a": "b"})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ModelFileError):
            files.read_tensors(path)


def many_arrays(count):
    none = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    return _safetensors({"__metadata__": {"xpdl": "{}"}} | {f"{i:06}": none for i in range(count)})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: _safetensors({"__metadata__": {"xpdl": "a" * 50 * 2**20}}), "more than 48 MB"),
        (lambda: many_arrays(files.MOST_TENSORS + 1), "20,001 arrays"),
        (lambda: many_arrays(files.MOST_CONTAINERS), "too many arrays"),
    ],
)
def test_a_header_that_would_cost_much_is_refused(path, content, words):
    path.write_bytes(content())
    with pytest.raises(ModelFileError, match=words):
        files.read_tensors(path)


def test_as_many_arrays_as_can_be(path):
    path.write_bytes(many_arrays(files.MOST_TENSORS))
    assert len(files.read_tensors(path)[0]) == files.MOST_TENSORS


def test_a_text_that_would_cost_much_is_refused(path):
    from safetensors.numpy import save_file

    for text in (COSTLY["many containers"], COSTLY["deeper than Python goes"], COSTLY["NaN"]):
        save_file({}, path, metadata={"xpdl": f'{{"about": {text.decode()}}}'})
        with pytest.raises(ModelFileError, match="is damaged"):
            files.read_tensors(path)


def test_what_a_file_holds_is_looked_at_before_its_arrays_are_read(path):
    head = _safetensors(
        {"__metadata__": {"xpdl": '{"a": 1}'}, "x": {
            "dtype": "F32", "shape": [2**34 // 8], "data_offsets": [0, 2**33]}}
    )  # fmt: skip
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(len(head) + 2**33)  # 8 GB of noughts, which take no room on the disk
    asked = []

    def check(shapes, about):
        asked.append((shapes, about))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.read_tensors(path, check)
    assert asked == [({"x": (2**31,)}, {"a": 1})]


@given(noise=st.binary(max_size=60))
def test_noise_is_refused(tmp_path_factory, noise):
    path = tmp_path_factory.getbasetemp() / "noise"
    for content in (noise, struct.pack("<Q", len(noise)) + noise):
        path.write_bytes(content)
        with pytest.raises(ModelFileError):
            files.read_tensors(path)


def test_a_right_file_of_another_program_is_told_from_ours(path):
    from safetensors.numpy import save_file

    for metadata in (None, {"format": "np"}):
        save_file({"theirs": ARRAYS["conv1.W"]}, path, metadata=metadata)
        with pytest.raises(ModelFileError, match=r"of another program.*'xpdl'") as caught:
            files.read_tensors(path)
        assert repr(str(path)) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_what_it_says_of_itself_must_be_readable(path, text):
    from safetensors.numpy import save_file

    save_file({}, path, metadata={"xpdl": text})
    with pytest.raises(ModelFileError, match="is damaged"):
        files.read_tensors(path)


def test_the_same_content_is_the_same_file_byte_for_byte(path):
    contents = set()
    for _ in range(5):
        files.write_tensors(path, ARRAYS, ABOUT)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_nan_about_a_file_is_refused(path):
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_tensors(path, {}, {"loss": float("nan")})
    assert_untouched(path)


def test_ours_is_a_right_file_for_other_programs(path):
    from safetensors.numpy import load

    files.write_tensors(path, {"W": ARRAYS["transposed"]}, ABOUT)
    np.testing.assert_array_equal(load(path.read_bytes())["W"], ARRAYS["transposed"], strict=True)


def test_a_failed_save_leaves_the_old_file(path):
    with pytest.raises(Exception, match=r"."):
        files.write_tensors(path, {"W": np.array(["text"])}, {})
    assert_untouched(path)


def test_a_path_with_a_nul_is_refused(tmp_path):
    for path in (tmp_path / "a\0b", tmp_path / "a\0b" / "c"):
        with pytest.raises(FileAccessError, match="holds a NUL"):
            files.write_json(path, {})


# ---- damage ---------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_said(path, rng):
    arrays = {"a": rng.random((20, 30), np.float32), "none": np.zeros((0, 3)), "n": np.arange(5)}
    about = {
        "format": "of the test",
        "losses": [0.1, 1e-30, 2],
        "name": "é\U0001f600",
        "deep": {"a": [None, True]},
    }
    files.write_tensors(path, arrays, about)
    assert files.read_tensors(path)[1] == about
    whole = path.read_bytes()
    for place in [*rng.integers(8, len(whole), 60), len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read, told = files.read_tensors(path)
        except ModelFileError:
            continue
        # A blank of the header became another one.
        assert told == about
        assert all((read[name] == arrays[name]).all() for name in arrays)


def test_a_file_of_before_there_was_a_digest_is_read(path):
    from safetensors.numpy import save

    path.write_bytes(save({"a": np.arange(3)}, metadata={"xpdl": json.dumps({"format": "old"})}))
    arrays, about = files.read_tensors(path)
    assert about == {"format": "old"}
    np.testing.assert_array_equal(arrays["a"], np.arange(3))
