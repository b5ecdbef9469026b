"""Training: the loop, what it shows, what it leaves; searches and ensembles made of many."""

from xpdl.training.ensemble import Ensemble, load_ensemble, train_ensemble
from xpdl.training.history import Epoch, History
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
from xpdl.training.trainer import Trainer

__all__ = [
    "RECIPES",
    "Choice",
    "Ensemble",
    "Epoch",
    "History",
    "LogUniform",
    "MedianRule",
    "Progress",
    "RandomSearch",
    "Range",
    "Recipe",
    "SearchResult",
    "Trainer",
    "Trial",
    "Uniform",
    "load_ensemble",
    "train_ensemble",
]
