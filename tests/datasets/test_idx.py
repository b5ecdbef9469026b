"""The IDX format: what is written is read back, and nothing that lies is believed."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from xpdl.datasets import decode_idx, encode_idx
from xpdl.errors import DataFileError, DTypeError, ShapeError


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5)))
def test_what_is_written_is_read_back(array):
    content = encode_idx(array)
    back = decode_idx(content, "a", array.ndim)
    assert back.dtype == np.uint8
    assert back.shape == array.shape
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


def test_the_bytes_are_those_of_the_format():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert encode_idx(array) == b"\0\0\x08\x02" + struct.pack(">II", 2, 3) + bytes(range(6))


def test_memory_order_does_not_matter():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert encode_idx(np.asfortranarray(array)) == encode_idx(array)


@given(st.binary(max_size=40), st.integers(1, 4))
def test_arbitrary_bytes_are_read_or_refused(content, dimensions):
    try:
        array = decode_idx(content, "noise", dimensions)
    except DataFileError:
        return
    assert encode_idx(array) == content


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "(none)"),
        (b"\0\0\x08", "00 00 08"),
        (b"\0\0\x0d\x01\0\0\0\0", "00 00 0d 01"),
        (b"\0\0\x08\x03" + bytes(12), "00 00 08 03"),
        (b"\x1f\x8b\x08\x01\0\0\0\0", "1f 8b"),
        (b"\0\0\x08\x01\0\0", "truncated"),
        (b"\0\0\x08\x01\0\0\0\x02\x07", "takes exactly 10"),
        (b"\0\0\x08\x01\0\0\0\x02\x07\x07\x07", "takes exactly 10"),
    ],
)
def test_a_wrong_file_is_refused_by_name(content, said):
    with pytest.raises(DataFileError, match="labels-file") as caught:
        decode_idx(content, "labels-file", 1)
    assert said in str(caught.value)


def test_a_header_that_lies_allocates_nothing():
    huge = b"\0\0\x08\x04" + b"\xff" * 16 + b"x"
    tracemalloc.start()
    try:
        with pytest.raises(DataFileError, match="promises the shape"):
            decode_idx(huge, "liar", 4)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_nothing_in_a_shape_that_no_array_has_is_refused():
    content = b"\0\0\x08\x03" + struct.pack(">III", 2**32 - 1, 0, 2**32 - 1)
    with pytest.raises(DataFileError, match="'nothing' promises the shape"):
        decode_idx(content, "nothing", 3)


def test_only_unsigned_bytes_are_written():
    with pytest.raises(DTypeError, match="int64"):
        encode_idx(np.zeros(3, np.int64))
    with pytest.raises(ShapeError, match="at least one dimension"):
        encode_idx(np.array(3, np.uint8))
