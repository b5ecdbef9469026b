"""Files of other programs, handed to what reads a network."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl import Network
from xpdl.errors import ModelFileError
from xpdl.formats import FIRST, foreign
from xpdl.layers import Affine

TORCH_MAGIC = 0x1950A86A20F9469CFC6C  # by which a file of torch.save began before version 1.6


def written(write: Any) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def zipped(*names: str) -> bytes:
    def write(stream: io.BytesIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            for name in names:
                archive.writestr(name, "x" * 1000)

    return written(write)


PICTURE = Image.fromarray(np.arange(64, dtype="uint8").reshape(8, 8))
WEIGHTS = {"W1": np.ones((3, 2)), "b1": np.zeros(2)}
FILES: dict[str, tuple[bytes, str]] = {
    "README.md": ("# Ein Netz, das Wörter kennt\n".encode() * 100, "a text"),
    "history.json": (b'{"finished": true}', "a text"),
    "empty": (b"", "empty"),
    "net.pt": (zipped("net/data.pkl", "net/data/0"), "load_torch(network, path)"),
    "old.pth": (pickle.dumps(TORCH_MAGIC, protocol=2) + b"more" * 100, "load_torch(network, path)"),
    "net.h5": (b"\x89HDF\r\n\x1a\n" + bytes(500), "h5py"),
    "net.keras": (zipped("metadata.json", "config.json", "model.weights.h5"), "Keras"),
    "net.npz": (written(lambda stream: np.savez(stream, **WEIGHTS)), "numpy.load"),
    "net.npy": (written(lambda stream: np.save(stream, WEIGHTS["W1"])), "numpy.load"),
    "net.onnx": (b"\x08\x08\x12\x07pytorch" + bytes(500), "onnxruntime"),
    "net.zip": (zipped("readme.txt"), "ZIP"),
    "net.gz": (gzip.compress(b"x" * 1000), "gzip"),
    "seven.png": (written(lambda stream: PICTURE.save(stream, "png")), "xpdl predict"),
    "seven.jpg": (written(lambda stream: PICTURE.save(stream, "jpeg")), "xpdl predict"),
    "train-images-idx3-ubyte": (b"\0\0\x08\x03\0\0\xea\x60" + bytes(500), "IDX"),
    **{
        f"params-{protocol}.pkl": (pickle.dumps(WEIGHTS, protocol), "load_book_parameters")
        for protocol in range(6)
    },
}


@pytest.mark.parametrize("name", FILES)
def test_the_format_of_a_foreign_file_is_named(tmp_path: Path, name: str) -> None:
    content, word = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        xpdl.load(tmp_path / name)
    assert name in str(caught.value)
    assert "is not a safetensors file, but " in str(caught.value)
    assert word in str(caught.value)


def test_a_text_may_be_cut_within_a_character() -> None:
    for begun in range(4):
        text = ("x" * begun + "€" * FIRST).encode()
        assert str(foreign(text[:FIRST])).startswith("a text")


def test_ours_and_what_nobody_knows_are_none_of_them(tmp_path: Path) -> None:
    Network([Affine(3)], 2).save(tmp_path / "net")
    assert foreign((tmp_path / "net").read_bytes()[:FIRST]) is None
    assert foreign(np.random.default_rng(0).bytes(FIRST)) is None
