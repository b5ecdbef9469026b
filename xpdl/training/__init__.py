"""Training: the loop, what it shows, what it leaves; searches and ensembles made of many."""

from xpdl.training.averaging import MovingAverage
from xpdl.training.ensemble import Ensemble, load_ensemble, train_ensemble
from xpdl.training.history import Epoch, History
from xpdl.training.learning_rate import RateSweep, find_learning_rate
from xpdl.training.progress import Progress
from xpdl.training.recipes import RECIPES, Recipe
from xpdl.training.search import (
    Choice,
    LogUniform,
    MedianRule,
    RandomSearch,
    Range,
    SearchResult,
    Trial,
    Uniform,
)
from xpdl.training.shifts import ShiftAverage
from xpdl.training.trainer import Trainer

__all__ = [
    "RECIPES",
    "Choice",
    "Ensemble",
    "Epoch",
    "History",
    "LogUniform",
    "MedianRule",
    "MovingAverage",
    "Progress",
    "RandomSearch",
    "Range",
    "RateSweep",
    "Recipe",
    "SearchResult",
    "ShiftAverage",
    "Trainer",
    "Trial",
    "Uniform",
    "find_learning_rate",
    "load_ensemble",
    "train_ensemble",
]
