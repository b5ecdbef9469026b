"""VGG, GoogLeNet and ResNet, drawn as the graphs that they are.

Book, sections 8.2.2 to 8.2.4; figures 8-9 to 8-13. Each picture is made of the model itself: its
layers from above to below, and the shapes that pass between them. Of GoogLeNet the first of its
modules, of ResNet a block with its way around, and the whole, in which each block is one node.
"""

from xpdl import Network, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.layers import layer_from_config
from xpdl.models import VGG, GoogLeNet, ResNet


def alone(network, name):
    """Return a block of a network, drawn from within: as a network of its own."""
    first = next(place for place in network.body.places if place.name.startswith(f"{name}."))
    block = layer_from_config(network.body.layers[name].config())
    return Network(block, network.body.shapes[first.reads[0]], initialize=False)


def main(experiment: Experiment) -> None:
    vgg = VGG(16, initialize=False)
    googlenet = GoogLeNet(heads=False, initialize=False)
    resnet = ResNet(34, initialize=False)
    pictures = {
        "vgg": (vgg, "VGG16"),
        "inception": (googlenet.upto("concatenate1"), "GoogLeNet to its first Inception module"),
        "googlenet": (googlenet.upto("concatenate3"), "GoogLeNet to the third of its nine modules"),
        "block": (alone(resnet, "residual4"), "A block of ResNet-34 that changes the shape"),
        "resnet": (resnet, "ResNet-34"),
    }
    parts = experiment.choose(quick=["inception", "block"], full=list(pictures))
    for part, (network, title) in pictures.items():
        if part in parts:
            experiment.save(plots.network_graph(network, title, blocks=part == "resnet"), part)
    for network, title, published in (
        (vgg, "VGG16", 138_357_544),
        (googlenet, "GoogLeNet", 6_998_552),
        (resnet, "ResNet-34", 21_797_672),
    ):
        count = sum(array.size for array in network.params.values())
        experiment.record(f"parameters of {title}, and published", (count, published), ",")


if __name__ == "__main__":
    run(main)
