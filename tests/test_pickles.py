"""Pickles are read as data: what NumPy wrote comes back, and nothing else is looked at or run."""

from __future__ import annotations

import copyreg
import io
import pickle
import struct
import time
import tracemalloc
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xpdl import pickles
from xpdl.errors import FileAccessError, ModelFileError
from xpdl.pickles import read_arrays

PROTOCOLS = range(6)

# Real files: {"W1": np.arange(6, dtype="f4").reshape(2, 3) / 4 - 1,
#              "b1": np.arange(3, dtype=">f8") * 200}, by pickle.dumps of other versions.
WRITTEN = {
    "NumPy 1.11.3, protocol 0": (
        b"(dp0\nVW1\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(L0L\ntp4\n"
        b"c_codecs\nencode\np5\n(Vb\np6\nVlatin1\np7\ntp8\nRp9\ntp10\nRp11\n(L1L\n(L2L\nL3L\ntp12\n"
        b"cnumpy\ndtype\np13\n(Vf4\np14\nL0L\nL1L\ntp15\nRp16\n(L3L\nV<\np17\nNNNL-1L\nL-1L\nL0L\n"
        b"tp18\nbI00\ng5\n(V\x00\x00\x80\xbf\x00\x00@\xbf\x00\x00\x00\xbf\x00\x00\x80\xbe\x00\x00"
        b"\x00\x00\x00\x00\x80>\np19\ng7\ntp20\nRp21\ntp22\nbsVb1\np23\ng2\n(g3\n(L0L\ntp24\ng9\n"
        b"tp25\nRp26\n(L1L\n(L3L\ntp27\ng13\n(Vf8\np28\nL0L\nL1L\ntp29\nRp30\n(L3L\ng17\nNNNL-1L\n"
        b"L-1L\nL0L\ntp31\nbI00\ng5\n(V\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00i@"
        b"\x00\x00\x00\x00\x00\x00y@\np32\ng7\ntp33\nRp34\ntp35\nbs."
    ),
    "NumPy 1.11.3, protocol 2": (
        b"\x80\x02}q\x00(X\x02\x00\x00\x00W1q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\n"
        b"ndarray\nq\x03K\x00\x85q\x04c_codecs\nencode\nq\x05X\x01\x00\x00\x00bq\x06X\x06\x00\x00"
        b"\x00latin1q\x07\x86q\x08Rq\t\x87q\nRq\x0b(K\x01K\x02K\x03\x86q\x0ccnumpy\ndtype\nq\rX\x02"
        b"\x00\x00\x00f4q\x0eK\x00K\x01\x87q\x0fRq\x10(K\x03X\x01\x00\x00\x00<q\x11NNNJ\xff\xff\xff"
        b"\xffJ\xff\xff\xff\xffK\x00tq\x12b\x89h\x05X\x1f\x00\x00\x00\x00\x00\xc2\x80\xc2\xbf\x00"
        b"\x00@\xc2\xbf\x00\x00\x00\xc2\xbf\x00\x00\xc2\x80\xc2\xbe\x00\x00\x00\x00\x00\x00\xc2\x80"
        b">q\x13h\x07\x86q\x14Rq\x15tq\x16bX\x02\x00\x00\x00b1q\x17h\x02h\x03K\x00\x85q\x18h\t\x87q"
        b"\x19Rq\x1a(K\x01K\x03\x85q\x1bh\rX\x02\x00\x00\x00f8q\x1cK\x00K\x01\x87q\x1dRq\x1e(K\x03h"
        b"\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x1fb\x89h\x05X\x18\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00i@\x00\x00\x00\x00\x00\x00y@q h\x07\x86q!"
        b'Rq"tq#bu.'
    ),
    "NumPy 1.11.3, protocol 3": (
        b"\x80\x03}q\x00(X\x02\x00\x00\x00W1q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\n"
        b"ndarray\nq\x03K\x00\x85q\x04C\x01bq\x05\x87q\x06Rq\x07(K\x01K\x02K\x03\x86q\x08cnumpy\n"
        b"dtype\nq\tX\x02\x00\x00\x00f4q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03X\x01\x00\x00\x00<q\rNNNJ"
        b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0eb\x89C\x18\x00\x00\x80\xbf\x00\x00@\xbf\x00"
        b"\x00\x00\xbf\x00\x00\x80\xbe\x00\x00\x00\x00\x00\x00\x80>q\x0ftq\x10bX\x02\x00\x00\x00b1"
        b"q\x11h\x02h\x03K\x00\x85q\x12h\x05\x87q\x13Rq\x14(K\x01K\x03\x85q\x15h\tX\x02\x00\x00\x00"
        b"f8q\x16K\x00K\x01\x87q\x17Rq\x18(K\x03h\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x19"
        b"b\x89C\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00i@\x00\x00\x00\x00\x00"
        b"\x00y@q\x1atq\x1bbu."
    ),
    "NumPy 1.26.4, protocol 4": (
        b"\x80\x04\x95\x08\x01\x00\x00\x00\x00\x00\x00}\x94(\x8c\x02W1\x94\x8c\x15numpy.core."
        b"multiarray\x94\x8c\x0c_reconstruct\x94\x93\x94\x8c\x05numpy\x94\x8c\x07ndarray\x94\x93\x94"
        b"K\x00\x85\x94C\x01b\x94\x87\x94R\x94(K\x01K\x02K\x03\x86\x94h\x05\x8c\x05dtype\x94\x93\x94"
        b"\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ\xff\xff\xff\xffJ\xff\xff\xff"
        b"\xffK\x00t\x94b\x89C\x18\x00\x00\x80\xbf\x00\x00@\xbf\x00\x00\x00\xbf\x00\x00\x80\xbe\x00"
        b"\x00\x00\x00\x00\x00\x80>\x94t\x94b\x8c\x02b1\x94h\x04h\x07K\x00\x85\x94h\t\x87\x94R\x94("
        b"K\x01K\x03\x85\x94h\x0e\x8c\x02f8\x94\x89\x88\x87\x94R\x94(K\x03h\x12NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00t\x94b\x89C\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        b"\x00i@\x00\x00\x00\x00\x00\x00y@\x94t\x94bu."
    ),
    "NumPy 1.19.5, protocol 5": (
        b"\x80\x05\x95\xee\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x02W1\x94\x8c\x12numpy.core.numeric"
        b"\x94\x8c\x0b_frombuffer\x94\x93\x94(\x96\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80\xbf"
        b"\x00\x00@\xbf\x00\x00\x00\xbf\x00\x00\x80\xbe\x00\x00\x00\x00\x00\x00\x80>\x94\x8c\x05nump"
        b"y\x94\x8c\x05dtype\x94\x93\x94\x8c\x02f4\x94\x89\x88\x87\x94R\x94(K\x03\x8c\x01<\x94NNNJ"
        b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x02K\x03\x86\x94\x8c\x01C\x94t\x94R\x94\x8c"
        b"\x02b1\x94h\x04(\x96\x18\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x00\x00i@\x00\x00\x00\x00\x00\x00y@\x94h\x08\x8c\x02f8\x94\x89\x88\x87\x94R"
        b"\x94(K\x03h\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t\x94bK\x03\x85\x94h\x0ft\x94R"
        b"\x94u."
    ),
}


