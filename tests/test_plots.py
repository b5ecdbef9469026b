"""Pictures: what is drawn is what was given, from any backend, and nonsense is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from xpdl import plots
from xpdl.errors import ArgumentError, ShapeError, UnknownNameError
from xpdl.models import SimpleConvNet


def pixels(figure):
    """Draw a figure, as a file would have it, and return its grey values."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=60)
    return np.asarray(Image.open(stream).convert("L"))


def texts(figure):
    from matplotlib.text import Text

    return {text.get_text() for text in figure.findobj(Text) if text.get_text()}


def bowl(x, y):
    return x**2 + y**2


def each_kind(asarray):
    """Return a figure of each kind, of arrays made by `asarray`."""
    rng = np.random.default_rng(0)
    floats = lambda *shape: asarray(rng.random(shape, dtype=np.float32))  # noqa: E731
    return {
        "curves": plots.curves({"a": floats(5), "b": ([1, 2], [3, 4])}, "title", xlabel="x"),
        "curve_grid": plots.curve_grid({"one": {"a": floats(5)}, "two": {"a": floats(5)}}),
        "learning_curves": plots.learning_curves([3.0, 2.0], [0.5], [0.6]),
        "network_graph": plots.network_graph(SimpleConvNet()),
        "rate_curve": plots.rate_curve([1e-3, 1e-2, 0.1], floats(3), floats(3), 0.02, "rates"),
        "layer_histograms": plots.layer_histograms({"He": {"1": floats(50), "2": floats(5, 5)}}),
        "confusion_matrix": plots.confusion_matrix(asarray(np.arange(3)), [0, 1, 1]),
        "layer_times": plots.layer_times(["conv1", "pool1"], [1e-3, 2e-4], [2e-3, 1e-4]),
        "picture_grid": plots.picture_grid(floats(10, 1, 6, 6), columns=4),
        "misclassified": plots.misclassified(rng.random((2, 6, 6)), [1, 2], [3, 4]),
        "filters": plots.filters({"before": floats(12, 2, 3, 3), "after": floats(12, 2, 3, 3)}),
        "feature_maps": plots.feature_maps(floats(9, 9), floats(2, 3, 3), floats(2, 7, 7)),
        "surface": plots.surface(bowl, (-1, 1), (-1, 1)),
        "gradient_field": plots.gradient_field(*(floats(3, 3) for _ in range(4))),
        "optimizer_paths": plots.optimizer_paths(bowl, {"SGD": floats(4, 2)}, (-2, 2), (-1, 1)),
        "decision_regions": plots.decision_regions(
            {"x1": lambda x: (x[:, 0] > 0.5).astype("int64")}, floats(4, 2), {"x1": [0, 1, 0, 1]}
        ),
        "computational_graph": plots.computational_graph(
            {"apple": (0, 0), "×#1": (1, 0)}, [plots.Edge("apple", "×#1", "100", "2.2")]
        ),
    }


def test_every_kind_takes_arrays_of_any_backend(backend):
    assert set(each_kind(backend.asarray)) == set(plots.__all__) - {"Edge"}


def test_every_kind_has_ink_inside_and_none_at_the_edges():
    # Labels that are cut off would leave ink in the outermost pixels.
    for name, figure in each_kind(np.asarray).items():
        grey = pixels(figure)
        assert 0.001 < (grey < 200).mean() < 0.9, f"{name} is blank"
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        assert border.min() > 200, f"{name} is cut off"


def test_curves_draw_the_numbers_given_and_means_of_the_last():
    figure = plots.curves({"y": [1.0, 3.0, 5.0, 7.0]}, smooth=2, ylim=(0, 9))
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(line.get_ydata(), [1, 2, 4, 6])
    np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2, 3])
    assert figure.axes[0].get_ylim() == (0, 9)
    figure = plots.curves({"a": ([5, 6], [1, 2]), "b": [1, None, 3]})
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_xdata(), [5, 6])
    assert {"a", "b"} <= texts(figure)


