"""Graphs, charts and curves: nothing covers anything else, and what is missing is left out."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation
from PIL import Image

from xpdl import plots
from xpdl.errors import ArgumentError
from xpdl.plots import Edge

NODES = {
    "price of an apple": (0, 1),
    "tax rate": (1, 0),
    "×#1": (1, 1),
    "+": (2, 0),
    "to pay": (2, 2),
}
EDGES = [
    Edge("price of an apple", "×#1", "100", "2.2"),
    Edge("tax rate", "×#1", "1.1", "200"),  # straight up
    Edge("×#1", "+", "110", "1"),  # down
    Edge("×#1", "to pay", "110"),  # no derivative
]


def drawn(figure):
    """Lay a figure out, and return what draws it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def boxes(figure, kinds):
    renderer = drawn(figure)
    return {
        text.get_text(): text.get_window_extent(renderer)
        for axes in figure.axes
        for text in axes.texts
        if text.get_text() in kinds
    }


def arrows(figure):
    return [text for text in figure.axes[0].texts if isinstance(text, Annotation)]


@pytest.mark.parametrize("title", ["", "what fruit costs"])
def test_no_text_of_a_graph_covers_another_or_leaves_the_figure(title):
    edges = [Edge(e.start, e.end, f"v{i}", f"g{i}") for i, e in enumerate(EDGES)]
    figure = plots.computational_graph(NODES, edges, title, size=(6, 3))
    names = {name.partition("#")[0] for name in NODES}
    found = boxes(figure, names | {f"{kind}{i}" for kind in "vg" for i in range(4)})
    assert len(found) == 5 + 8
    for a, b in combinations(found, 2):
        assert not found[a].overlaps(found[b]), f"{a} and {b}"
    for name, box in found.items():
        assert figure.bbox.contains(*box.min), name
        assert figure.bbox.contains(*box.max), name


def test_each_derivative_has_an_arrow_back_beside_the_one_forward():
    figure = plots.computational_graph(NODES, EDGES, size=(6, 3))
    forward_and_back = arrows(figure)
    assert len(forward_and_back) == 4 + 3
    forward, back = forward_and_back[:2]  # of the first edge, from left to right
    assert forward.xyann[0] == pytest.approx(back.xy[0])
    assert forward.xy[0] == pytest.approx(back.xyann[0])
    assert forward.xy[1] == forward.xyann[1] > back.xy[1] == back.xyann[1]
    up, down = forward_and_back[2:4]  # of the second
    assert up.xy[0] == up.xyann[0] < down.xy[0] == down.xyann[0]
    assert up.xy[1] > up.xyann[1]
    assert down.xy[1] < down.xyann[1]


def test_the_value_stands_on_its_own_arrows_side_where_it_was_asked_for():
    places = {}
    for at in (0.2, 0.8):
        edges = [Edge("price of an apple", "×#1", "100", "2.2", at)]
        figure = plots.computational_graph(NODES, edges, size=(6, 3))
        found = boxes(figure, {"100", "2.2"})
        places[at] = found["100"].x0
        line = arrows(figure)[0].xy[1] * figure.dpi / 72
        assert found["100"].y0 > line > found["2.2"].y1
    assert places[0.2] < places[0.8]


def test_the_outermost_nodes_stand_at_the_edges_whatever_the_unit():
    edges = [Edge("×#1", "+")]
    small, large = (
        boxes(
            plots.computational_graph(
                {name: (unit * x, unit * y) for name, (x, y) in NODES.items()}, edges
            ),
            {"to pay", "+"},
        )
        for unit in (1, 250)
    )
    for name in ("to pay", "+"):
        np.testing.assert_allclose(small[name].extents, large[name].extents, atol=1e-6)


@pytest.mark.parametrize(
    ("nodes", "edges", "message"),
    [
        ({}, [], "nodes is empty"),
        ({"a": (0, 0), "b": (0, 0)}, [Edge("a", "b")], "'a' and 'b' stand at one place"),
    ],
)
def test_a_graph_of_nothing_or_without_length_is_refused(nodes, edges, message):
    with pytest.raises(ArgumentError, match=message):
        plots.computational_graph(nodes, edges)


def test_what_is_missing_or_infinite_leaves_a_gap_and_nothing_else():
    values = [1.0, None, 3.0, 5.0, float("inf"), 7.0]
    for smooth, expected in (
        (1, [1, np.nan, 3, 5, np.nan, 7]),
        (2, [1, np.nan, 3, 4, np.nan, 7]),
        (3, [1, np.nan, 2, 4, np.nan, 6]),
    ):
        (line,) = plots.curves({"a": values}, smooth=smooth).axes[0].lines
        np.testing.assert_allclose(line.get_ydata(), expected)


