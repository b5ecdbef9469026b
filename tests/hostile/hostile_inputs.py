"""How files become hostile: bytes changed at random, JSON changed at random, and files that lie.

Every function takes its random numbers from a `random.Random`, which may be one of hypothesis's.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import pickletools
import struct
import warnings
import zipfile
import zlib

import numpy as np

from xpdl.tensor_digest import DIGEST

# ---- bytes ----------------------------------------------------------------------------------

INTERESTING = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1]
INTERESTING += [2**63 - 1, 2**63, 2**64 - 1, 10**12]
EDITS = ["flip", "set", "insert", "delete", "duplicate", "splice", "truncate", "integer", "swap"]


def mutate(random, content, others=()):
    """Return `content` with one to six edits; `others` are files to take pieces from."""
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        content = _edit(random, content, others or [content])
    return content


def _edit(random, content, others):
    if not content:
        return random.randbytes(random.randrange(20))
    # Most of what matters is said at the beginning.
    start = random.randrange(min(len(content), random.choice([8, 64, 512, len(content)])))
    size = random.choice([1, 1, 2, 4, 8, 16, 100])
    head, part, tail = content[:start], content[start : start + size], content[start + size :]
    match random.choice(EDITS):
        case "flip":
            flipped = bytes([content[start] ^ 1 << random.randrange(8)])
            return head + flipped + content[start + 1 :]
        case "set":
            return head + random.randbytes(len(part)) + tail
        case "insert":
            return head + random.randbytes(size) + part + tail
        case "delete":
            return head + tail
        case "duplicate":
            return head + part * random.choice([2, 2, 3, 50]) + tail
        case "splice":
            other = random.choice(list(others))
            return head + other[random.randrange(len(other) + 1) :]
        case "truncate":
            return head
        case "integer":
            width, order = random.choice([1, 2, 4, 8]), random.choice(["little", "big"])
            value = random.choice(INTERESTING) % 2 ** (8 * width)
            return head + value.to_bytes(width, order) + content[start + width :]
        case _:
            return tail + part + head


# ---- JSON -----------------------------------------------------------------------------------

# Values that json.dumps would not write, or not quickly: a text that stands for another.
RAW = {
    "@nan": "NaN",
    "@infinity": "Infinity",
    "@minus": "-Infinity",
    "@1e999": "1e999",
    "@digits": "9" * 400,
    "@many digits": "9" * 5000,
    "@deep": "[" * 60 + "]" * 60,
    "@deeper": "[" * 900 + "]" * 900,
    "@deepest": "[" * 50_000,
    "@deep dicts": '{"a":' * 400 + "1" + "}" * 400,
    "@comma": "1,",
    "@twice": '{"type": "ReLU", "type": "Affine", "units": 3}',
    "@surrogate": '"\\ud800"',
}
VALUES = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    3,
    7,
    3.5,
    -0.5,
    -0.0,
    1e308,
    2**31,
    2**63,
    10**12,
    10**18,
]
VALUES += ["", "a", "\0", "../../x", "é", "a" * 2000, "ReLU", "float64", "numpy", "1", *RAW]
VALUES += [[], {}, [[]], {"type": "Affine"}, {"a": 1}, [1] * 70, [0], [-1, 2], [10**12], {"": {}}]


def mutate_json(random, value):
    """Return a copy of a JSON value with one to four of its parts changed."""
    value = copy.deepcopy(value)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        value = _change(random, value)
    return value


def _change(random, value):
    places = list(_places(value))
    if not places:
        return copy.deepcopy(random.choice(VALUES))
    container, key = random.choice(places)
    new = copy.deepcopy(random.choice(VALUES))
    match random.choice(["set", "set", "set", "remove", "move", "rename", "add", "wrap", "number"]):
        case "set":
            container[key] = new
        case "remove":
            del container[key]
        case "move":
            other, other_key = random.choice(places)
            container[key] = copy.deepcopy(other[other_key])
        case "rename" if isinstance(container, dict):
            container[str(random.choice(["", "a", "\0", "..", key + "x", "type"]))] = container.pop(
                key
            )
        case "add":
            if isinstance(container, dict):
                container[random.choice(["", "a", "\0", "type", "units", "weight_init"])] = new
            else:
                container.append(new)
        case "wrap":
            container[key] = random.choice([[container[key]], {"a": container[key]}])
        case _:
            old = container[key]
            if type(old) in (int, float):
                container[key] = random.choice([-old, old + 1, old - 1, old * 1000, old / 2])
            else:
                container[key] = random.choice(INTERESTING)
    return value


def _places(value):
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))
    else:
        return
    for key, part in inner:
        yield value, key
        yield from _places(part)


def to_json(value):
    """Return the text of a JSON value, with what stands for raw text put in."""
    text = json.dumps(value)
    if '"@' not in text:
        return text
    for name, raw in RAW.items():
        text = text.replace(json.dumps(name), raw)
    return text


# ---- safetensors ----------------------------------------------------------------------------

CODES = {"f8": "F64", "f4": "F32", "f2": "F16", "i8": "I64", "i4": "I32", "i2": "I16", "i1": "I8"}
CODES |= {"u1": "U8", "u2": "U16", "u4": "U32", "u8": "U64", "b1": "BOOL"}
DTYPES = [*CODES.values(), "BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "C64", "Q17"]


def tensors_file(header, data=b"", length=None):
    """Return a safetensors file, right or not, of a header (a dict, or its text) and data."""
    text = header if isinstance(header, bytes) else to_json(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def split_tensors(content):
    """Return the header and the data of a right safetensors file."""
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def arrays_file(arrays, text):
    """Return a right safetensors file of arrays by name, which says `text` of itself."""
    header, data = {"__metadata__": {"xpdl": text}}, b""
    for name, array in arrays.items():
        code = CODES[array.dtype.str[1:]]
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": offsets}
        data += array.tobytes()
    return tensors_file(header, data)


def arrays_in(content):
    """Return the arrays of a right safetensors file, and the text it says of itself."""
    header, data = split_tensors(content)
    kinds = {code: kind for kind, code in CODES.items()}
    arrays = {}
    for name, about in header.items():
        if name != "__metadata__":
            start, end = about["data_offsets"]
            array = np.frombuffer(data[start:end], kinds[about["dtype"]])
            arrays[name] = array.reshape(about["shape"])
    told = json.loads(header["__metadata__"]["xpdl"])
    told.pop(DIGEST, None)  # with it, no change would come any further
    return arrays, json.dumps(told)


def with_and_without_digest(seeds):
    """Return right files as earlier versions wrote them, and the last as it is."""
    return [*(arrays_file(*arrays_in(content)) for content in seeds), seeds[-1]]


def hostile_header(random, content):
    """Return a safetensors file whose header was changed."""
    header, data = split_tensors(content)
    match random.choice(["json", "json", "dtype", "shape", "offsets", "length", "text", "twice"]):
        case "json":
            return tensors_file(mutate_json(random, header), data)
        case "length":
            size = random.choice([0, 1, 7, 10**6, 10**8, 10**8 + 1, *INTERESTING])
            return tensors_file(header, data, length=size)
        case "text":
            text = to_json(header).encode()
            text = random.choice(
                [text + b" " * 9, b" " + text, text + b"\0", b"\xef\xbb\xbf" + text]
            )
            return tensors_file(text, data)
        case "twice":
            text = to_json(header)[:-1] + "," + to_json(header)[1:]
            return tensors_file(text.encode(), data)
        case what:
            about = header[random.choice([name for name in header if name != "__metadata__"])]
            if what == "dtype":
                about["dtype"] = random.choice(DTYPES)
            elif what == "shape":
                sizes = [0, 1, 2, 3, 4, 12, 2**31, 2**62, 2**63, 2**64 - 1, 10**12, -1]
                about["shape"] = [random.choice(sizes) for _ in range(random.choice([0, 1, 2, 70]))]
            else:
                about["data_offsets"] = [random.choice([0, 1, 48, *INTERESTING]) for _ in range(2)]
            return tensors_file(header, data)


def hostile_arrays(random, content):
    """Return a right safetensors file in which an array is another than it should be."""
    arrays, text = arrays_in(content)
    name = random.choice(list(arrays))
    array = arrays.pop(name)
    odd = [np.nan, np.inf, -np.inf, 1e300, 1e38, -1e38, 1e-320, 65504.0]
    match random.choice(["type", "shape", "value", "name", "gone", "more", "many", "signalling"]):
        case "type":
            with np.errstate(all="ignore"):
                array = array.astype(random.choice(list(CODES)))
        case "shape":
            array = random.choice(
                [
                    array.T,
                    array.ravel(),
                    array[None],
                    array[:0],
                    array[:1],
                    np.concatenate([array] * 2),
                ]
                if array.ndim
                else [array[None]]
            )
        case "value" if array.size and array.dtype.kind == "f":
            array = array.astype(random.choice(["f4", "f8"])).copy()
            with np.errstate(over="ignore"):
                array.reshape(-1)[random.randrange(array.size)] = random.choice(odd)
        case "signalling":
            array = np.full(array.shape, 0x7FF0000000000001, "u8").view("f8")
        case "name":
            name = random.choice(["", "\0", ".", "a.b", name + " ", name.upper(), "../../x", "é"])
        case "gone":
            return arrays_file(arrays, text)
        case "more":
            arrays[random.choice(["more", "", "\0", "a/b"])] = array
        case _:
            arrays |= {f"more{i}": array[:0] for i in range(100)} if array.ndim else {}
    arrays[name] = np.ascontiguousarray(array)
    if random.random() < 0.3:
        arrays = dict(sorted(arrays.items(), key=lambda _: random.random()))
    return arrays_file(arrays, text)


def hostile_text(random, content):
    """Return a right safetensors file that says something else of itself."""
    arrays, text = arrays_in(content)
    value = json.loads(text)
    changed = to_json(mutate_json(random, value))
    if random.random() < 0.1:
        changed = changed[: random.randrange(len(changed))]
    if random.random() < 0.1:
        changed = changed[:-1] + "," + changed[1:]  # every name twice
    return arrays_file(arrays, changed)


# ---- IDX, gzip, tables, archives --------------------------------------------------------------


def hostile_idx(random):
    """Return an IDX file whose header does not agree with what follows."""
    dimensions = random.choice([0, 1, 2, 3, 3, 4, 255])
    kind = random.choice([8, 8, 8, 8, 9, 11, 12, 13, 14, 0, 255])
    sizes = [0, 1, 2, 3, 28, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
    shape = [random.choice(sizes) for _ in range(dimensions)]
    header = bytes([0, random.choice([0, 0, 0, 1]), kind, dimensions])
    header += struct.pack(f">{dimensions}I", *shape)
    size = random.choice([0, 1, 6, 100, min(int(np.prod(shape, dtype=float)), 10_000)])
    return header[: random.choice([2, 7, 2000, 2000, 2000])] + random.randbytes(size)


def hostile_gzip(random, content):
    """Return gzip files put together in ways that are odd, or wrong."""
    plain = random.choice([b"", content, content * 3, bytes(100_000), random.randbytes(50)])
    packed = gzip.compress(plain, random.choice([0, 1, 9]), mtime=0)
    flags = random.randrange(256)
    fields = random.choice([b"", b"name\0", b"\x04\0abcd", b"\xff\xff", random.randbytes(9)])
    return random.choice(
        [
            packed * random.choice([2, 3, 40]),
            packed + bytes(random.choice([1, 7, 1000])),
            packed + b"\0" + packed,
            packed + random.randbytes(8),
            packed[: random.randrange(len(packed))],
            packed[:-4] + struct.pack("<I", random.choice([0, 1, 2**32 - 1])),
            packed[:-8] + random.randbytes(4) + packed[-4:],
            packed[:3] + bytes([flags]) + packed[4:10] + fields + packed[10:],
            packed[:10] + b"\x01\xff\xff\0\0" + packed[15:],
            gzip.compress(packed, mtime=0),
            zlib.compress(plain),
            b"\x1f\x8b" + random.randbytes(30),
        ]
    )


NUMBERS = [
    b"0",
    b"7",
    b"255",
    b"256",
    b"999",
    b"1000",
    b"-1",
    b"1.5",
    b"",
    b" 1",
    b"1e2",
    b"x",
    b"+1",
]
NUMBERS += ["\u0661".encode(), b"\0", b"1\0", b'"1"', b"0000", b"007", b"9" * 5000, b"inf", b"nan"]


def hostile_table(random, rows, columns):
    """Return a CSV table in which some of the header, the ends of lines or the numbers is odd."""
    ordinary = NUMBERS[:3]
    odd = random.choice([[], [], NUMBERS])
    lines = [
        b",".join(
            random.choice(odd if odd and random.random() < 0.05 else ordinary)
            for _ in range(columns + random.choice([0] * 30 + [-1, 1]))
        )
        for _ in range(rows + random.choice([0, 0, 0, 0, -1, 1, 100]))
    ]
    header = b"label," + b",".join(b"%d" % i for i in range(columns - 1))
    header = random.choice(
        [header] * 9 + [b"", b"label", header + b",x", header[1:], header * 2000]
    )
    newline = random.choice([b"\n", b"\n", b"\r\n", b"\r", b"\n\n", b"\0"])
    end = random.choice([newline, newline, newline, b"", b"7"])
    return newline.join([header, *lines]) + end


def zip_file(members, method=zipfile.ZIP_DEFLATED, comment=b""):
    """Return a zip file of (name, content) pairs; a name may be there twice."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(stream, "w", method) as archive:
            for name, content in members:
                archive.writestr(zipfile.ZipInfo(name), content, method)
            archive.comment = comment
    return stream.getvalue()


