"""Files that are none of xpdl's, known by their first bytes: what they are, and what reads them."""

from __future__ import annotations

import codecs
import re

FIRST = 512  # bytes that tell a format

_TORCH = "a file of PyTorch; xpdl.storage.load_torch(network, path) reads its weights"
_PICKLE = (
    "a pickle; if the book's code wrote it, xpdl.storage.load_book_parameters(network, path) "
    "reads it"
)
_TEXT = "a text; give the folder of a run, or the model.safetensors in it"
_PICTURE = "a picture, which stands behind RUN in xpdl predict RUN IMAGE"

# By how a file begins; the first that fits.
_BEGINNINGS: dict[bytes, str] = {
    rb"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19": _TORCH,  # before version 1.6
    rb"\x80[\x02-\x05]|\(dp0\n|\}q\x00": _PICKLE,
    rb"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras writes them, which h5py reads",
    rb"\x93NUMPY": "an .npy file, which numpy.load reads; Network.load_arrays takes arrays by name",
    rb"\x08[\x01-\x1f][\x12\x1a\x22\x3a]": "an ONNX file, which onnxruntime runs",
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8|BM": _PICTURE,
    rb"\x1f\x8b": "a file packed by gzip; unpack it first",
    rb"\x00\x00[\x08-\x0e][\x01-\x04]": "an IDX file, of pictures or labels",
}

# By the name of the first file in a ZIP archive.
_IN_ARCHIVES: dict[str, str] = {
    r".*/(data\.pkl|\.format_version|\.data/.*)": _TORCH,
    r".*\.npy": "an .npz file, which numpy.load reads; Network.load_arrays takes arrays by name",
    r"(metadata|config)\.json": "a .keras file, which Keras reads",
    r".*": "a ZIP archive",
}


def foreign(first: bytes) -> str | None:
    """Return what a file that begins with `first` is, and what reads it; None if it may be ours."""
    if not first:
        return "empty"
    if first.startswith(b"PK\x03\x04"):
        length = int.from_bytes(first[26:28], "little")
        name = first[30 : 30 + length].decode(errors="replace")
        return next(told for begun, told in _IN_ARCHIVES.items() if re.fullmatch(begun, name, re.S))
    for begun, told in _BEGINNINGS.items():
        if re.match(begun, first):
            return told
    return _TEXT if _is_text(first) else None


def _is_text(first: bytes) -> bool:
    """Tell whether bytes, which may end within a character, are a text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        return not re.search(r"[\x00-\x08\x0e-\x1f]", decoder.decode(first))
    except UnicodeDecodeError:
        return False
