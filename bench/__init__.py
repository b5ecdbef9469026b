"""Measurements of xpdl beside its peers: ``python -m bench --help``."""