def test_the_smoothed_loss_of_a_short_training_does_not_lag():
    losses = np.linspace(3, 1, 40)
    figure = plots.learning_curves(losses)
    smooth = figure.axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(smooth[-1], losses[-4:].mean())
    long = plots.learning_curves(np.linspace(3, 1, 1000)).axes[0].lines[1].get_ydata()
    np.testing.assert_allclose(long[-1], np.linspace(3, 1, 1000)[-50:].mean())


def test_a_mean_loses_nothing_to_what_is_far_larger():
    heights = [1e20, 1.0, 2.0, 3.0]
    line = plots.curves({"y": heights}).axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), heights)
    long = plots.learning_curves([1e18] + [2.0] * 300).axes[0].lines[1].get_ydata()
    np.testing.assert_array_equal(long[-200:], 2.0)
    assert np.isnan(plots.curves({"y": [1, None, 3]}, smooth=2).axes[0].lines[0].get_ydata()[1])


def test_a_grid_has_a_panel_for_each_entry_and_each_name_once():
    panels = {str(i): {"train": [0, i], "test": [i, 0]} for i in range(5)}
    figure = plots.curve_grid(panels, "title", columns=3)
    drawn = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title() for axes in drawn] == list("01234")
    assert {"train", "test", "title"} <= texts(figure)


def test_a_histogram_shows_the_share_of_numbers():
    figure = plots.layer_histograms({"row": {"layer": [0.05, 0.05, 0.95, 7.0]}}, bins=10)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(heights, [50, 0, 0, 0, 0, 0, 0, 0, 0, 25])


def test_a_confusion_matrix_counts():
    figure = plots.confusion_matrix([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0])
    axes = figure.axes[0]
    counts = {(text.get_position(), text.get_text()) for text in axes.texts}
    # Positions are (column: the answer, row: the label).
    assert counts == {((0, 0), "1"), ((1, 0), "1"), ((1, 1), "1"), ((2, 2), "2"), ((0, 2), "1")}
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0, 1, 0], [0, 0, 0], [1, 0, 0]])


def test_filters_of_all_blocks_are_drawn():
    rng = np.random.default_rng(1)
    weights = rng.random((7, 3, 2, 2))
    figure = plots.filters({"before": weights, "after": 2 * weights}, columns=4)
    drawn = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(drawn) == 14
    np.testing.assert_array_equal(drawn[3], weights[3, 0])
    np.testing.assert_array_equal(drawn[7 + 6], 2 * weights[6, 0])


def test_misclassified_digits_beyond_the_most_are_told():
    images = np.zeros((5, 4, 4))
    figure = plots.misclassified(images, [0] * 5, [1] * 5, title="5 wrong: ", most=3)
    assert sum(bool(axes.images) for axes in figure.axes) == 3
    assert "5 wrong: label → inference (the first 3 of 5)" in texts(figure)
    assert "none misclassified" in texts(plots.misclassified(images[:0], [], []))


def test_a_path_is_drawn_as_it_went_and_the_lowest_place_has_a_cross():
    path = np.array([[-1.5, 0.5], [-0.5, 0.2], [0.0, 0.0]])
    figure = plots.optimizer_paths(bowl, {"a": path, "b": path[:2]}, (-2, 2), (-1, 1))
    way, cross = figure.axes[0].lines
    np.testing.assert_array_equal(np.stack(way.get_data(), axis=1), path)
    np.testing.assert_allclose(np.ravel(cross.get_data()), [0, 0], atol=0.02)