@pytest.fixture
def read(tmp_path):
    """Read a pickle given as bytes."""

    def read_bytes(content):
        path = tmp_path / "params.pkl"
        path.write_bytes(content)
        return read_arrays(path)

    return read_bytes


@contextmanager
def within(seconds=1.0, megabytes=1.0):
    """See that a block takes no longer and no more memory, as Python and NumPy count it."""
    tracemalloc.start()
    start = time.thread_time()
    try:
        yield
        took, peak = time.thread_time() - start, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert took < seconds
    assert peak < megabytes * 2**20


# ---- what NumPy writes ------------------------------------------------------------------------


@pytest.mark.parametrize("version", WRITTEN)
def test_files_of_other_versions(version, read):
    arrays = read(WRITTEN[version])
    assert list(arrays) == ["W1", "b1"]
    W, b = arrays.values()
    assert (W.dtype, b.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(W, [[-1, -0.75, -0.5], [-0.25, 0, 0.25]])
    np.testing.assert_array_equal(b, [0, 200, 400])


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["f2", ">f2", "f4", ">f4", "f8", ">f8", "i1", ">i4", "u8", "?"])
def test_arrays_of_any_order_come_back(protocol, dtype, read, rng):
    # Bytes of all values, line ends among them, which protocol 0 has to write as text.
    numbers = np.frombuffer(rng.bytes(480), "?" if dtype == "?" else "u1")
    numbers = numbers.astype("?") if dtype == "?" else numbers.view(dtype)
    numbers = numbers[:60].reshape(3, 4, 5)
    wanted = {
        "C": numbers,
        "Fortran": np.asfortranarray(numbers),
        "other axes first": numbers.transpose(1, 2, 0),
        "axes swapped": numbers.transpose(0, 2, 1),
        "backwards": numbers[::-1, :, ::2],
        "one": numbers[0, 0, :1],
        "none": numbers[:0],
        "no axes": np.array(numbers[0, 0, 0]),
        "scalar": numbers[0, 0, 0],
        "É": numbers,
    }
    arrays = read(pickle.dumps(wanted, protocol))
    assert list(arrays) == list(wanted)
    for name, array in arrays.items():
        assert array.dtype == np.dtype(dtype).newbyteorder("=")
        assert array.flags.writeable
        np.testing.assert_array_equal(array, wanted[name])  # NaN counts as equal to itself
    assert arrays["É"] is arrays["C"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_large_file_of_many_arrays(protocol, read, rng):
    wanted = {f"W{i}": rng.standard_normal((100, i)).astype("f4") for i in range(1, 200)}
    with within(seconds=5, megabytes=100):
        arrays = read(pickle.dumps(wanted, protocol))
    assert arrays.keys() == wanted.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, wanted[name])


