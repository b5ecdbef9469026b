"""What takes several trainings: searches, learning-rate sweeps, ensembles; where time goes."""

from xpdl.tuning.ensemble import Ensemble, load_ensemble, train_ensemble
from xpdl.tuning.learning_rate import RateSweep, find_learning_rate
from xpdl.tuning.search import (
    Choice,
    LogUniform,
    MedianRule,
    RandomSearch,
    Range,
    SearchResult,
    Trial,
    Uniform,
)
from xpdl.tuning.shifts import ShiftAverage

__all__ = [
    "Choice",
    "Ensemble",
    "LogUniform",
    "MedianRule",
    "RandomSearch",
    "Range",
    "RateSweep",
    "SearchResult",
    "ShiftAverage",
    "Trial",
    "Uniform",
    "find_learning_rate",
    "load_ensemble",
    "train_ensemble",
]
