"""``python -m xpdl``: the command ``xpdl``."""

import sys

from xpdl.cli import main

sys.exit(main())
