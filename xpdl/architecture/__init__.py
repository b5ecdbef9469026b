"""What a network is, apart from what it computes; no batch comes here.

How its layers are described, made, frozen, copied, saved, shown, and given random numbers.
"""

from xpdl.architecture.looking import Looking
from xpdl.architecture.moving import FILE_FORMAT, Moving
from xpdl.architecture.reading import described, losses_of

__all__ = ["FILE_FORMAT", "Looking", "Moving", "described", "losses_of"]
