"""A network is drawn as the graph that it is."""

from __future__ import annotations

from typing import Any

import pytest

from xpdl import Input, Network, plots
from xpdl.errors import ArgumentError
from xpdl.layers import Add, Affine, Convolution, ReLU, Residual
from xpdl.plots.networks import _layout


def branched() -> Network:
    x = Input((2, 6, 6))
    y = ReLU()(Convolution(3, 3, pad=1)(x))
    z = Convolution(3, 1)(x)
    return Network(x, Affine(4)(Add()(y, z)), name="Branched")


def texts(figure: Any) -> list[str]:
    return [t.get_text() for axes in figure.axes for t in axes.texts if t.get_text()]


def test_layers_and_shapes_are_in_the_picture(tmp_path: Any) -> None:
    figure = plots.network_graph(branched())
    seen = texts(figure)
    for name in ("x", "conv1  Convolution", "relu1  ReLU", "add1  Add", "affine1  Affine"):
        assert name in seen
    assert seen.count("2 x 6 x 6") == 2  # to both branches
    assert seen.count("3 x 6 x 6") == 4
    figure.savefig(tmp_path / "graph.png")
    assert (tmp_path / "graph.png").stat().st_size > 5000


def test_branches_stand_side_by_side_and_nothing_lies_on_another() -> None:
    network = branched()
    depth, lane = _layout(["x"], {p.name: p.reads for p in network.body.places})
    places = [(depth[name], lane[name]) for name in depth]
    assert len(set(places)) == len(places)
    assert lane["conv1"] != lane["conv2"]
    assert depth["add1"] == 3


def test_a_block_may_be_one_node() -> None:
    block = Residual([Convolution(2, 3, pad=1), ReLU()], Convolution(2, 1))
    network = Network([ReLU(), block, Affine(4)], (2, 6, 6), name="Blocks")
    seen = texts(plots.network_graph(network, blocks=True))
    names = {"x", "relu1  ReLU", "residual1  Residual", "affine1  Affine"}
    assert {text for text in seen if "x 6" not in text} == names
    assert seen.count("2 x 6 x 6") == 3
    assert "residual1.conv1  Convolution" in texts(plots.network_graph(network))
    assert texts(plots.network_graph(branched(), blocks=True)) == texts(
        plots.network_graph(branched())
    )


def test_anything_else_is_refused() -> None:
    with pytest.raises(ArgumentError, match="network must be a Network"):
        plots.network_graph([Affine(2)])
