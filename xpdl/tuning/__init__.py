"""What takes several trainings: searches, learning-rate sweeps, ensembles; where time goes."""

from xpdl.tuning.ensemble import Ensemble, load_ensemble, train_ensemble
from xpdl.tuning.learning_rate import RateSweep, find_learning_rate
from xpdl.tuning.ranges import Choice, LogUniform, Range, Uniform
from xpdl.tuning.results import SearchResult
from xpdl.tuning.search import RandomSearch
from xpdl.tuning.shifts import ShiftAverage
from xpdl.tuning.trials import MedianRule, Trial

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
