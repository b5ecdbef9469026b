"""Any data set of pictures: by its name, or by where its files lie."""

from __future__ import annotations

import os
from typing import Any

from xpdl.arguments import path_of
from xpdl.datasets.catalogue import DATA_SETS
from xpdl.datasets.picture_data import PictureData
from xpdl.errors import ArgumentError, UnknownNameError


def load(
    source: str | os.PathLike[str],
    *,
    offline: bool | None = None,
    split: float | None = 0.1,
    seed: int = 0,
    quiet: bool = False,
    **options: Any,
) -> PictureData:
    """Return a data set of pictures.

    Parameters
    ----------
    source : str or path
        A name, 'mnist', 'fashion-mnist' or 'cifar-10'; or a folder with a folder of pictures for
        each class (`load_folder`), an .npz file (`load_npz`), IDX files or their folder
        (`load_idx`). A folder that is called as a data set is written with a separator,
        ``./mnist``.
    offline : bool, optional
        Of a data set by name: True never uses the network; None lets ``XPDL_OFFLINE`` say so.
    split, seed
        Of others, where they have no test pictures: the share to set aside, and how.
    quiet : bool
        Whether to leave what there is to say at `notes`, rather than to print it.
    **options
        Of `load_folder`: size, channels, skip_broken, in_memory, workers.

    Raises
    ------
    UnknownNameError
        If there is neither a data set nor a file or folder of that name.
    ArgumentError
        If options are given that are of folders, for something else.
    DataError, FileAccessError
        If the data cannot be had or read; see those functions.
    """
    # They bring in much of the standard library, and `import xpdl` shall be quick.
    from xpdl.datasets.folder import load_folder
    from xpdl.datasets.idx_files import has_idx_files, load_idx
    from xpdl.datasets.npz import load_npz

    path = path_of("source", source)
    named = isinstance(source, str) and source in DATA_SETS
    if not named and not path.exists():
        choices = [*DATA_SETS, "or a folder, an .npz file or an IDX file that exists"]
        raise UnknownNameError("data set", os.fspath(source), choices)
    if not named and path.is_dir() and not has_idx_files(path):
        return load_folder(path, split=split, seed=seed, quiet=quiet, **options)
    if options:
        raise ArgumentError(
            f"{', '.join(options)}: only of a folder of pictures, which {str(source)!r} is not; "
            "leave it out."
        )
    if named:
        return _by_name(str(source), offline, quiet)
    if path.suffix.lower() == ".npz":
        return load_npz(path, split=split, seed=seed, quiet=quiet)
    return load_idx(path, split=split, seed=seed, quiet=quiet)


def _by_name(name: str, offline: bool | None, quiet: bool) -> PictureData:
    from xpdl.datasets.arrays import data_of_arrays
    from xpdl.datasets.cifar import read_cifar10
    from xpdl.datasets.mnist import read_mnist

    arrays = read_cifar10(offline) if name == "cifar-10" else read_mnist(name, offline)
    parts = {"train": (arrays.x_train, arrays.t_train), "test": (arrays.x_test, arrays.t_test)}
    return data_of_arrays(parts, class_names=DATA_SETS[name].class_names, split=None, quiet=quiet)
