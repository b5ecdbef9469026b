"""The readers of files from strangers, one class each: right files, hostile files, what is right.

A case is a number. From 0 on they are the right files, which must be read; then come the worst
files that are known, then as many at random as are asked for, all the same in every run. Below 0
are the worst files that take long to make.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
import zlib
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from random import Random

import hostile_inputs as inputs
import numpy as np
import torch_files
from PIL import Image, ImageDraw
from safetensors.numpy import save as save_tensors

from xpdl import Network, Trainer, files
from xpdl.datasets import DATA_SETS, decode_idx, encode_idx, package_index, prepare_digit
from xpdl.datasets.catalogue import DataSet, RawFile
from xpdl.datasets.compression import unpack
from xpdl.datasets.sources import read_files
from xpdl.errors import (
    ArgumentError,
    DataFileError,
    FileAccessError,
    ImageError,
    ModelFileError,
)
from xpdl.layers import (
    Affine,
    BatchNormalization,
    Convolution,
    Dropout,
    MaxPooling,
    ReLU,
    Residual,
    Sequential,
)
from xpdl.optimizers import SGD, Adam, Momentum
from xpdl.runs.folder import read_record
from xpdl.runs.options import RunOptions, make_options, unfinished_options
from xpdl.storage import load_book_parameters, load_torch, load_with_notes
from xpdl.tuning import Choice, LogUniform, RandomSearch, load_ensemble

# ---- places in which there is no ordinary file --------------------------------------------------


class Place:
    """What is put where a file is expected: `make` is called with the path."""

    def __init__(self, make):
        self.make = make


def sparse(size, head=b"", tail=b""):
    """Return a file of `size` bytes, noughts but for its ends, which take no room on the disk."""

    def make(path):
        with open(path, "wb") as file:
            file.write(head)
            file.truncate(size)
            file.seek(size - len(tail))
            file.write(tail)

    return Place(make)


def link(target):
    return Place(lambda path: os.symlink(target, path))


ODD_PLACES = {
    "nothing": Place(lambda path: None),
    "a folder": Place(os.mkdir),
    "a pipe": Place(os.mkfifo),
    "a link to itself": Place(lambda path: os.symlink(path, path)),
    "/dev/zero": link("/dev/zero"),
    "/dev/null": link("/dev/null"),
    "100 GB of noughts": sparse(10**11),
    "1 GB of noughts": sparse(10**9),
    "100 MB of noughts": sparse(10**8),
    "no bytes": b"",
}


def put(content, path):
    """Put the content of a file, or what else is to be there, at `path`."""
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    elif os.path.lexists(path):
        os.unlink(path)
    if isinstance(content, Place):
        content.make(path)
    else:
        with open(path, "wb") as file:
            file.write(content)


# ---- what is read ---------------------------------------------------------------------------


class Reader:
    """One reader of files.

    `read` is what is tested. It is given the path, and a new `subject`, which is what it may
    change; `check` asserts that what was read is right, `unchanged` that a failure left no trace.
    """

    name: str
    allowed: tuple[type[Exception], ...]
    file_name = "file"
    may_remove = None  # a file that reading may delete

    def __init__(self, folder):
        self.folder = Path(folder)
        self.path = self.folder / self.file_name

    @cached_property
    def seeds(self):
        """Right files, as bytes."""
        raise NotImplementedError

    @cached_property
    def worst(self):
        """The worst files that are known, by name: bytes, a `Place`, or what makes them."""
        return ODD_PLACES

    @cached_property
    def dear(self):
        """More of them, which take long to make."""
        return {}

    def hostile(self, random):
        """Return a file of the right form that lies."""
        raise NotImplementedError

    def subject(self):
        return None

    def read(self, path, subject):
        raise NotImplementedError

    def check(self, content, value, subject):
        pass

    def unchanged(self, subject):
        pass

    def make(self, random):
        """Return a hostile file, as bytes."""
        kind = random.random()
        content = random.choice(self.seeds) if kind < 0.4 else self.hostile(random)
        if kind < 0.4 or kind > 0.9:
            content = inputs.mutate(random, content, self.seeds)
        return content

    def first(self):
        """Return how many cases come before those at random."""
        return len(self.seeds) + len(self.worst)

    def title(self, number):
        """Return what case `number` is."""
        if number < 0:
            return list(self.dear)[number]
        if number < len(self.seeds):
            return f"right file {number}"
        if number < self.first():
            return list(self.worst)[number - len(self.seeds)]
        return f"random file {number}"

    def case(self, number):
        """Return case `number`: bytes, or a `Place`."""
        if 0 <= number < len(self.seeds):
            return self.seeds[number]
        if number >= self.first():
            return self.make(Random(f"{self.name} {number}"))
        known = list((self.worst if number >= 0 else self.dear).values())
        content = known[number - len(self.seeds) if number >= 0 else number]
        return content() if callable(content) else content


# ---- data sets ------------------------------------------------------------------------------


class Idx(Reader):
    name = "IDX"
    allowed = (DataFileError,)

    @cached_property
    def seeds(self):
        rng = np.random.default_rng(1)
        shapes = [(2, 3, 4), (0, 28, 28), (1, 1, 1), (7,), (0,)]
        return [encode_idx(rng.integers(0, 256, shape).astype(np.uint8)) for shape in shapes]

    @cached_property
    def worst(self):
        sizes = {"2^31 items": 2**31, "2^32 - 1 items": 2**32 - 1}
        headers = {
            f"{name} in {n} dimensions": bytes([0, 0, 8, n]) + size.to_bytes(4, "big") * n
            for name, size in sizes.items()
            for n in (1, 3)
        }
        return headers | {"no bytes": b"", "a product of 2^64": b"\0\0\x08\x03" + 2 * b"\x80\0\0\0"}

    def hostile(self, random):
        return inputs.hostile_idx(random)

    def read(self, path, subject):
        content = path.read_bytes()
        return decode_idx(content, "file", 1 if content[3:4] == b"\1" else 3)

    def check(self, content, value, subject):
        assert encode_idx(value) == content
        assert value.flags.writeable


class Gzip(Reader):
    name = "gzip"
    allowed = (DataFileError,)
    size = 1000

    @cached_property
    def seeds(self):
        plain = [b"", b"abc", bytes(1000), np.random.default_rng(1).bytes(900)]
        return [gzip.compress(content, mtime=0) for content in plain] + [b"plain text", b""]

    @cached_property
    def worst(self):
        empty = gzip.compress(b"", mtime=0)
        return {
            "a bomb of 10 MB": gzip.compress(bytes(10**7), mtime=0),
            "a million empty files": empty * 1_000_000,
            "a million files of one nought": lambda: (empty + b"\0") * 1_000_000,
            "a name without end": b"\x1f\x8b\x08\x08" + bytes(6) + b"a" * 10**7,
        }

    @cached_property
    def dear(self):
        return {
            "a bomb of 1 GB": lambda: gzip.compress(bytes(2**27), mtime=0) * 8,
            "a bomb in a bomb": lambda: gzip.compress(gzip.compress(bytes(2**26))),
            "100 MB of noughts behind": lambda: gzip.compress(b"", mtime=0) + bytes(10**8),
        }

    def hostile(self, random):
        return inputs.hostile_gzip(random, random.choice([b"a" * 990, b"a" * 1000, b"a" * 1001]))

    def read(self, path, subject):
        return unpack(path.read_bytes(), self.size, "file")

    def check(self, content, value, subject):
        assert len(value) <= self.size or not content.startswith(b"\x1f\x8b")
        assert value == (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)


class DataFolder(Reader):
    """A file of a data set in its folder, with gzip and IDX; the other three are right."""

    name = "data folder"
    allowed = (DataFileError, FileAccessError)
    file_name = "tiny/images.gz"

    def __init__(self, folder):
        super().__init__(folder)
        self.path.parent.mkdir(exist_ok=True)
        arrays = {
            "images": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
            "labels": np.arange(2, dtype=np.uint8),
            "more images": np.zeros((1, 3, 4), np.uint8),
            "more labels": np.ones(1, np.uint8),
        }
        self.wanted = [encode_idx(array) for array in arrays.values()]
        raw = []
        for (name, array), content in zip(arrays.items(), self.wanted, strict=True):
            raw.append(RawFile(name, array.shape, hashlib.sha256(content).hexdigest()))
            if name != "images":
                (self.path.parent / name).write_bytes(content)
        self.data = DataSet("tiny", tuple(raw), ())

    @cached_property
    def seeds(self):
        images = self.wanted[0]
        return [gzip.compress(images, mtime=0), gzip.compress(images, 0, mtime=0), images]

    @cached_property
    def worst(self):
        # What is not there is no file that is bad, but one to be fetched.
        places = {name: place for name, place in ODD_PLACES.items() if name != "nothing"}
        return places | {"a bomb": gzip.compress(bytes(2_000_000))}

    def hostile(self, random):
        if random.random() < 0.5:
            return gzip.compress(inputs.hostile_idx(random), mtime=0)
        return inputs.hostile_gzip(random, self.wanted[0])

    def read(self, path, subject):
        before, DATA_SETS["tiny"] = os.environ.get("XPDL_DATA"), self.data
        os.environ["XPDL_DATA"] = str(self.folder)
        try:
            return read_files("tiny", offline=True)
        finally:
            del DATA_SETS["tiny"]
            if before is None:
                del os.environ["XPDL_DATA"]
            else:
                os.environ["XPDL_DATA"] = before

    def check(self, content, value, subject):
        assert value == self.wanted


ROWS, COLUMNS = 6, 5


def table_of(text):
    """Return the numbers of a CSV table by Python's own means."""
    lines = text.replace(b"\r\n", b"\n").split(b"\n")
    return [[int(number) for number in line.split(b",")] for line in lines[1:-1]]