def test_no_arrays_are_no_error(read):
    assert read(pickle.dumps({})) == {}


def test_other_pickler_and_a_shorter_way_to_write_the_same(read):
    import pickletools

    stream = io.BytesIO()
    pickle._Pickler(stream, 4).dump({"a": np.arange(3.0)})
    np.testing.assert_array_equal(read(stream.getvalue())["a"], [0, 1, 2])
    np.testing.assert_array_equal(read(pickletools.optimize(stream.getvalue()))["a"], [0, 1, 2])


# ---- attacks that Python's own unpickler falls for ----------------------------------------------

CALLS: list[object] = []


def fall(*arguments):
    CALLS.append(arguments)
    return {}


class Trap:
    """Whatever way an object of it is made or changed, it is noticed."""

    def __new__(cls, *arguments, **options):
        CALLS.append(arguments)
        return super().__new__(cls)

    def __setstate__(self, state):
        CALLS.append(state)


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


HERE = __name__
FALL, TRAP = (f"c{HERE}\n{name}\n".encode() for name in ("fall", "Trap"))
ASKED = {"fall": f"'{HERE}.fall'", "Trap": f"'{HERE}.Trap'"}
ARRAY = pickle.dumps(np.arange(2.0), 2)[2:-1]  # without its head and its STOP

