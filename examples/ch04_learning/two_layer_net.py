"""A network of two layers learns digits from mini-batches, and knows those it has not seen.

Book, section 4.5; figures 4-11 and 4-12. Its gradients come from backpropagation; the
numerical gradient, by which the book introduces them, is compared at the end.
"""

import time

import xpdl
from xpdl import numerical_gradient, plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import Batches, load_mnist
from xpdl.models import TwoLayerNet

LEARNING_RATE = 0.1


def main(experiment: Experiment) -> None:
    train, test = load_mnist()
    steps = experiment.choose(quick=1000, full=10_000)
    network = TwoLayerNet(784, 50, 10, activation="sigmoid", seed=experiment.seed)
    batches = Batches(*train, 100, backend=network.backend, seed=experiment.seed)

    def accuracies():
        return [network.accuracy(*data, batch_size=1000) for data in (train, test)]

    losses, curve = [], []
    for step, (x, t) in enumerate(batches.steps(steps)):
        if step % len(batches) == 0:
            curve.append((step / len(batches), *accuracies()))
        loss, _ = network.forward_backward(x, t)
        for name, W in network.params.items():
            W -= LEARNING_RATE * network.grads[name]
        losses.append(loss)  # stays on the device until all is done
    train_accuracy, test_accuracy = accuracies()
    curve.append((steps / len(batches), train_accuracy, test_accuracy))

    host_losses = xpdl.to_numpy(network.backend.xp.stack(losses))
    record = experiment.record
    record("loss of the first 100 steps", host_losses[:100].mean(), ".3f")
    record("loss of the last 100 steps", host_losses[-100:].mean(), ".3f")
    record("training accuracy", train_accuracy, ".2%")
    record("test accuracy", test_accuracy, ".2%")
    record("training less test accuracy", train_accuracy - test_accuracy, ".2%")
    names = experiment.choose(quick=["affine2.b"], full=list(network.params))
    computed, numerical, difference = compare(network.astype("float64"), x, t, names)
    record("ms for all gradients by backpropagation", 1000 * computed, ".1f")
    record("ms for a single one numerically", 1000 * numerical, ".3f")
    record("mean difference of the two", difference, ".1e")

    experiment.save(plots.curves({"loss": host_losses}, "loss", xlabel="step"), "loss")
    epochs, train_line, test_line = zip(*curve, strict=True)
    lines = {"training images": (epochs, train_line), "test images": (epochs, test_line)}
    experiment.save(plots.curves(lines, "accuracy", xlabel="epoch", ylim=(0, 1)), "accuracy")


def compare(network, x, t, names):
    """Compare the two kinds of gradient by the parameters `names`.

    Returns the seconds of a whole gradient by backpropagation, those of a single number of it
    numerically, and the mean absolute difference.
    """
    start = time.perf_counter()
    gradients = network.gradient(x, t)
    network.backend.synchronize()
    whole, start = time.perf_counter() - start, time.perf_counter()
    difference, count = 0.0, 0
    for name in names:
        numerical = numerical_gradient(lambda W: network.loss(x, t), network.params[name])
        difference += network.backend.item(abs(numerical - gradients[name]).sum())
        count += numerical.size
    return whole, (time.perf_counter() - start) / count, difference / count


if __name__ == "__main__":
    run(main)
