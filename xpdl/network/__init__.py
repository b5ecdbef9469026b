"""A network: layers, a loss, and the book's verbs."""

from xpdl.architecture import FILE_FORMAT, described
from xpdl.architecture.random_numbers import WEIGHT_STREAM
from xpdl.network.network import Network

__all__ = ["FILE_FORMAT", "WEIGHT_STREAM", "Network", "described"]
