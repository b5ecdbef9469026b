"""The command `xpdl`, and the frame of the examples."""

import sys

import xpdl

if xpdl.__file__ is None:
    # Python takes a folder without an __init__.py for a package, too, and may find it first.
    folders = " and ".join(map(repr, xpdl.__path__))
    print(
        f"xpdl: an older installation left a folder that hides this one; delete {folders}.",
        file=sys.stderr,
    )
    sys.exit(2)