def good_table(newline=b"\n"):
    lines = [b"label,a,b,c,d"]
    lines += [b",".join(b"%d" % (97 * i * j % 256) for j in range(COLUMNS)) for i in range(1, 7)]
    return newline.join([*lines, b""])


class Table(Reader):
    name = "CSV"
    allowed = (DataFileError,)

    @cached_property
    def seeds(self):
        return [good_table(), good_table(b"\r\n"), good_table().replace(b"97", b"007")]

    @cached_property
    def worst(self):
        head = b"label,a,b,c,d\n"
        return {
            "9 MB of one number": head + b"1" * 9_000_000,
            "9 MB of commas": head + b"," * 9_000_000,
            "9 MB of ends of lines": head + b"\n" * 9_000_000,
            "9 MB of right lines": head + b"1,2,3,4,5\n" * 900_000,
            "9 MB of one header": b"label," + b"a," * 2900_000,
            "9 MB of noughts": bytes(9_000_000),
            "no bytes": b"",
        }

    def hostile(self, random):
        return inputs.hostile_table(random, ROWS, COLUMNS)

    def read(self, path, subject):
        with open(path, "rb") as stream:
            return package_index.parse_table(stream, "file", ROWS, COLUMNS)

    def check(self, content, value, subject):
        assert value.dtype == np.uint8
        assert value.tolist() == table_of(content)