ATTACKS = {
    "GLOBAL, REDUCE": (b"\x80\x02" + FALL + b"(K\x01tR.", ASKED["fall"]),
    "no protocol": (FALL + b"(tR.", ASKED["fall"]),
    "STACK_GLOBAL": (b"\x80\x04" + text(HERE) + text("fall") + b"\x93)R.", ASKED["fall"]),
    "its name from the memo": (
        b"\x80\x04" + text("fall") + b"\x94" + text(HERE) + b"h\x00\x93)R.", ASKED["fall"],
    ),
    "its name put away": (
        b"\x80\x04" + text("fall") + b"q\x000" + text(HERE) + b"h\x00\x93)R.", "instruction POP",
    ),
    "its name said to be an array's": (
        b"\x80\x04" + text("numpy") + b"\x94" + FALL + b"r\x00\x00\x00\x00h\x00)R.", ASKED["fall"],
    ),
    "a dotted name": (
        b"\x80\x04" + text("numpy") + text("os.system") + b"\x93" + text("true") + b"\x85R.",
        "'numpy.os.system'",
    ),
    "INST": (f"(i{HERE}\nfall\n.".encode(), "instruction INST"),
    "OBJ": (b"(" + FALL + b"K\x01o.", ASKED["fall"]),
    "NEWOBJ": (b"\x80\x02" + TRAP + b")\x81.", ASKED["Trap"]),
    "NEWOBJ_EX": (b"\x80\x04" + TRAP + b")}\x92.", ASKED["Trap"]),
    "BUILD": (b"\x80\x02" + TRAP + b")\x81K\x01b.", ASKED["Trap"]),
    "among good arrays": (
        b"\x80\x02}(X\x01\x00\x00\x00a" + ARRAY + b"X\x01\x00\x00\x00b" + FALL + b")Ru.",
        ASKED["fall"],
    ),
    "after the end of a good dict": (
        pickle.dumps({"a": np.arange(2.0)}, 2)[:-1] + FALL + b")R.", ASKED["fall"],
    ),
    "extension registry": (b"\x80\x02\x82\xf0)R.", "instruction EXT1"),
    "extension registry, 2 bytes": (b"\x80\x02\x83\xf0\x00)R.", "instruction EXT2"),
    "extension registry, 4 bytes": (b"\x80\x02\x84\xf0\x00\x00\x00)R.", "instruction EXT4"),
}  # fmt: skip


@pytest.fixture
def _extension():
    copyreg.add_extension(HERE, "fall", 0xF0)
    yield
    copyreg.remove_extension(HERE, "fall", 0xF0)
    copyreg._extension_cache.pop(0xF0, None)


@pytest.mark.usefixtures("_extension")
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_run(attack, read):
    content, words = ATTACKS[attack]
    CALLS.clear()
    if attack != "a dotted name":
        pickle.loads(content)
        assert CALLS, "this is no attack"
    CALLS.clear()
    with pytest.raises(ModelFileError, match="Nothing of it was run") as caught:
        read(content)
    assert not CALLS
    assert "params.pkl" in str(caught.value)
    assert words in str(caught.value)


class Command:
    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_it_asks_for_is_said(protocol, read, tmp_path):
    import os

    target = tmp_path / "made"
    for function, name in ((os.mkdir, f"'{os.mkdir.__module__}.mkdir'"), (eval, "eval'")):
        attack = Command(function, str(target))
        with pytest.raises(ModelFileError) as caught:
            read(pickle.dumps({"W1": np.ones(2), "W2": attack}, protocol))
        assert "it asks for" in str(caught.value)
        assert name in str(caught.value)
        assert "a dict of NumPy arrays" in str(caught.value)
    assert not target.exists()


def test_the_unpicklers_own_names_are_not_enough(read):
    # What NumPy itself would make of its own functions when they are given something else.
    for called in (b"cnumpy\nndarray\n", b"cnumpy\ndtype\n", b"cnumpy._core.multiarray\nscalar\n",
                   b"c_codecs\nencode\n", b"c__builtin__\nbytes\n"):  # fmt: skip
        with pytest.raises(ModelFileError, match="as NumPy does not"):
            read(b"\x80\x02" + called + b"J\xff\xff\xff\x7f\x85R.")
    with pytest.raises(ModelFileError, match="as NumPy does not"):
        read(b"\x80\x04" + b"c_codecs\nencode\n" + text("x") + text("zip") + b"\x86R.")
    with pytest.raises(ModelFileError, match=r"numpy\.f2py"):
        read(b"cnumpy.f2py.diagnose\nrun_command\n.")


# ---- other things than arrays -----------------------------------------------------------------

DTYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00%b\x89\x88\x87R"
BYTE_ORDER = b"(K\x03X\x01\x00\x00\x00%bNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
EMPTY = b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"


def file_of(*, shape=b"K\x02\x85", code=b"f8", order=b"<", flag=b"\x89", data=bytes(16), more=b""):
    """Return a file of one array; an array like this is fine, but for what is given."""
    length = struct.pack("<I", len(data))
    state = b"(K\x01" + shape + DTYPE % code + BYTE_ORDER % order + flag + b"B" + length + data
    return b"\x80\x03}X\x01\x00\x00\x00a" + EMPTY + state + b"tb" + more + b"s."