def test_a_tuple_of_two_numbers_is_a_line_of_two():
    (line,) = plots.curves({"a": (0.5, 0.25)}).axes[0].lines
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0.5], [1, 0.25]])


def test_whole_places_have_whole_numbers_below_them():
    for lines in ({"a": [1, 2, 3]}, {"a": ([0.0, 2.0], [1, 2])}, {"a": [5]}):
        axes = plots.curves(lines).axes[0]
        assert all(tick == round(tick) for tick in axes.get_xticks())
    halves = plots.curves({"a": ([0.0, 0.1, 0.2], [1, 2, 3])}).axes[0].get_xticks()
    assert any(tick != round(tick) for tick in halves)
    for axes in plots.learning_curves([3.0], [0.5], [0.6]).axes:
        ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= 1.5]
        assert ticks == [1]


@pytest.mark.parametrize("count", [4, 5])
def test_in_a_grid_the_lowest_of_each_column_says_what_is_below_and_the_legend_is_below_that(count):
    panels = {str(i): {"train": [0, i], "test": [i, 0]} for i in range(count)}
    figure = plots.curve_grid(panels, columns=2, xlabel="epoch")
    renderer = drawn(figure)
    shown = [axes for axes in figure.axes if axes.get_xlabel() == "epoch"]
    assert [axes.get_title() for axes in shown] == [str(i) for i in range(count - 2, count)]
    for axes in shown:
        assert axes.xaxis.get_tick_params()["labelbottom"]
    legend = figure.legends[0].get_window_extent(renderer)
    assert not any(legend.overlaps(axes.get_tightbbox(renderer)) for axes in figure.axes)


def test_a_grid_says_why_a_line_is_missing():
    panels = {"good": {"a": [1, 2, 3], "b": [3, 2, 1]}, "bad": {"a": [1, 2, 3], "b": [0.5]}}
    figure = plots.curve_grid(panels, ended="it overflowed")
    crosses = [
        [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "x"]
        for axes in figure.axes
    ]
    assert crosses == [[], [[[0, 0.5]]]]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["a", "b", "it overflowed"]
    without = plots.curve_grid(panels)
    assert [len(axes.lines) for axes in without.axes] == [2, 2]


LEGENDS = {
    "curves": lambda: plots.curves({f"a line of number {i}": [i, 1, 0] for i in range(7)}),
    "learning_curves": lambda: plots.learning_curves([3.0, 2.0], [0.5], [0.6]),
    "rate_curve": lambda: plots.rate_curve([1e-3, 1e-2, 0.1], [1, 2, 3], [1, 2, 3], 0.02),
    "layer_times": lambda: plots.layer_times(["conv1", "pool1"], [1e-3, 2e-4], [2e-3, 1e-4]),
}


@pytest.mark.parametrize("name", LEGENDS)
def test_a_legend_covers_nothing_and_is_within_the_figure(name):
    figure = LEGENDS[name]()
    renderer = drawn(figure)
    (legend,) = figure.legends
    box = legend.get_window_extent(renderer)
    assert not any(box.overlaps(axes.get_tightbbox(renderer)) for axes in figure.axes)
    assert not any(axes.get_legend() for axes in figure.axes)
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert 0 <= box.y0 < box.y1 <= figure.bbox.height


def test_a_graph_says_what_its_colours_mean():
    def colours(edges):
        figure = plots.computational_graph(NODES, edges)
        return {text.get_color() for text in figure.axes[0].texts if "ward" in text.get_text()}

    assert colours(EDGES) == {"C0", "C3"}
    assert colours([Edge("×#1", "to pay", "110")]) == set()


def test_a_scale_of_shares_ends_where_it_is_told():
    rows = {"a": {"1": [0.0] * 9 + [0.55]}, "b": {"1": [0.25, 0.75]}}
    cut = plots.layer_histograms(rows, bins=10, top=20)
    assert [axes.get_ylim() for axes in cut.axes] == [(0, 20), (0, 20)]
    whole = plots.layer_histograms(rows, bins=10)
    assert whole.axes[0].get_ylim()[1] >= 90


def test_layers_are_named_above_the_first_row_and_where_the_names_change():
    row = {"1": [0.5], "2": [0.5]}
    figure = plots.layer_histograms({"a": row, "b": row, "c": {"x": [0.5], "2": [0.5]}})
    assert [axes.get_title() for axes in figure.axes] == ["1", "2", "", "", "x", "2"]


def test_numbers_on_dark_cells_are_white():
    figure = plots.confusion_matrix([0] * 7 + [1], [1] * 5 + [0] * 2 + [0])
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colours == {"5": "white", "2": "black", "1": "black"}
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    assert np.asarray(Image.open(stream)).std() > 0
