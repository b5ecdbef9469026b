"""Training: the loop, what it remembers and what it shows."""

from xpdl.training.averaging import MovingAverage
from xpdl.training.history import Epoch, History
from xpdl.training.progress import Progress
from xpdl.training.step import Step
from xpdl.training.trainer import Trainer

__all__ = ["Epoch", "History", "MovingAverage", "Progress", "Step", "Trainer"]
