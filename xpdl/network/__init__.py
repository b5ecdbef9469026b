"""A network: layers, a loss, and the book's verbs."""

from xpdl.network.moving import FILE_FORMAT
from xpdl.network.network import Network, network_from_config
from xpdl.network.parts import WEIGHT_STREAM, described

__all__ = ["FILE_FORMAT", "WEIGHT_STREAM", "Network", "described", "network_from_config"]
