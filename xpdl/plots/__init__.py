"""Pictures, one function a kind; each returns a Matplotlib figure, drawn without a window.

``figure.savefig("name.png")`` writes one to a file; a notebook shows it as it is. Arrays may live
on any backend.
"""

from xpdl.plots.charts import confusion_matrix, layer_histograms, layer_times
from xpdl.plots.curves import curve_grid, curves, learning_curves, rate_curve
from xpdl.plots.graphs import Edge, computational_graph
from xpdl.plots.networks import network_graph
from xpdl.plots.pictures import feature_maps, filters, misclassified, picture_grid
from xpdl.plots.planes import decision_regions, gradient_field, optimizer_paths, surface

__all__ = [
    "Edge",
    "computational_graph",
    "confusion_matrix",
    "curve_grid",
    "curves",
    "decision_regions",
    "feature_maps",
    "filters",
    "gradient_field",
    "layer_histograms",
    "layer_times",
    "learning_curves",
    "misclassified",
    "network_graph",
    "optimizer_paths",
    "picture_grid",
    "rate_curve",
    "surface",
]
