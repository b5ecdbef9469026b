"""Training: the loop, what it shows, what it leaves."""

from xpdl.training.history import Epoch, History
from xpdl.training.progress import Progress
from xpdl.training.recipes import RECIPES, Recipe
from xpdl.training.trainer import Trainer

__all__ = ["RECIPES", "Epoch", "History", "Progress", "Recipe", "Trainer"]
