"""``python -m xpdl``: the command ``xpdl``."""

import sys

from xpdl.cli.main import main

sys.exit(main())