NAMES = [
    "../../evil.csv",
    "/evil.csv",
    "..\\evil.csv",
    "C:\\evil",
    "d/../../evil",
    "a/" * 300,
    "é",
    "",
]


def hostile_zip(random, member, table):
    """Return a zip file with members that would like to be elsewhere, or are not what they say."""
    members = [(random.choice(NAMES), b"evil") for _ in range(random.choice([0, 1, 3]))]
    members.insert(random.randrange(len(members) + 1), (member, table))
    members += [(member, b"other")] * random.choice([0, 0, 0, 1])
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    content = zip_file(
        members, random.choice(methods), random.choice([b"", b"", b"PK\x05\x06" * 9])
    )
    signature = random.choice([b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"])
    start = content.rfind(signature)
    if start >= 0 and random.random() < 0.7:
        field = start + random.choice([4, 6, 8, 10, 14, 16, 18, 20, 22, 24, 26, 28, 30, 38, 42])
        width = random.choice([1, 2, 4])
        value = random.choice(INTERESTING) % 2 ** (8 * width)
        content = content[:field] + value.to_bytes(width, "little") + content[field + width :]
    return random.choice([b"", b"", b"", b"MZ" * 50]) + content


# ---- pickles ----------------------------------------------------------------------------------


def argument_of(random, instruction, names):
    """Return an argument of an instruction of pickle as its bytes, of a size that may lie."""
    if instruction.arg is None:
        return b""
    n = instruction.arg.n
    if n >= 0:
        return random.choice([bytes(n), b"\1" + bytes(max(n - 1, 0)), random.randbytes(n)])[:n]
    text = random.choice([b"a", b"W1", b"", "é".encode(), b"x" * 300, b"numpy", b"1", b"99999"])
    if instruction.name in ("GLOBAL", "INST"):
        return b"\n".join(random.choice(names)) + b"\n"
    if n == pickletools.UP_TO_NEWLINE:
        return (
            random.choice([text, b"'" + text + b"'", b"9" * 100, b"-1", b"1L", b"01", b"\\"])
            + b"\n"
        )
    width = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT8U: 8}.get(n, 4)
    length = random.choice([len(text)] * 6 + [0, 1, 2 ** (8 * width) - 1, 2 ** (8 * width - 1)])
    return (length % 2 ** (8 * width)).to_bytes(width, "little") + text


def random_pickle(random, names):
    """Return instructions of pickle in any order, some with names of functions."""
    parts = [random.choice([b"", b"\x80\x02", b"\x80\x04", b"\x80\x05", b"\x80\xff"])]
    for _ in range(random.choice([3, 10, 40])):
        instruction = random.choice(pickletools.opcodes)
        parts.append(instruction.code.encode("latin-1") + argument_of(random, instruction, names))
    return b"".join(parts) + b"."


def pickle_with(random, content, names):
    """Return a pickle into which instructions were put that could call something."""
    calls = [
        b"c%b\n%b\n(tR" % random.choice(names),
        b"c%b\n%b\n)R" % random.choice(names),
        b"(i%b\n%b\n" % random.choice(names),
        b"(c%b\n%b\no" % random.choice(names),
        b"c%b\n%b\n)\x81" % random.choice(names),
        b"c%b\n%b\n)}\x92" % random.choice(names),
        b"c%b\n%b\n)\x81}b" % random.choice(names),
        b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\0\0\0", b"Pid\n", b"NQ", b"\x97", b"]", b"\x8f",
        b"2", b"0", b"1", b"(", b"U\x01a", b"G" + bytes(8), b"N.", b"\x93", b"\x94",
    ]  # fmt: skip
    position = random.choice([0, 2, len(content) - 1, random.randrange(len(content))])
    return content[:position] + random.choice(calls) + content[position:]


