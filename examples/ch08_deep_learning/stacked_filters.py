"""Two filters of 3x3 behind each other see as much as one of 5x5, with fewer weights.

Book, section 8.1.3; figures 8-5 and 8-6. What an output sees is measured: its gradient is not zero
at just those pixels that it depends on. With weights of one, it counts the ways from a pixel to the
output.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.layers import Convolution, Sequential

SIDE = 9


def stack(*sizes):
    """Return convolutions behind each other, one channel each, whose weights are all one."""
    filters = [xpdl.asarray([[[[1.0] * size] * size]]) for size in sizes]
    return Sequential([Convolution(W, None, pad=W.shape[-1] // 2) for W in filters])


def receptive_field(network):
    """Return the gradient of the output in the middle by each pixel, (SIDE, SIDE)."""
    x = xpdl.asarray([[[[0.0] * SIDE] * SIDE]])
    dout = network.forward(x, train=True)
    dout[...] = 0
    dout[..., SIDE // 2, SIDE // 2] = 1
    return network.backward(dout)[0, 0]


def main(experiment: Experiment) -> None:
    stacks = {
        "one 5x5": stack(5),
        "two 3x3": stack(3, 3),
        "one 7x7": stack(7),
        "three 3x3": stack(3, 3, 3),
    }
    fields = {name: receptive_field(network) for name, network in stacks.items()}
    xp = xpdl.array_module(*fields.values())
    seen = {name: xpdl.to_numpy((field != 0).any(axis=0)).sum() for name, field in fields.items()}
    weights = {
        name: sum(layer.params["W"].size for layer in network.layers.values())
        for name, network in stacks.items()
    }
    for pair, book in ((("one 5x5", "two 3x3"), "25, 18"), (("one 7x7", "three 3x3"), "49, 27")):
        label = " and ".join(pair)
        experiment.record(f"weights of {label}", [weights[name] for name in pair], "d", book=book)
        experiment.record(f"width of what {label} see", [seen[name] for name in pair], "d")
    titles = [
        f"{name}: sees {seen[name]}x{seen[name]},\n{weights[name]} weights" for name in stacks
    ]
    pictures = [xp.sqrt(field / field.max()) for field in fields.values()]  # corners show so
    experiment.save(plots.picture_grid(xp.stack(pictures), titles, cmap="Blues", size=2))


if __name__ == "__main__":
    run(main)
