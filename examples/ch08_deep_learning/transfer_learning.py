"""What a network has learned from a million photographs helps where there are a thousand.

Book, section 8.2.5. MobileNetV2 with ImageNet's weights learns the ten classes of CIFAR-10 from
1,000 pictures, enlarged to 96 x 96: first a new head alone; then all but batch normalisation, the
head at three times the rate, averaged. Beside it are a linear model of what the untouched network
sees (ridge regression, its penalty chosen on a fifth of the labels), and the same network from
first weights, three times as long, with mixed pictures and smoothed labels. The pictures are
fetched from their publisher; the variable XPDL_CIFAR10 may name a folder of them instead, as JPEG.
"""

import os

import numpy as np
from PIL import Image

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets.augmentation import Compose, Flip, Mixup, Shift
from xpdl.layers import BatchNormalization, Normalize
from xpdl.losses import SoftmaxWithLoss
from xpdl.models import MobileNetV2, head_of, new_head
from xpdl.optimizers import Adam


def enlarge(x, side):
    """Return pictures (N, C, H, W) as (N, C, side, side), by cubic interpolation."""
    pictures = [Image.fromarray(p.transpose(1, 2, 0)).resize((side, side)) for p in x]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def some_of_each(t, count, generator):
    """Return the places of `count` labels, as many of each class."""
    each = count // 10
    return np.concatenate([generator.permutation(np.flatnonzero(t == k))[:each] for k in range(10)])


def ridge(x, t, penalty):
    """Return W (D + 1, 10) that brings features x (N, D), and a 1, close to one-hot labels."""
    x = np.column_stack([x, np.ones(len(x))])
    return np.linalg.solve(x.T @ x + penalty * len(x) * np.eye(x.shape[1]), x.T @ np.eye(10)[t])


def linear_accuracy(x, t, x_test, t_test):
    """Return the test accuracy of ridge regression, its penalty chosen on a fifth of x."""
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    aside = np.arange(len(x)) % 5 == 0

    def accuracy(W, x, t):
        answers = (x @ W[:-1] + W[-1]).argmax(axis=1)
        return float((answers == t).mean())

    best = max(
        (10.0**k for k in range(-3, 4)),
        key=lambda p: accuracy(ridge(x[~aside], t[~aside], p), x[aside], t[aside]),
    )
    return accuracy(ridge(x, t, best), x_test, t_test)


def main(experiment: Experiment) -> None:
    labels, tested, watched, side, first, epochs, alone = experiment.choose(
        quick=(20, 20, 10, 32, 1, 1, 1), full=(1000, 10000, 500, 96, 5, 20, 60)
    )
    seed = experiment.seed
    data = xpdl.datasets.load(os.environ.get("XPDL_CIFAR10", "cifar-10"))
    generator = np.random.default_rng(seed)
    chosen = some_of_each(data.train[1], labels, generator)
    generator.shuffle(chosen)
    x, t = enlarge(data.train[0][chosen], side), data.train[1][chosen]
    assert data.test is not None
    order = generator.permutation(len(data.test[1]))[:tested]
    x_test, t_test = enlarge(data.test[0][order], side), data.test[1][order]
    watch = (x_test[:watched], t_test[:watched])
    curves = {}

    def train(network, optimizer, epochs, schedule=None, average=None, more=()):
        trainer = xpdl.Trainer(
            network,
            (x, t),
            watch,
            optimizer=optimizer,
            schedule=schedule,
            epochs=epochs,
            batch_size=min(50, labels),
            seed=seed,
            augment=Compose([Flip(), Shift(side // 12), *more]),
            average=average,
        )
        return [epoch.test_accuracy for epoch in experiment.fit(trainer).epochs]

    trained = xpdl.models.pretrained("mobilenet_v2")
    network = new_head(trained, data.class_names, input_shape=(3, side, side), seed=seed)
    place = [name for name in network.body.layers if name != head_of(network)][-1]
    eye = network.upto(place)
    seen, seen_test = (xpdl.to_numpy(eye.predict(xpdl.asarray(p))) for p in (x, x_test))
    linear = linear_accuracy(seen, t, seen_test, t_test)
    experiment.record("test accuracy, linear on frozen features", linear, ".2%")

    curve = train(network, Adam(0.003), first)
    network.unfreeze()
    leaves = network.leaves().items()
    network.freeze(*(name for name, leaf in leaves if isinstance(leaf, BatchNormalization)))
    gentle = Adam(0.001, rate_factors={head_of(network): 3})
    curve += train(network, gentle, epochs, "one-cycle", average=0.99)
    curves["with ImageNet's weights"] = curve
    accuracy = network.accuracy(xpdl.asarray(x_test), t_test)
    experiment.record("test accuracy, fine-tuned", accuracy, ".2%")

    scratch = MobileNetV2(
        (3, side, side),
        10,
        normalize=Normalize(255, (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)),
        loss=SoftmaxWithLoss(label_smoothing=0.1),
        seed=seed,
    )
    curves["from first weights"] = train(
        scratch, Adam(0.004), alone, "one-cycle", average=0.99, more=[Mixup(0.2)]
    )
    accuracy = scratch.accuracy(xpdl.asarray(x_test), t_test)
    experiment.record("test accuracy, from first weights", accuracy, ".2%")
    experiment.record("labelled pictures", labels)

    title = f"MobileNetV2 learns from {labels:,} pictures of CIFAR-10"
    ylabel = f"accuracy on {len(watch[1]):,} test pictures"
    experiment.save(plots.curves(curves, title, xlabel="epoch", ylabel=ylabel))


if __name__ == "__main__":
    run(main)
