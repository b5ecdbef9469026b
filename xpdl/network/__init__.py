"""A network: layers, a loss, and the book's verbs."""

from xpdl.network.network import (
    FILE_FORMAT,
    WEIGHT_STREAM,
    Network,
    count_hits,
    network_from_config,
)

__all__ = ["FILE_FORMAT", "WEIGHT_STREAM", "Network", "count_hits", "network_from_config"]
