"""What the filters of the first layer become by learning, and what two of them see in a picture.

Book, section 7.6; figures 7-24 and 7-25. At first the weights are noise; some training makes them
patches and edges, whose neighbouring weights are alike. Of the learned filters, one that answers to
vertical edges and one that answers to horizontal edges are slid over a drawn picture.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.layers import Convolution
from xpdl.models import SimpleConvNet

KINDS = ["vertical edges", "horizontal edges"]


def likeness(w):
    """Return how far neighbouring weights of w (FN, FH, FW) are alike; 0 if not at all.

    mean of w[i, j] w[i, j+1] and w[i, j] w[i+1, j], over the mean of w[i, j]^2
    """
    across, down = w[:, :, 1:] * w[:, :, :-1], w[:, 1:] * w[:, :-1]
    return 0.5 * (across.mean() + down.mean()) / (w * w).mean()


def edge_filters(w):
    """Return which of the filters w (FN, 5, 5) answers most to vertical, to horizontal edges.

    |sum of j w[i, j]| with j from -2 to 2 is large where one side is light and the other dark.
    """
    xp = xpdl.array_module(w)
    place = xp.arange(5, dtype=w.dtype) - 2
    length = xp.sqrt((w * w).sum(axis=(1, 2)))
    across = abs((w * place).sum(axis=(1, 2))) / length
    down = abs((w * place[:, None]).sum(axis=(1, 2))) / length
    return xp.stack([(across - down).argmax(), (down - across).argmax()])


def draw_house(xp, dtype):
    """Return a picture (96, 96), 0 black and 1 white."""
    across = xp.arange(96, dtype=dtype)
    down = across[:, None]
    picture = xp.broadcast_to(0.95 - 0.004 * down, (96, 96)).copy()  # the sky
    picture[70:] = 0.35  # the meadow
    picture[(down > 18) & (down < 38) & (abs(across - 46) < 1.5 * (down - 18))] = 0.2  # the roof
    picture[38:80, 22:70] = 0.7  # the wall
    for left in (28, 54):
        picture[46:58, left : left + 11] = 0.1  # a window and its bars
        picture[46:58, left + 5] = picture[52, left : left + 11] = 0.7
    picture[62:80, 42:51] = 0.25  # the door
    picture[66:68, 70:] = 0.9  # the fence
    for left in range(72, 96, 5):
        picture[60:82, left : left + 2] = 0.9
    return picture


def main(experiment: Experiment) -> None:
    images = experiment.choose(quick=2000, full=60000)
    (x, t), _ = xpdl.datasets.load_mnist(flatten=False)
    network = SimpleConvNet(seed=experiment.seed)
    W = network.params["conv1.W"]
    before = W.copy()
    xpdl.Trainer(network, (x[:images], t[:images]), epochs=2, seed=experiment.seed).fit()
    experiment.record("likeness of neighbouring weights at first", likeness(before[:, 0]), ".2f")
    experiment.record("likeness of neighbouring weights at last", likeness(W[:, 0]), ".2f")
    experiment.save(plots.filters({"before training": before, "after training": W}))

    chosen = W[edge_filters(W[:, 0])]
    layer = Convolution(chosen - chosen.mean(axis=(2, 3), keepdims=True), None)  # even areas give 0
    xp = xpdl.array_module(W)
    picture = draw_house(xp, W.dtype)
    maps = layer.forward(picture[None, None])[0]
    experiment.save(plots.feature_maps(picture, layer.params["W"][:, 0], maps, KINDS), "maps")
    edge = xp.zeros((9, 9), dtype=W.dtype)
    edge[:, 5:] = 1
    for kind, picture in zip(KINDS, (edge, edge.T), strict=True):
        answers = abs(layer.forward(picture[None, None])).max(axis=(0, 2, 3))
        experiment.record(f"how far the two filters answer to {kind}", answers, ".2f")


if __name__ == "__main__":
    run(main)
