"""A folder of pictures, a folder for each class, as a data set."""

from xpdl.datasets.folder.load import load_folder

__all__ = ["load_folder"]