def test_regions_are_where_the_classifier_says(backend):
    figure = plots.decision_regions(
        {"left": lambda x: (x[:, 0] < 0).astype("int64")},
        [[-1.0, 0.0], [1.0, 0.0]],
        {"left": [1, 0]},
        xlim=(-2, 2),
        ylim=(-2, 2),
    )
    grey = pixels(figure)
    middle = grey[grey.shape[0] // 2 + 15]
    inside = np.flatnonzero(middle < 250)
    dark = (middle[inside[0] : inside[-1]] < 240).mean()
    assert 0.3 < dark < 0.7
    circles, triangles = figure.axes[0].lines
    assert circles.get_xdata().tolist() == [1]
    assert triangles.get_xdata().tolist() == [-1]


def test_a_graph_has_its_values_and_not_what_tells_nodes_apart():
    nodes = {"apple": (0, 1), "×#1": (1, 1), "×#2": (2, 1)}
    edges = [plots.Edge("apple", "×#1", "100", "2.2"), plots.Edge("×#1", "×#2", "200", "1.1")]
    assert texts(plots.computational_graph(nodes, edges)) >= {"apple", "×", "100", "2.2", "200"}
    with pytest.raises(UnknownNameError, match=r"unknown node 'tax'; the choices are apple"):
        plots.computational_graph(nodes, [plots.Edge("tax", "×#1")])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.curve_grid({}), ArgumentError, "panels is empty"),
        (
            lambda: plots.curve_grid({"a": {"x": [1]}, "b": {"x": [1], "y": [2]}}),
            ArgumentError,
            r"same names.*\['x'\] in the first and \['x', 'y'\] in 'b'",
        ),
        (
            lambda: plots.optimizer_paths(lambda x, y: 0 * x, {"a": [[0, 0]]}, (0, 1), (0, 1)),
            ArgumentError,
            "f has no contours: it is 0 everywhere",
        ),
        (lambda: plots.confusion_matrix([0.9], [1]), ArgumentError, "labels must be whole"),
        (
            lambda: plots.misclassified(np.zeros((1, 2, 2)), [-1], [0]),
            ArgumentError,
            "classes begin at 0, got -1",
        ),
        (lambda: plots.curves({"a": np.zeros((2, 2))}), ArgumentError, "line 'a' must be values"),
        (lambda: plots.curves({"a": ([1], [1, 2])}), ArgumentError, r"got shapes \(1,\) and \(2,"),
        (lambda: plots.curves({"a": [1]}, smooth=0), ArgumentError, "smooth must be an int"),
        (lambda: plots.layer_histograms({}), ArgumentError, "rows is empty"),
        (lambda: plots.confusion_matrix([], []), ArgumentError, "labels and answers must be"),
        (lambda: plots.confusion_matrix([1], [1, 2]), ArgumentError, "of one length"),
        (
            lambda: plots.confusion_matrix([3], [1], ["a"]),
            ArgumentError,
            "from 0 to 0, got from 1 to 3",
        ),
        (lambda: plots.picture_grid(np.zeros((2, 2, 4, 4))), ShapeError, r"must be \(N, H, W\)"),
        (lambda: plots.picture_grid(np.zeros((2, 4, 4)), ["a"]), ArgumentError, "1 titles for 2"),
        (lambda: plots.misclassified(np.zeros((1, 2, 2)), [], []), ArgumentError, "one length"),
        (lambda: plots.filters({}), ArgumentError, "weights is empty"),
        (lambda: plots.filters({"a": np.zeros((2, 2))}), ShapeError, "'a' must be"),
        (
            lambda: plots.feature_maps(np.zeros((2, 2)), np.zeros((1, 2, 2)), np.zeros((2, 1, 1))),
            ShapeError,
            "image, weights and maps",
        ),
        (lambda: plots.surface(bowl, (1, 0), (0, 1)), ArgumentError, "xlim must be"),
        (lambda: plots.optimizer_paths(bowl, {}, (0, 1), (0, 1)), ArgumentError, "paths is empty"),
        (
            lambda: plots.optimizer_paths(bowl, {"a": np.zeros(3)}, (0, 1), (0, 1)),
            ShapeError,
            "path 'a' must be",
        ),
        (
            lambda: plots.gradient_field([1], [1], [1], [1, 2]),
            ShapeError,
            "must be of one shape",
        ),
        (lambda: plots.decision_regions({}, [], {}), ArgumentError, "the same names"),
        (lambda: plots.layer_times(["a"], [], []), ArgumentError, "equally many"),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
