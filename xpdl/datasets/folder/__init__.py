"""A folder of pictures, a folder for each class, as a data set; and one picture in its form."""

from xpdl.datasets.folder.load import load_folder
from xpdl.datasets.folder.prepare import prepare_picture

__all__ = ["load_folder", "prepare_picture"]
