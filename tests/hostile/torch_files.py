"""Files as ``torch.save`` writes them, made without PyTorch, and so that they can lie."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np

MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
STORAGES = {"f2": "Half", "f4": "Float", "f8": "Double", "i8": "Long", "u1": "Byte", "b1": "Bool"}


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value):
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)


def sequence(*parts):
    return b"(" + b"".join(parts) + b"t"


def name(module, called):
    return b"c" + module.encode() + b"\n" + called.encode() + b"\n"


ORDERED_DICT = name("collections", "OrderedDict") + b")R"


def items(pairs):
    return b"(" + b"".join(text(key) + value for key, value in pairs) + b"u"


def tensor(key, array, *, legacy=False, **lies):
    """Return the instructions that build an array whose numbers are in the storage `key`.

    `lies` say what is not as the array is: count, offset, shape, strides, storage, rebuild.
    """
    strides = [step // array.itemsize for step in np.empty(array.shape, array.dtype).strides]
    said = {"count": array.size, "offset": 0, "shape": array.shape, "strides": strides}
    said |= {"storage": STORAGES[array.dtype.str[1:]] + "Storage", "rebuild": "_rebuild_tensor_v2"}
    said |= lies
    rest = [b"N"] if legacy else []
    storage = sequence(
        *(text("storage"), name("torch", said["storage"]), text(key), text("cpu")),
        *(whole(said["count"]), *rest),
    )
    shape, strides = (sequence(*map(whole, said[part])) for part in ("shape", "strides"))
    arguments = sequence(
        storage + b"Q", whole(said["offset"]), shape, strides, b"\x89", ORDERED_DICT
    )
    return name("torch._utils", said["rebuild"]) + arguments + b"R"


def state_dict(arrays, *, legacy=False, lies=None, keys=None):
    """Return the instructions that build an ordered dict of arrays, with its attributes."""
    keys = keys or {called: str(i) for i, called in enumerate(arrays)}
    tensors = [
        (called, tensor(keys[called], array, legacy=legacy, **(lies or {}).get(called, {})))
        for called, array in arrays.items()
    ]
    versions = b"}" + text("_metadata") + ORDERED_DICT + items([("", b"}")]) + b"s"
    return ORDERED_DICT + items(tensors) + versions + b"b"


def zipped(arrays, *, pickled=None, folder="archive", byteorder="little", method=0, **more):
    """Return a file of PyTorch since 1.6."""
    pickled = state_dict(arrays, **more) if pickled is None else pickled
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(f"{folder}/data.pkl", b"\x80\x02" + pickled + b".")
        if byteorder:
            archive.writestr(f"{folder}/byteorder", byteorder)
        order = ">" if byteorder == "big" else "<"
        for i, array in enumerate(arrays.values()):
            archive.writestr(
                f"{folder}/data/{i}", array.astype(array.dtype.newbyteorder(order)).tobytes()
            )
        archive.writestr(f"{folder}/version", "3\n")
    return stream.getvalue()


def legacy(arrays, *, pickled=None, little=True, **more):
    """Return a file of PyTorch before 1.6; storages are listed by their names as texts."""
    pickled = state_dict(arrays, legacy=True, **more) if pickled is None else pickled
    about = b"}" + items([("protocol_version", whole(1001)), ("little_endian", b"\x88")])
    about = about if little else about.replace(b"\x88", b"\x89")
    keys = sorted(map(str, range(len(arrays))))
    listed = b"](" + b"".join(map(text, keys)) + b"e"
    parts = [MAGIC, *(b"\x80\x02" + part + b"." for part in (about, pickled, listed))]
    order, held = "<" if little else ">", list(arrays.values())
    for key in keys:
        array = held[int(key)]
        parts += [struct.pack(f"{order}q", array.size)]
        parts += [array.astype(array.dtype.newbyteorder(order)).tobytes()]
    return b"".join(parts)