class Wheel(Reader):
    name = "wheel"
    allowed = (DataFileError,)
    member = "d/t.csv"

    @cached_property
    def seeds(self):
        members = [("../../evil.csv", b"evil"), (self.member, good_table()), ("/evil.csv", b"evil")]
        methods = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED
        return [inputs.zip_file(members, method) for method in methods]

    @cached_property
    def worst(self):
        def bomb(line, count):
            # Of pieces, so that what it holds never lies in memory.
            stream = io.BytesIO()
            with (
                zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
                archive.open(self.member, "w", force_zip64=True) as member,
            ):
                member.write(b"label,a,b,c,d\n")
                for _ in range(count):
                    member.write(line * (2**20 // len(line)))
            return stream.getvalue()

        many = [(f"{i}", b"") for i in range(3000)]
        return ODD_PLACES | {
            "a bomb of right lines": bomb(b"1,2,3,4,5\n", 9),
            "a bomb of a line": bomb(b"1", 9),
            "a bomb of ends of lines": bomb(b"\n", 9),
            "3000 members": lambda: inputs.zip_file([*many, (self.member, good_table())]),
            "by LZMA": inputs.zip_file([(self.member, good_table())], zipfile.ZIP_LZMA),
            "by bzip2": inputs.zip_file([(self.member, good_table())], zipfile.ZIP_BZIP2),
            "a folder of that name": inputs.zip_file([(self.member + "/", b"")]),
            "without the member": inputs.zip_file([("other", b"")]),
        }

    def hostile(self, random):
        table = random.choice([good_table(), inputs.hostile_table(random, ROWS, COLUMNS)])
        return inputs.hostile_zip(random, self.member, table)

    def read(self, path, subject):
        return package_index.read_table(path, self.member, ROWS, COLUMNS)

    def check(self, content, value, subject):
        # Where several members have the name, zip files mean the last one.
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert value.tolist() == table_of(archive.read(self.member))


# ---- networks -------------------------------------------------------------------------------


def networks():
    """Return small networks of all that there is."""
    layers = {
        "first": Convolution(2, (3, 2), (2, 1), (1, 0), bias=False, remainder="drop"),
        "inner": Residual([BatchNormalization(momentum=0.7), Sequential([ReLU()])]),
        "pool": MaxPooling(2, 1),
        "drop": Dropout(0.25, scale_at="training"),
        "scores": Affine(3),
    }
    return [
        Network([Affine(3)], (4,)),
        Network([Affine(2), ReLU(), Affine(3)], (4,), dtype="float16", name="Other"),
        Network(layers, (1, 7, 6), weight_decay=0.01, dtype="float64"),
    ]


def wide_text(values):
    """Return a safetensors file of xpdl whose text is a JSON list of `values` and a nought."""
    return lambda: long_text('{\\"about\\": [' + values + "0]}")


def long_text(text):
    """Return a safetensors file of xpdl that says `text`, which is escaped, of itself."""
    return inputs.tensors_file(b'{"__metadata__":{"xpdl":"' + text.encode() + b'"}}')


def enormous(layer, input_shape):
    """Return the file of a network with an architecture that its arrays are not of."""
    body = {"type": "Sequential", "layers": {"a": layer, "scores": {"type": "Affine", "units": 3}}}
    config = Network([Affine(3)], (4,)).config() | {"body": body, "input_shape": input_shape}
    text = {"format": "xpdl-network-1", "architecture": config, "about": {}}
    return inputs.arrays_file({"a.W": np.zeros((4, 3), "f4")}, json.dumps(text))


NUMBERLESS = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


def many_arrays(count):
    text = json.dumps(NUMBERLESS)
    return inputs.tensors_file(
        ("{" + ",".join(f'"{i:07}":{text}' for i in range(count)) + "}").encode()
    )


def foreign_tensors():
    """Return safetensors files that would cost much, for all readers of that format."""
    one = NUMBERLESS | {"shape": [1], "data_offsets": [0, 4]}
    return ODD_PLACES | {
        "a metadata of 110 MB": lambda: long_text("a" * 110_000_000),
        "millions of lists": wide_text("[]," * 4_000_000),
        "deep lists": lambda: inputs.arrays_file({}, '{"about":' + "[" * 100_000),
        "19,000 arrays": lambda: many_arrays(19_000),
        "an array of 70 axes": inputs.tensors_file({"a": one | {"shape": [1] * 70}}, bytes(4)),
        "no numbers in an enormous shape": inputs.tensors_file(
            {"a": NUMBERLESS | {"shape": [0, 2**62, 2**62]}}
        ),
        "a header of 2^63 bytes": inputs.tensors_file({"a": one}, bytes(4), length=2**63),
    }


def dear_tensors():
    """Return more of them, which take long to make."""
    return {
        "a metadata of 99 MB": lambda: long_text("a" * 99_000_000),
        "47 MB of text": lambda: long_text("a" * 47_000_000),
        "millions of numbers": wide_text("300," * 4_000_000),
        "as many numbers as can be": wide_text("300," * (files.MOST_VALUES - 100)),
        "as many texts as can be": wide_text('\\"ab1\\",' * (files.MOST_VALUES - 100)),
        "as many lists as can be": wide_text("[]," * (files.MOST_CONTAINERS - 100)),
        "half a million arrays": lambda: many_arrays(500_000),
        "99,000 arrays": lambda: many_arrays(99_000),
    }


class NetworkFile(Reader):
    name = "network"
    allowed = (ModelFileError, FileAccessError)

    @cached_property
    def seeds(self):
        seeds = []
        for network in networks():
            network.save(self.path, {"data": "mnist", "class_names": ["a", "b"], "shifts": 1})
            seeds.append(self.path.read_bytes())
        return inputs.with_and_without_digest(seeds)

    @cached_property
    def worst(self):
        units = {"type": "Affine", "units": 10**12}
        convolution = {"type": "Convolution", "filters": 10**9, "size": 1000}
        head = inputs.arrays_file({}, "{}")[:-2]
        big = inputs.tensors_file(
            {
                "__metadata__": {"xpdl": inputs.arrays_in(self.seeds[0])[1]},
                "affine1.W": {"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**30]},
            }
        )
        blocks = '{"type":"Sequential","layers":{"a":' * 300 + '{"type":"ReLU"}' + "}}" * 300
        deep = json.dumps(inputs.arrays_in(self.seeds[0])[1])[1:-1]
        body = json.dumps(networks()[0].config()["body"]).replace('"', '\\"')
        return foreign_tensors() | {
            "10^12 units": enormous(units, [4]),
            "10^9 filters": enormous(convolution, [4, 2000, 2000]),
            "an input of 10^12": enormous({"type": "Flatten"}, [10**12]),
            "an input of 10^400": enormous({"type": "Flatten"}, [10**400]),
            "an array of 1 GB": sparse(len(big) + 2**30, head=big),
            "300 blocks deep": inputs.tensors_file(
                inputs.tensors_file({"__metadata__": {"xpdl": "@"}})[8:].replace(
                    b"@", deep.replace(body, blocks.replace('"', '\\"')).encode()
                )
            ),
            "a header without its end": head,
        }

    @cached_property
    def dear(self):
        name = {"a name of 10 MB": lambda: enormous({"type": "a" * 10_000_000}, [4])}
        return dear_tensors() | name

    def hostile(self, random):
        make = random.choice([inputs.hostile_header, inputs.hostile_arrays, inputs.hostile_text])
        return make(random, random.choice(self.seeds))

    def read(self, path, subject):
        return load_with_notes(path)

    def check(self, content, value, subject):
        network, about = value
        assert isinstance(about, dict)
        stored, _ = inputs.arrays_in(content)
        assert network.arrays().keys() == stored.keys()
        for name, array in network.arrays().items():
            assert np.isfinite(array).all()
            assert array.shape == stored[name].shape
            np.testing.assert_array_equal(array, stored[name].astype(array.dtype))
        # What was read is a network as any other: it can be written, and read again.
        again = self.folder / "again"
        network.save(again, about)
        copy, notes = load_with_notes(again)
        assert (copy.config(), notes) == (network.config(), about)


# ---- checkpoints ----------------------------------------------------------------------------


class Loaded(Exception):
    """A training would go on now: its checkpoint has been read."""


class Stopping:
    """A schedule at which a training stops before its next step; or something else, later on."""

    at = 0.0

    def __call__(self, position, epochs):
        if position >= self.at:
            self.then()
        return 1.0

    def then(self):
        raise Loaded

    def __repr__(self):
        return "Stopping()"


def make_trainer(checkpoint, network, optimizer):
    x = np.linspace(-1, 1, 24, dtype="float32").reshape(12, 2)
    return Trainer(
        network,
        (x, np.arange(12) % 3),
        optimizer=optimizer,
        epochs=2,
        batch_size=4,
        progress=False,
        checkpoint=checkpoint,
        average=0.9,
        schedule=Stopping(),
    )


def all_of(trainer):
    """Return all that a training knows, to the bit."""
    network, optimizer, average = trainer.network, trainer.optimizer, trainer.average
    state = optimizer.state_dict()
    memory = state.pop("state")
    arrays = [network.arrays(), average.arrays(), *(memory[slot] for slot in sorted(memory))]
    bits = [{name: a.tobytes() for name, a in named.items()} for named in arrays]
    scale = None if trainer.step.loss_scale is None else trainer.step.loss_scale.read()
    return bits, repr(state), average.updates(), scale, repr(trainer.history), trainer.stop


class Checkpoint(Reader):
    name = "checkpoint"
    allowed = (ModelFileError, ArgumentError, FileAccessError)

    def trainer(self):
        network = Network([Affine(4), BatchNormalization(), ReLU(), Affine(3)], (2,))
        return make_trainer(self.path, network, Adam(0.02))

    @cached_property
    def seeds(self):
        seeds = []
        for interrupted in (False, True):  # after an epoch, and in the middle of the second
            put(ODD_PLACES["nothing"], self.path)
            trainer = self.trainer()
            trainer.schedule.at = 1.0
            if interrupted:
                trainer.schedule.then = trainer.interrupt
            with contextlib.suppress(KeyboardInterrupt, Loaded):
                trainer.fit()
            seeds.append(self.path.read_bytes())
        return inputs.with_and_without_digest(seeds)

    @cached_property
    def worst(self):
        places = {
            name: place
            for name, place in foreign_tensors().items()
            if name not in ("nothing", "a link to itself")  # a training without a checkpoint begins
        }
        return places | {"a network": inputs.arrays_file({"a": np.ones(2, "f4")}, '{"format":"x"}')}

    @cached_property
    def dear(self):
        return dear_tensors()

    def hostile(self, random):
        make = random.choice([inputs.hostile_header, inputs.hostile_arrays, inputs.hostile_text])
        return make(random, random.choice(self.seeds))

    def subject(self):
        trainer = self.trainer()
        return trainer, all_of(trainer)

    def read(self, path, subject):
        try:
            return subject[0].fit()
        except Loaded:
            return None

    def check(self, content, value, subject):
        trainer = subject[0]
        for array in (*trainer.network.arrays().values(), *trainer.average.arrays().values()):
            assert np.isfinite(array).all()
        assert len(trainer.history.epochs) in (1, 2)
        trainer.average.hide()
        parameters = trainer.network.params
        with np.errstate(all="ignore"):  # as in a training
            trainer.optimizer.update(parameters, parameters.zeros_like())  # its memory fits
        repr(trainer.history.as_dict())

    def unchanged(self, subject):
        trainer, before = subject
        trainer.average.hide()
        assert all_of(trainer) == before


class HalfCheckpoint(Checkpoint):
    """The same in half precision, whose checkpoint keeps more: the factor on the loss."""

    name = "checkpoint in half precision"

    def trainer(self):
        network = Network([Affine(4), ReLU(), Dropout(0.5), Affine(3)], (2,), dtype="float16")
        return make_trainer(self.path, network, Momentum(0.02, clip_norm=1.0))

    @cached_property
    def dear(self):
        return {}


# ---- pickles --------------------------------------------------------------------------------

CALLS: list[object] = []


def fall(*arguments, **options):
    """Note that something was called."""
    CALLS.append(arguments)
    return {}


FUNCTIONS = [(b"hostile_readers", b"fall"), (b"os", b"system"), (b"builtins", b"eval")]
FUNCTIONS += [(b"posix", b"system"), (b"numpy", b"load"), (b"subprocess", b"call")]
FUNCTIONS += [(b"numpy._core.multiarray", b"_reconstruct"), (b"numpy", b"ndarray")]
FUNCTIONS += [(b"numpy", b"dtype"), (b"_codecs", b"encode"), (b"numpy._core.multiarray", b"scalar")]


class Pickle(Reader):
    name = "book pickle"
    allowed = (ModelFileError, FileAccessError)

    @cached_property
    def arrays(self):
        rng = np.random.default_rng(3)
        shapes = {"W1": (4, 3), "b1": (3,), "W2": (3, 2), "b2": (2,)}
        return {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}

    @cached_property
    def seeds(self):
        doubles = {name: np.asfortranarray(a, "f8") for name, a in self.arrays.items()}
        swapped = {name: a.astype(">f8") for name, a in self.arrays.items()}
        seeds = [pickle.dumps(self.arrays, protocol) for protocol in range(6)]
        return [*seeds, *(pickle.dumps(arrays, 4) for arrays in (doubles, swapped))]

    @cached_property
    def worst(self):
        dumps = pickle.dumps
        huge = {**self.arrays, "b1": np.full(3, 1e300)}
        signalling = {**self.arrays, "b1": np.full(3, 0x7FF0000000000001, "u8").view("f8")}
        call = b"chostile_readers\nfall\n"
        return ODD_PLACES | {
            "a call": b"\x80\x02" + call + b"(tR.",
            "a call of INST": b"(ihostile_readers\nfall\n.",
            "a call of OBJ": b"(" + call + b"o.",
            "a call of NEWOBJ": b"\x80\x02" + call + b")\x81.",
            "a call of NEWOBJ_EX": b"\x80\x04" + call + b")}\x92.",
            "a call of BUILD": b"\x80\x02" + call + b")\x81}b.",
            "numbers beyond float32": dumps(huge),
            "NaN that signals": dumps(signalling),
            "objects": dumps({**self.arrays, "b1": np.array([None])}),
            "arrays in lists": dumps({name: a.tolist() for name, a in self.arrays.items()}),
            "doubled tuples as a name": b"\x80\x04})" + b"2\x86" * 64 + b"Ns.",
        }

    @cached_property
    def dear(self):
        return {
            "120 MB of one array": lambda: pickle.dumps({"W1": np.zeros(30_000_000, "f4")}),
            "120 MB of instructions": lambda: b"\x80\x04" + b"N" * 120_000_000,
        }

    def hostile(self, random):
        if random.random() < 0.3:
            return inputs.random_pickle(random, FUNCTIONS)
        if random.random() < 0.6:
            return inputs.pickle_with(random, random.choice(self.seeds), FUNCTIONS)
        arrays = dict(self.arrays)
        name = random.choice(list(arrays))
        odd = [np.nan, np.inf, 1e300, True, 7, None, "text", 1j, {"a": 1}, b"ab", fall, os.system]
        change = random.choice(
            [
                lambda a: a.astype(
                    random.choice(["f2", "f8", ">f4", "i4", "?", "c8", "O", "S4", "U2"])
                ),
                lambda a: a.T,
                lambda a: a[:0],
                lambda a: a[None],
                lambda a: np.full(a.shape, random.choice([np.nan, np.inf, 1e300])),
                lambda a: random.choice(odd),
                lambda a: a.view(np.recarray),
            ]
        )
        arrays[random.choice([name, name, "W3", "", "\0", "é"])] = change(arrays[name])
        return pickle.dumps(arrays, random.randrange(6))

    def subject(self):
        CALLS.clear()
        network = Network([Affine(3), ReLU(), Affine(2)], (4,))
        return network, network.params.buffer.copy()

    def read(self, path, subject):
        load_book_parameters(subject[0], path)

    def check(self, content, value, subject):
        assert not CALLS
        assert all(np.isfinite(array).all() for array in subject[0].arrays().values())
        changed = subject[0].params.buffer.tobytes() != subject[1].tobytes()
        assert changed or not any(self.arrays["W1"].ravel())

    def unchanged(self, subject):
        assert not CALLS
        assert subject[0].params.buffer.tobytes() == subject[1].tobytes()


TORCH_FUNCTIONS = [*FUNCTIONS, (b"torch._utils", b"_rebuild_tensor_v2"), (b"torch", b"load")]
TORCH_FUNCTIONS += [(b"torch", b"FloatStorage"), (b"collections", b"OrderedDict")]


class TorchFile(Reader):
    name = "weights of others"
    allowed = (ModelFileError, FileAccessError)

    @cached_property
    def arrays(self):
        rng = np.random.default_rng(4)
        shapes = {"0.weight": (3, 4), "0.bias": (3,), "2.weight": (2, 3), "2.bias": (2,)}
        arrays = {name: rng.standard_normal(shape).astype("f4") for name, shape in shapes.items()}
        return {**arrays, "1.num_batches_tracked": np.array(3)}

    @cached_property
    def seeds(self):
        arrays = self.arrays
        wide = {name: a.astype("f8") for name, a in arrays.items()}
        inside = b"}" + torch_files.items([("model", torch_files.state_dict(arrays))])
        return [
            torch_files.zipped(arrays),
            torch_files.legacy(arrays),
            torch_files.zipped(wide, byteorder="big"),
            torch_files.legacy(wide, little=False),
            torch_files.zipped(arrays, pickled=inside),
            save_tensors(arrays),
        ]

    @cached_property
    def worst(self):
        arrays, call = self.arrays, b"chostile_readers\nfall\n"
        lies = {"offset": 2**31 - 1, "shape": (2**31 - 1,) * 3, "strides": (0, 0, 0)}
        huge = {**arrays, "0.bias": np.full(3, 1e300)}
        head, tail = torch_files.MAGIC, torch_files.zipped(arrays)[-22:]
        return ODD_PLACES | {
            "a call": torch_files.zipped(arrays, pickled=call + b"(tR"),
            "a call, legacy": torch_files.legacy(arrays, pickled=call + b"(tR"),
            "a call of BUILD": torch_files.zipped(arrays, pickled=call + b")\x81}b"),
            "numbers beyond float32": torch_files.zipped(huge),
            "an array of 2^93 numbers": torch_files.zipped(arrays, lies={"0.bias": lies}),
            "1 GB behind a legacy head": sparse(10**9, head),
            "1 GB before the end of a zip file": sparse(10**9, b"PK\3\4", tail),
            "lists of lists": torch_files.zipped(arrays, pickled=b"]" * 90_000 + b"a" * 89_999),
            "doubled tuples": torch_files.zipped(arrays, pickled=b"})" + b"2\x86" * 64 + b"Ns"),
            "a list of itself": torch_files.zipped(arrays, pickled=b"]q\0h\0a"),
            "a dict of itself": torch_files.zipped(
                arrays, pickled=b"}q\0" + torch_files.text("model") + b"h\0s"
            ),
            "a text of 4 GB": torch_files.legacy(arrays, pickled=b"X\xff\xff\xff\xff"),
        }

    @cached_property
    def dear(self):
        return {
            "16 MB of instructions": lambda: torch_files.zipped(
                self.arrays, pickled=b"N" * 16_000_000
            ),
            "16 MB of instructions, legacy": lambda: torch_files.legacy(
                self.arrays, pickled=b"N" * 16_000_000
            ),
            "many members": lambda: inputs.zip_file(
                [(f"a/{i}", b"") for i in range(40_000)], zipfile.ZIP_STORED
            ),
        }

    def hostile(self, random):
        make = random.choice([torch_files.zipped, torch_files.legacy])
        if random.random() < 0.2:
            return make(self.arrays, pickled=inputs.random_pickle(random, TORCH_FUNCTIONS)[:-1])
        if random.random() < 0.3:
            content = torch_files.state_dict(self.arrays, legacy=make is torch_files.legacy)
            return make(self.arrays, pickled=inputs.pickle_with(random, content, TORCH_FUNCTIONS))
        numbers = [0, 1, 2, 3, 4, 12, 255, 2**31 - 1, -1]
        kind = random.choice(["Half", "Double", "Long", "BFloat16", "Bool", "X"])
        lie = {
            "count": random.choice(numbers),
            "offset": random.choice(numbers),
            "shape": [random.choice(numbers) for _ in range(random.randrange(4))],
            "strides": [random.choice(numbers) for _ in range(random.randrange(4))],
            "storage": f"{kind}Storage",
            "rebuild": random.choice(["_rebuild_parameter", "_rebuild_tensor", "eval"]),
        }
        told = random.sample(list(lie), random.choice([1, 1, 1, 2]))
        name = random.choice(list(self.arrays))
        return make(self.arrays, lies={name: {part: lie[part] for part in told}})

    def subject(self):
        CALLS.clear()
        network = Network([Affine(3), ReLU(), Affine(2)], (4,))
        return network, network.params.buffer.copy()

    def read(self, path, subject):
        load_torch(subject[0], path, {"affine1": "0", "affine2": "2"})

    def check(self, content, value, subject):
        assert not CALLS
        assert all(np.isfinite(array).all() for array in subject[0].arrays().values())

    def unchanged(self, subject):
        assert not CALLS
        assert subject[0].params.buffer.tobytes() == subject[1].tobytes()


# ---- pictures -------------------------------------------------------------------------------


def digit():
    image = Image.new("L", (40, 36), 255)
    ImageDraw.Draw(image).line([(8, 8), (30, 10), (14, 30)], fill=10, width=4)
    return image


def saved(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(width, height, *chunks, **fields):
    body = b"".join(inputs.chunk(*chunk) for chunk in chunks)
    return inputs.SIGNATURE + inputs.header(width, height, **fields) + body


def noughts(size):
    return b"IDAT", zlib.compress(bytes(size))


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n%%EndComments\nshowpage\n"


class Picture(Reader):
    name = "picture"
    allowed = (ImageError, FileAccessError)

    @cached_property
    def seeds(self):
        image = digit()
        alpha = image.convert("RGBA")
        alpha.putalpha(Image.eval(image, lambda level: 255 - level))
        exif = Image.Exif()
        exif[0x0112] = 6
        deep = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
        pngs = [image, alpha, deep, *map(image.convert, ["1", "P", "LA", "RGB"])]
        return [
            *(saved(png, "PNG") for png in pngs),
            saved(image, "PNG", exif=exif),
            saved(image.convert("P"), "PNG", transparency=3),
            saved(image, "PNG", transparency=255),
            saved(image, "PNG", save_all=True, append_images=[image.rotate(90)]),  # an APNG
            *self.others,
        ]

    @cached_property
    def others(self):
        """The same in other formats, which may be called .png."""
        image = digit()
        return [
            saved(image, "JPEG"),
            saved(image.convert("RGB"), "JPEG", progressive=True),
            saved(image.convert("CMYK"), "JPEG"),
            saved(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
            saved(image.convert("RGB"), "BMP"),
            saved(image, "TIFF"),
            saved(image.convert("RGB"), "TIFF", compression="tiff_lzw"),
            saved(image, "TIFF", compression="tiff_adobe_deflate"),
            saved(Image.fromarray(np.asarray(image).astype(np.float32)), "TIFF"),
            saved(image.convert("RGB"), "WEBP"),
            saved(image, "PPM"),
        ]

    @cached_property
    def worst(self):
        end = b"IEND", b""
        black = zlib.compress(bytes(4000 * 4001), 1)
        tile = saved(Image.new("RGB", (16, 16)), "TIFF")
        scans, last = self.scans
        return ODD_PLACES | {
            "2^31 - 1 pixels each way": png(2**31 - 1, 2**31 - 1, noughts(100), end),
            "60,000 pixels each way": png(60_000, 60_000, noughts(100), end),
            "as many pixels as can be, no data": png(4000, 4000, noughts(100), end),
            "as many pixels as can be": png(4000, 4000, (b"IDAT", black), end),
            "a bomb of data": png(100, 100, noughts(10**7), end),
            "a bomb of text": png(9, 9, (b"zTXt", b"a\0\0" + noughts(10**7)[1]), noughts(90), end),
            "a bomb of a profile": png(9, 9, (b"iCCP", b"a\0\0" + noughts(10**7)[1]), end),
            "many bombs of text": png(
                9, 9, *[(b"zTXt", b"a\0\0" + noughts(1_000_000)[1])] * 300, noughts(90), end
            ),
            "a million chunks": lambda: png(9, 9) + inputs.chunk(b"teXt") * 10**6,
            "a million pieces of data": lambda: png(9, 9) + inputs.chunk(b"IDAT") * 10**6,
            "a chunk of 2 GB": png(9, 9) + inputs.chunk(b"teXt", b"a", length=2**31 - 1),
            "a palette without colours": png(9, 9, (b"PLTE", b""), noughts(90), end, colour=3),
            "10,000 scans": scans[:last] + self.one_scan * 10_000 + scans[last:],
            "2 million comments of JPEG": scans[:2] + b"\xff\xfe\0\2" * 2_000_000 + scans[2:],
            "2 million extensions of GIF": b"GIF89a\1\0\1\0\0\0\0" + b"!\xfe\1a\0" * 2_000_000,
            "a comment of PPM of 10 MB": b"P5 #" + b"a" * 10_000_000 + b"\n9 9 255\n" + bytes(81),
            "digits of PPM of 10 MB": b"P2 9 9 255\n" + b"1" * 10_000_000,
            "PostScript": POSTSCRIPT,
            "PostScript of Windows": b"\xc5\xd0\xd3\xc6" + bytes(28) + POSTSCRIPT,
            "a tile that lies": tile.replace((16).to_bytes(2, "little"), b"\xff\xff"),
        }

    @cached_property
    def scans(self):
        """A progressive JPEG of a million pixels, and where the last of its scans begins."""
        content = saved(self.large.convert("L").resize((1000, 1000)), "JPEG", progressive=True)
        return content, content.rindex(b"\xff\xda")

    @property
    def one_scan(self):
        content, last = self.scans
        return content[last : last + 10] + b"\x01\x3f\x00"

    @cached_property
    def large(self):
        image = Image.new("RGB", (4000, 4000), "white")
        image.paste(digit().resize((2000, 2000)), (900, 900))
        return image

    @cached_property
    def dear(self):
        image, end = self.large, (b"IEND", b"")
        deep = Image.fromarray(np.asarray(image)[..., 0].astype("u2"))
        white = Image.new("RGB", (7000, 7000), "white")
        kinds = {
            "RGBA": lambda: saved(image.convert("RGBA"), "PNG"),
            "a colour transparent": lambda: saved(image, "PNG", transparency=(255, 255, 255)),
            "16 bits": lambda: saved(deep, "PNG"),
            "WebP": lambda: saved(image, "WEBP", quality=1, method=0),
            "GIF": lambda: saved(image.convert("L"), "GIF"),
            "TIFF": lambda: saved(image, "TIFF", compression="tiff_lzw"),
            "interlaced": lambda: png(
                4000, 4000, noughts(4000 * 4002 * 3), end, colour=2, interlace=1
            ),
        }
        return {f"4000 pixels each way, {kind}": make for kind, make in kinds.items()} | {
            "a line of 16 million": lambda: png(15_999_999, 1, noughts(20_000_000), end),
            "a column of 8 million": lambda: png(1, 7_999_999, noughts(20_000_000), end),
            "60 MB in a chunk": lambda: png(9, 9, (b"IDAT", bytes(60_000_000))),
            "7000 pixels each way, JPEG": lambda: saved(white, "JPEG"),
            "7000 pixels each way, progressive": lambda: saved(
                white.convert("L"), "JPEG", progressive=True
            ),
            "40 scans of 15 million pixels": lambda: self.many_scans(
                white.resize((3870, 3870)), 40
            ),
            "40 scans of 50 million pixels": lambda: self.many_scans(white, 40),
            "12 scans of 50 million pixels": lambda: self.many_scans(white, 12),
        }

    def many_scans(self, image, scans):
        content = saved(image.convert("L"), "JPEG", progressive=True)
        last = content.rindex(b"\xff\xda")
        scan = content[last:-2]
        return content[:last] + scan * (scans - content.count(b"\xff\xda")) + content[last:]

    def hostile(self, random):
        if random.random() < 0.1:
            return random.choice([*self.others, b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>"])
        content = random.choice(self.seeds[: -len(self.others)])
        for _ in range(random.choice([1, 1, 2, 4])):
            content = inputs.hostile_chunks(random, content)
            if content.count(b"IHDR") != 1 or len(content) < 60:
                break
        return content

    def read(self, path, subject):
        return prepare_digit(path)

    def check(self, content, value, subject):
        assert value.shape == (28, 28)
        assert value.dtype == np.float32
        assert np.isfinite(value).all()
        assert value.min() == 0
        assert 0 < value.max() <= 1


# ---- records ----------------------------------------------------------------------------------


class Record(Reader):
    """The record of a run that is to go on."""

    name = "history.json"
    allowed = (ModelFileError, ArgumentError, FileAccessError)
    file_name = "history.json"

    @property
    def may_remove(self):
        return self.folder / "checkpoint.safetensors"  # of a run that is finished

    @cached_property
    def seeds(self):
        records = []
        for recipe, more in (("fast", {}), ("book", {"batch_size": {0: 50, 1: 100}, "members": 2})):
            options = make_options(recipe, data="mnist", seed=1, dtype="float32", **more)
            told = {"finished": False, "losses": [0.5, 0.25], "epochs": [], "seconds": 1.5}
            record = {"options": asdict(options), "machine": {}, **told}
            records.append((json.dumps(record) + "\n").encode())
        return records

    @cached_property
    def worst(self):
        text = self.seeds[0].decode()
        return ODD_PLACES | {
            "120 MB of spaces": b" " * 120_000_000,
            "millions of lists": lambda: b"[" + b"[]," * 10_000_000 + b"0]",
            "UTF-16": text.encode("utf-16"),
            "UTF-32": text.encode("utf-32"),
            "a mark of byte order": b"\xef\xbb\xbf" + text.encode(),
        }

    @cached_property
    def dear(self):
        text = self.seeds[0].decode()
        return {
            "millions of numbers": lambda: b"[" + b"300," * 10_000_000 + b"0]",
            "as many numbers as can be": lambda: b"[" + b"300," * (files.MOST_VALUES - 100) + b"0]",
            "as many texts as can be": lambda: b"[" + b'"ab1",' * (files.MOST_VALUES - 100) + b"0]",
            "a text of 47 MB": lambda: b'"' + b"\\u0041" * 7_800_000 + b'"',
            "a model of 47 MB": lambda: text.replace("DeepConvNet", "a" * 47_000_000).encode(),
        }

    def hostile(self, random):
        record = json.loads(random.choice(self.seeds))
        if random.random() < 0.5:
            record["options"] = inputs.mutate_json(random, record["options"])
        else:
            record = inputs.mutate_json(random, record)
        text = inputs.to_json(record)
        if random.random() < 0.1:
            text = text[:-1] + "," + text[1:]
        return text.encode(random.choice(["utf-8"] * 9 + ["utf-16", "utf-32-le"]))

    def read(self, path, subject):
        return unfinished_options(path.parent, read_record(path.parent))

    def check(self, content, value, subject):
        assert isinstance(value, RunOptions)
        files.write_json(self.folder / "again.json", asdict(value))


class Index(Reader):
    """The index of an ensemble; its members are right."""

    name = "ensemble.json"
    allowed = (ModelFileError, FileAccessError)
    file_name = "ensemble.json"

    @cached_property
    def seeds(self):
        for i in range(2):
            network = Network([Affine(3)], (4,), seed=i)
            network.save(self.folder / f"member-{i}.safetensors")
        return [json.dumps({"format": "xpdl-ensemble-1", "members": n}).encode() for n in (1, 2)]

    @cached_property
    def worst(self):
        index = '{"format": "xpdl-ensemble-1", "members": %s}'
        counts = [
            "0",
            "-1",
            "3",
            "true",
            "1.0",
            "1e3",
            "1e999",
            "NaN",
            "null",
            "9" * 400,
            "9" * 5000,
        ]
        return ODD_PLACES | {f"members {n[:9]}": (index % n).encode() for n in counts}

    def hostile(self, random):
        value = inputs.mutate_json(random, json.loads(random.choice(self.seeds)))
        return inputs.to_json(value).encode()

    def read(self, path, subject):
        return load_ensemble(path.parent)

    def check(self, content, value, subject):
        assert len(value) == json.loads(content)["members"]


class SearchFile(Reader):
    """The trials of a search of hyperparameters that goes on."""

    name = "search"
    allowed = (ModelFileError, ArgumentError, FileAccessError)

    def subject(self):
        x = np.linspace(-1, 1, 24, dtype="float32").reshape(12, 2)
        made = []

        def make(values, train, validation, seed):
            made.append(values)
            if len(made) > 1 and self.loading:  # the first says what the search is of
                raise Loaded
            network = Network([Affine(values["size"]), ReLU(), Affine(3)], (2,), seed=seed)
            options = {"epochs": 1, "batch_size": 4, "seed": seed, "progress": False}
            return Trainer(network, train, validation, optimizer=SGD(values["rate"]), **options)

        ranges = {"rate": LogUniform(1e-3, 0.1), "size": Choice([2, 3])}
        data = (x, np.arange(12) % 3)
        return RandomSearch(ranges, make, data=data, trials=2, progress=False, path=self.path)

    loading = True

    @cached_property
    def seeds(self):
        self.loading = False
        put(ODD_PLACES["nothing"], self.path)
        self.subject().run()
        self.loading = True
        whole = json.loads(self.path.read_bytes())
        return [json.dumps(whole | {"trials": whole["trials"][:n]}).encode() for n in range(3)]

    @cached_property
    def worst(self):
        # Without a file, or with a link to nothing, a search begins.
        begins = ("nothing", "a link to itself")
        return {name: case for name, case in ODD_PLACES.items() if name not in begins}

    def hostile(self, random):
        value = json.loads(random.choice(self.seeds))
        if random.random() < 0.7 and value["trials"]:
            value["trials"] = inputs.mutate_json(random, value["trials"])
        else:
            value = inputs.mutate_json(random, value)
        return inputs.to_json(value).encode()

    def read(self, path, subject):
        try:
            return subject.run()
        except Loaded:
            return None

    def check(self, content, value, subject):
        if value is not None:
            assert len(value.trials) == 2
            assert value.table()
            json.dumps(value.as_dict(), allow_nan=False)


READERS: list[type[Reader]] = [
    Idx,
    Gzip,
    DataFolder,
    Table,
    Wheel,
    NetworkFile,
    Checkpoint,
    HalfCheckpoint,
    Pickle,
    TorchFile,
    Picture,
    Record,
    Index,
    SearchFile,
]


def reader_of(name, folder):
    """Return the reader `name`, to work in a folder of its own."""
    place = Path(folder) / name.replace(" ", "-")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return {kind.name: kind for kind in READERS}[name](place)