# ---- pictures ---------------------------------------------------------------------------------

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind, body=b"", crc=None, length=None):
    """Return a chunk of PNG; its length and its check sum may lie."""
    check = zlib.crc32(kind + body) if crc is None else crc
    size = len(body) if length is None else length
    return struct.pack(">I", size) + kind + body + struct.pack(">I", check)


def header(width, height, depth=8, colour=0, compression=0, filtering=0, interlace=0):
    fields = width, height, depth, colour, compression, filtering, interlace
    return chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


def chunks_in(content):
    """Return (kind, body) of each chunk of a right PNG."""
    chunks, position = [], len(SIGNATURE)
    while position + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, position)
        kind = content[position + 4 : position + 8]
        chunks.append((kind, content[position + 8 : position + 8 + size]))
        position += 12 + size
    return chunks


def hostile_chunks(random, content):
    """Return a PNG of which a chunk was changed, its check sums right again."""
    chunks = chunks_in(content)
    i = random.randrange(len(chunks))
    kind, body = chunks[i]
    match random.choice(
        ["body", "body", "kind", "gone", "twice", "size", "extra", "extra", "data"]
    ):
        case "body":
            chunks[i] = kind, mutate(random, body)
        case "kind":
            chunks[i] = (
                random.choice([b"IDAT", b"PLTE", b"tRNS", b"abcd", b"\0\0\0\0", b"IEND"]),
                body,
            )
        case "gone":
            del chunks[i]
        case "twice":
            chunks.insert(random.randrange(len(chunks) + 1), (kind, body))
        case "size":
            sides = [0, 1, 2, 40, 3000, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
            body = struct.pack(">II", random.choice(sides), random.choice(sides)) + chunks[0][1][8:]
            chunks[0] = b"IHDR", body
        case "data":
            kinds = [0, 2, 3, 4, 6, 7], [1, 2, 4, 8, 16, 3]
            head = struct.pack(">IIBBBBB", *(random.choice([1, 9, 200]) for _ in range(2)),
                               random.choice(kinds[1]), random.choice(kinds[0]), 0, 0,
                               random.choice([0, 1, 2]))  # fmt: skip
            data = random.choice([bytes(5000), random.randbytes(900), b"\4" + b"\xff\0" * 700])
            chunks = [
                (b"IHDR", head),
                (b"PLTE", random.randbytes(30)),
                (b"IDAT", zlib.compress(data)),
            ]
        case _:
            chunks.insert(random.randrange(1, len(chunks) + 1), random.choice(extras(random)))
    return SIGNATURE + b"".join(chunk(kind, body) for kind, body in chunks)


def extras(random):
    """Return chunks that belong to no plain PNG, or to none at all."""
    bomb = zlib.compress(bytes(3_000_000))
    exif = struct.pack(
        ">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x112, 3, 1, random.choice([6, 0, 99]), 0, 0
    )
    return [
        (b"acTL", struct.pack(">II", random.choice([0, 2, 2**31]), 0)),
        (b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 9, 2**31, 0, 1, 0, 9, 9)),
        (b"fdAT", random.randbytes(20)),
        (b"zTXt", b"a\0\0" + bomb),
        (b"iTXt", b"a\0\1\0\0\0" + bomb),
        (b"tEXt", b"a\0" + bytes(2_000)),
        (b"iCCP", b"a\0\0" + bomb),
        (b"eXIf", mutate(random, exif)),
        (b"eXIf", exif),
        (b"tRNS", random.randbytes(random.choice([0, 1, 2, 6, 300]))),
        (b"PLTE", random.randbytes(random.choice([0, 1, 3, 768, 900]))),
        (b"gAMA", random.randbytes(random.choice([0, 4]))),
        (b"cHRM", random.randbytes(random.choice([0, 32]))),
        (b"pHYs", random.randbytes(random.choice([0, 9]))),
        (b"sRGB", random.randbytes(random.choice([0, 1]))),
        (b"IDAT", random.randbytes(30)),
        (b"IDAT", b""),
        (b"IEND", b""),
        (b"IHDR", b""),
        (b"CgBI", b"P\0 \2"),
        (b"\xff\0ab", b""),
    ]
