"""The data: MNIST and Fashion-MNIST, fetched and verified, and pictures made to look like them."""

from xpdl.datasets.augmentation import (
    Augmentation,
    Brightness,
    ColorJitter,
    Compose,
    Crop,
    Cutout,
    Elastic,
    Erase,
    Flip,
    Mixup,
    Noise,
    OfRows,
    Rotate,
    Shear,
    Shift,
    Zoom,
    make_augmentation,
)
from xpdl.datasets.batches import Batches
from xpdl.datasets.catalogue import DATA_SETS
from xpdl.datasets.cifar import CifarArrays, read_cifar10
from xpdl.datasets.digit import prepare_digit
from xpdl.datasets.folder import load_folder, prepare_picture
from xpdl.datasets.idx import decode_idx, encode_idx
from xpdl.datasets.idx_files import load_idx
from xpdl.datasets.load import load
from xpdl.datasets.mnist import (
    CLASS_NAMES,
    MnistArrays,
    load_fashion_mnist,
    load_mnist,
    read_mnist,
    split_validation,
)
from xpdl.datasets.npz import load_npz
from xpdl.datasets.picture_data import PictureData
from xpdl.datasets.sources import FileStatus, data_folder, folder_status
from xpdl.datasets.stored import StoredPictures

__all__ = [
    "CLASS_NAMES",
    "DATA_SETS",
    "Augmentation",
    "Batches",
    "Brightness",
    "CifarArrays",
    "ColorJitter",
    "Compose",
    "Crop",
    "Cutout",
    "Elastic",
    "Erase",
    "FileStatus",
    "Flip",
    "Mixup",
    "MnistArrays",
    "Noise",
    "OfRows",
    "PictureData",
    "Rotate",
    "Shear",
    "Shift",
    "StoredPictures",
    "Zoom",
    "data_folder",
    "decode_idx",
    "encode_idx",
    "folder_status",
    "load",
    "load_fashion_mnist",
    "load_folder",
    "load_idx",
    "load_mnist",
    "load_npz",
    "make_augmentation",
    "prepare_digit",
    "prepare_picture",
    "read_cifar10",
    "read_mnist",
    "split_validation",
]