def number(value):
    """Return the instruction for an int of any size."""
    return pickle.dumps(value, 2)[2:-1]


OTHERS = {
    "an array": (pickle.dumps(np.arange(2.0)), "an array, not one dict"),
    "a list": (pickle.dumps([np.arange(2.0)]), "instruction EMPTY_LIST"),
    "a set": (pickle.dumps({1}), "instruction EMPTY_SET"),
    "None": (pickle.dumps(None), "None, not one dict"),
    "True": (pickle.dumps(True), "a bool, not"),
    "a str": (pickle.dumps("a"), "a str, not"),
    "a dict of dicts": (pickle.dumps({"a": {}}), "'a' is a dict, not an array"),
    "a dict of floats": (pickle.dumps({"a": 1.5}), "instruction BINFLOAT"),
    "a dict of ints": (pickle.dumps({"a": 1}), "'a' is an int, not an array"),
    "a dtype": (pickle.dumps({"a": np.dtype("f8")}), "'a' is a dtype, not an array"),
    "numbered arrays": (pickle.dumps({1: np.arange(2.0)}), "names an array by an int"),
    "a long name": (pickle.dumps({"a" * 1000: np.arange(2.0)}), "at most 100 characters"),
    "a name that is a tuple": (b"\x80\x02}\x29Ns.", "names an array by a tuple"),
    "objects": (pickle.dumps({"a": np.array([None])}), "elements are 'O8'"),
    "a structure": (pickle.dumps({"a": np.zeros(2, "f4,f4")}), "elements are 'V8'"),
    "complex numbers": (pickle.dumps({"a": np.zeros(2, "c16")}), "elements are 'c16'"),
    "text": (pickle.dumps({"a": np.array(["b"])}), "elements are 'U1'"),
    "dates": (pickle.dumps({"a": np.zeros(2, "M8[s]")}), "elements are 'M8'"),
    "a subclass": (pickle.dumps({"a": np.ma.ones(2)}), "numpy.ma"),
    "an ordered dict": (pickle.dumps(__import__("collections").OrderedDict()), "OrderedDict"),
    "a persistent id": (b"Pname\n.", "instruction PERSID"),
    "a persistent id on the stack": (b"\x80\x02NQ.", "instruction BINPERSID"),
    "a buffer elsewhere": (b"\x80\x05\x97.", "instruction NEXT_BUFFER"),
    "a buffer made read-only": (b"\x80\x05\x96" + bytes(8) + b"\x98.", "READONLY_BUFFER"),
    "a text of Python 2": (b"U\x01a.", "instruction SHORT_BINSTRING"),
    "a list that holds itself": (b"\x80\x02]q\x00h\x00a.", "instruction EMPTY_LIST"),
    "a dict that holds itself": (b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "'a' is a dict"),
    "a dict with attributes": (b"\x80\x02}}b.", "changes a dict"),
    "an array with attributes": (b"\x80\x02" + EMPTY + b"}b.", "changes an array"),
    "an array with two states": (b"\x80\x02" + EMPTY + b"N}\x86b.", "changes an array"),
    "a dtype with fields": (
        b"\x80\x02" + DTYPE % b"f8" + b"(K\x03X\x01\x00\x00\x00|NN}K\x08K\x01K\x00tb.",
        "changes a dtype",
    ),
    "a function with attributes": (b"\x80\x02cnumpy\nndarray\n}b.", "changes numpy's ndarray"),
    "a str called": (b"\x80\x02X\x01\x00\x00\x00a)R.", "calls a str"),
    "an array called": (b"\x80\x02" + EMPTY + b")R.", "calls an array"),
    "two pickles": (2 * pickle.dumps({}), "goes on after its end"),
    "a byte after its end": (pickle.dumps({}) + b"\n", "goes on after its end"),
    "a later protocol": (b"\x80\x06}.", "protocol 6"),
    "objects within": (file_of(code=b"O8", order=b"|"), "'O8'"),
    "a void": (file_of(code=b"V8", order=b"|"), "'V8'"),
    "its own byte order": (file_of(order=b"="), "byte order '='"),
    "no byte order": (file_of(order=b"|"), "byte order '|'"),
    "the byte order of bytes": (file_of(code=b"i1", data=bytes(2)), "byte order '<'"),
    "too few bytes": (file_of(data=bytes(15)), "15 bytes for an array"),
    "too many bytes": (file_of(data=bytes(17)), "17 bytes for an array"),
    "an enormous shape": (file_of(shape=number(10**12) + b"\x85"), r"(1000000000000,)"),
    "a shape that overflows": (file_of(shape=number(2**61) + 2 * number(2**2) + b"\x87"), "shape"),
    "a shape that wraps to the size": (file_of(shape=number(2**61 + 2) + b"\x85"), "shape"),
    "an int of more than 64 bits": (file_of(shape=number(2**64 + 2) + b"\x85"), "64 bits"),
    "a negative shape": (file_of(shape=number(-2) + b"\x85"), "whole numbers"),
    "two negative sizes": (file_of(shape=number(-1) + number(-2) + b"\x86"), "whole numbers"),
    "a bool in the shape": (file_of(shape=b"\x88K\x02\x86"), "whole numbers"),
    "a str in the shape": (file_of(shape=b"X\x01\x00\x00\x002\x85"), "whole numbers"),
    "no shape": (file_of(shape=b"K\x02"), "changes an array"),
    "a deep shape": (file_of(shape=b"K\x02\x85\x85"), "too long or too deep"),
    "65 axes": (file_of(shape=b"(" + b"K\x01" * 63 + b"K\x01K\x02t"), "too long"),
    "axes that are none": (b"\x80\x05}" + text("a") + b"cnumpy._core.numeric\n_frombuffer\n(C\x02ab"
                           + DTYPE % b"i1" + BYTE_ORDER % b"|" + b"K\x01K\x02\x86" + text("K")
                           + number(-1) + b"K\x00\x86tRs.", "order of axes"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_anything_but_arrays_is_refused(case, read):
    content, words = OTHERS[case]
    with within(), pytest.raises(ModelFileError, match=r"params\.pkl' is refused: ") as caught:
        read(content)
    assert words in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_array_like_those_refused_is_fine(read):
    np.testing.assert_array_equal(read(file_of())["a"], [0, 0])


# ---- damage, and files that are made to cost much ---------------------------------------------


def many(count, unit):
    return b"\x80\x04" + unit * count


LARGEST = 2**32 - 1
COSTLY = {
    "nothing": b"",
    "one byte": b"\x80",
    "text": b"I am a model, believe me, I am one",
    "only the end": b".",
    "no end": b"\x80\x04}",
    "a mark left over": b"\x80\x02(}.",
    "a value left over": b"\x80\x02}}.",
    "nothing on the stack": b"\x80\x02\x86.",
    "below a mark": b"\x80\x02}}(\x86.",
    "an item put across a mark": b"\x80\x03}(X\x01\x00\x00\x00a" + ARRAY + b"su.",
    "no mark": b"\x80\x02}u.",
    "an odd number of items": b"\x80\x02}(X\x01\x00\x00\x00au.",
    "names for no dict": b"\x80\x02NX\x01\x00\x00\x00aNs.",
    "a memo that is empty": b"\x80\x02h\x07.",
    "a global without a name": b"\x80\x04\x93.",
    "a global named by numbers": b"\x80\x04K\x01K\x02\x93.",
    "an array without numbers": b"\x80\x03}X\x01\x00\x00\x00a" + EMPTY + b"s.",
    "a dtype without a byte order": file_of().replace(BYTE_ORDER % b"<", b""),
    "axes twice": (
        b"\x80\x05}" + text("a") + b"cnumpy._core.numeric\n_frombuffer\n(C\x02ab" + DTYPE % b"i1"
        + BYTE_ORDER % b"|" + b"K\x01K\x02\x86" + text("K") + b"K\x00K\x00\x86tRs."
    ),
    "bytes said to be 4 GB": b"\x80\x03B" + struct.pack("<I", LARGEST) + b"a.",
    "bytes said to be 8 EB": b"\x80\x04\x8e" + struct.pack("<Q", 2**63 - 1) + b"a.",
    "a buffer said to be 8 EB": b"\x80\x05\x96" + struct.pack("<Q", 2**63 - 1) + b"a.",
    "text said to be 16 EB": b"\x80\x04\x8d" + struct.pack("<Q", 2**64 - 1) + b"a.",
    "an int said to be 2 GB": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"a.",
    "an int of a negative length": b"\x80\x02\x8b" + struct.pack("<i", -1) + b"a.",
    "text that is no UTF-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "text that is not Latin-1": (
        b"\x80\x02c_codecs\nencode\nX\x03\x00\x00\x00\xe2\x82\xacX\x06\x00\x00\x00latin1\x86R."
    ),
    "an int of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
    "a float that is none": b"F" + b"x" * 100_000 + b"\n.",
    "a string without its quotes": b"S" + b"x" * 100_000 + b"\n.",
    "a name without its end": b"c" + b"x" * 100_000,
    "a long name": b"c" + b"x" * 100_000 + b"\n" + b"y" * 100_000 + b"\n.",
    "a memo of 4 billion": b"\x80\x02}r" + struct.pack("<I", LARGEST) + b".",
    "a memo of 4 billion, in digits": b"\x80\x02}p4294967295\n.",
    "a memo of 10 ** 4000": b"\x80\x02}p1" + b"0" * 4000 + b"\n.",
    "a memo below zero": b"\x80\x02}p-1\n.",
    "200,000 marks": many(200_000, b"("),
    "200,000 values": many(200_000, b"N"),
    "tuples 90,000 deep": many(1, b")") + b"\x85" * 90_000 + b".",
    "tuples 90,000 deep as a name": many(1, b"})") + b"\x85" * 90_000 + b"Ns.",
    "dicts 90,000 deep": many(30_000, b"}X\x01\x00\x00\x00a") + b"s" * 30_000 + b".",
    "a tuple of 90,000": many(1, b"(") + b"N" * 90_000 + b"t.",
    # 2 ** 64 tuples in 200 bytes, which Python's own unpickler would all hash
    "doubled tuples as a name": b"\x80\x04})" + b"\x94".join(
        b"h" + bytes([i]) + b"\x86" for i in range(64)) + b"Ns.",
    "doubled by DUP": b"\x80\x04})" + b"2\x86" * 64 + b"Ns.",
    "long tuples in tuples": b"\x80\x04(" + b"N" * 60 + b"tq\x01" + b"\x85" * 90_000 + b".",
    "no numbers in an enormous shape": file_of(
        shape=b"(K\x00" + 3 * number(2**62) + b"t", data=b""
    ),
    "more axes than NumPy has, and none": file_of(shape=b"(" + b"K\x00" * 65 + b"t", data=b""),
}  # fmt: skip


@pytest.mark.parametrize("case", COSTLY)
def test_damaged_and_costly_files_end_quickly(case, read):
    with within(megabytes=40), pytest.raises(ModelFileError, match=r"params\.pkl' is ") as caught:
        read(COSTLY[case])
    assert len(str(caught.value)) < 500


def test_the_number_of_instructions_is_bounded(read):
    assert read(b"}" + b"q\x00" * 99_998 + b".") == {}
    with pytest.raises(ModelFileError, match="more than 100,000 instructions"):
        read(b"}" + b"q\x00" * 99_999 + b".")


def test_the_same_bytes_are_no_thousand_arrays(read):
    # 20 kB of numbers, once in the file, for 2,000 arrays of them: 40 MB.
    data = b"B" + struct.pack("<I", 20_000) + bytes(20_000) + b"q\x01"
    head = b"\x80\x03" + DTYPE % b"f8" + BYTE_ORDER % b">" + b"q\x00" + data
    scalar = b"cnumpy.core.numeric\n_frombuffer\n(h\x01h\x00M\xc4\x09\x85X\x01\x00\x00\x00CtR"
    items = b"".join(b"X\x04\x00\x00\x00%04d" % i + scalar for i in range(2000))
    content = head.replace(b"q\x01", b"q\x02") + b"}(" + items.replace(b"h\x01", b"h\x02") + b"u."
    with within(), pytest.raises(ModelFileError, match="more than one array"):
        read(content)


def test_the_same_text_is_not_encoded_a_thousand_times(read):
    data = b"X" + struct.pack("<I", 20_000) + b"a" * 20_000 + b"q\x00"
    encode = b"c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
    with within(), pytest.raises(ModelFileError, match="more than one array"):
        read(b"\x80\x02" + data + encode * 2000 + b".")


@pytest.mark.parametrize("length", [0, 1, 2**63, 2**64 - 1])
def test_frames_are_not_believed(length, read):
    content = bytearray(pickle.dumps({"a": np.arange(2.0)}, 4))
    assert content[2] == 0x95
    content[3:11] = struct.pack("<Q", length)
    np.testing.assert_array_equal(read(bytes(content))["a"], [0, 1])


def test_a_file_that_is_too_large(read, monkeypatch):
    content = pickle.dumps({"a": np.zeros(1000)})
    assert read(content)
    monkeypatch.setattr(pickles, "LARGEST_FILE", len(content))
    assert read(content)
    monkeypatch.setattr(pickles, "LARGEST_FILE", len(content) - 1)
    with pytest.raises(FileAccessError, match="larger than 0 MB"):
        read(content)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "params.pkl"
    with open(path, "wb") as file:
        file.truncate(pickles.LARGEST_FILE + 1)  # a hole, which takes no room on the disk
    with within(), pytest.raises(FileAccessError, match="larger than 128 MB"):
        read_arrays(path)


def test_no_file(tmp_path):
    for path in (tmp_path / "nothing-here", tmp_path, str(tmp_path / "a\0b")):
        with pytest.raises(FileAccessError, match="cannot read"):
            read_arrays(path)


# ---- mutations -----------------------------------------------------------------------------------


def same(mine, theirs):
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A file that is open for writing, since to make a new one each time is slow."""
    path = tmp_path_factory.mktemp("damaged") / "params.pkl"
    with open(path, "wb", buffering=0) as stream:
        yield stream


def try_out(scratch, content):
    """Read a damaged file; what is still read must be what Python and NumPy make of it."""
    scratch.seek(0)
    scratch.write(content)
    scratch.truncate()
    try:
        with within():
            mine = read_arrays(scratch.name)
    except ModelFileError:
        return False
    assert sum(array.nbytes for array in mine.values()) <= len(content)
    assert {array.dtype.kind for array in mine.values()} <= set("biuf")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy.core is NumPy 1's name
        try:
            theirs = pickle.loads(content)
        except (pickle.UnpicklingError, EOFError, OverflowError):
            assert b"\x95" in content  # it believes in frames
            return True
    same(mine, theirs)
    return True


@pytest.mark.parametrize("version", WRITTEN)
def test_each_byte_changed_and_each_end_cut(version, scratch):
    content = WRITTEN[version]
    assert try_out(scratch, content)
    for length in range(len(content)):
        assert not try_out(scratch, content[:length])
    read = 0
    for i, byte in enumerate(content):
        for other in (byte ^ 1 << i % 8, (byte + 3) % 256):
            read += try_out(scratch, content[:i] + bytes([other]) + content[i + 1 :])
    assert read  # changed numbers are numbers still


INSTRUCTIONS = b"()]}.0123abcdeghijloqrstuIFLNKJMBCTUVXPQRG\x80\x81\x85\x86\x87\x88\x8c\x93\x94\x95"
EDIT = st.tuples(
    st.sampled_from(["put", "set", "cut", "copy"]),
    st.integers(0, 600),
    st.integers(0, 40),
    st.sampled_from(INSTRUCTIONS) | st.integers(0, 255),
)


@settings(max_examples=500)
@given(version=st.sampled_from(sorted(WRITTEN)), edits=st.lists(EDIT, min_size=1, max_size=4))
def test_any_damage_ends_in_the_right_error(version, edits, scratch):
    content = WRITTEN[version]
    for edit, start, length, byte in edits:
        head, part, tail = content[:start], content[start : start + length], content[start:]
        content = {
            "put": head + bytes([byte]) + tail,
            "set": head + bytes([byte]) + tail[1:],
            "cut": head + tail[length:],
            "copy": head + part + tail,
        }[edit]
    try_out(scratch, content)
