"""A network whose weights and data are halved to 16 bits reads digits as well as before.

Book, section 8.3.4. The network is trained in float32; half of the bits are then thrown away. What
each layer makes of the same images differs by about as much as one rounding to float16, which is at
most one part in 2,048.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.models import DeepConvNet, SimpleConvNet
from xpdl.optimizers import Adam


def size_of(arrays):
    return sum(array.nbytes for array in arrays)


def weights_of(network):
    """Return the parameters as the layers use them."""
    layers = network.body.layers.values()
    return [array for layer in layers for array in layer.params.values()]


def difference(single, half):
    """Return how far one array is from the other: the mean of |half - single| over |single|'s."""
    wide = half.astype(single.dtype)
    return abs(wide - single).mean() / abs(single).mean()


def main(experiment: Experiment) -> None:
    images, tested, epochs = experiment.choose(quick=(2000, 1000, 2), full=(60000, 10000, 2))
    (x, t), (x_test, t_test) = xpdl.datasets.load_mnist(flatten=False)
    x_test, t_test = x_test[:tested], t_test[:tested]
    network = (
        SimpleConvNet(dtype="float32", seed=experiment.seed)
        if experiment.quick
        else DeepConvNet(drop_scores=False, dtype="float32", seed=experiment.seed)
    )
    trainer = xpdl.Trainer(
        network,
        (x[:images], t[:images]),
        optimizer=Adam(0.004),
        schedule="one-cycle",
        epochs=epochs,
        seed=experiment.seed,
        checkpoint=experiment.checkpoint(f"seed{experiment.seed}"),
    )
    experiment.fit(trainer)

    half = network.astype("float16")
    x_half = x_test.astype("float16")
    accuracies = [network.accuracy(x_test, t_test), half.accuracy(x_half, t_test)]
    experiment.record("test accuracy, float32 and float16", accuracies, ".2%", book="the same")
    answers, answers_half = (
        xpdl.to_numpy(scores.argmax(axis=1))
        for scores in (network.predict(x_test), half.predict(x_half))
    )
    experiment.record("answers that differ", (answers != answers_half).mean(), ".2%")

    outputs, outputs_half = network.activations(x_test[:100]), half.activations(x_half[:100])
    sizes = {
        "weights": (weights_of(network), weights_of(half)),
        "outputs of all layers for 100 images": (outputs.values(), outputs_half.values()),
    }
    for what, pair in sizes.items():
        experiment.record(f"bytes of the {what}", [size_of(arrays) for arrays in pair], ",d")
    names = [name for name in outputs if name.startswith(("conv", "affine"))]
    differences = xpdl.array_module(x).stack(
        [difference(outputs[name], outputs_half[name]) for name in names]
    )
    experiment.record("difference of the scores", differences[-1], ".1e")
    figure = plots.curves(
        {"float16 from float32": differences, "1 / 2048": [2**-11] * len(names)},
        "What each layer makes of the same images",
        ylabel="relative difference",
        ylim=(0, None),
        xticks=range(len(names)),
        xticklabels=names,
    )
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
