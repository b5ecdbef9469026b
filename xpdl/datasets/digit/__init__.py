"""A picture of a digit, brought to MNIST's form."""

from xpdl.datasets.digit.prepare import prepare_digit

__all__ = ["prepare_digit"]
