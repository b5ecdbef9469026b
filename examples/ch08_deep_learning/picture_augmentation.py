"""Pictures turned, moved and otherwise changed at random are worth more pictures.

Book, section 8.1.2; figure 8-4. A network that has few digits to learn from learns them by heart;
when it sees each of them anew in every epoch it reads others better. A mirrored digit is none, so
that flipping, which the book names too, is only drawn.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets.augmentation import (
    Brightness,
    Compose,
    Crop,
    Elastic,
    Erase,
    Flip,
    Noise,
    Rotate,
    Shear,
    Shift,
    Zoom,
)
from xpdl.models import SimpleConvNet
from xpdl.optimizers import Adam

KINDS = {
    "turned": Rotate(20),
    "moved": Shift(4),
    "zoomed": Zoom(0.3),
    "slanted": Shear(20),
    "cropped": Crop(22),
    "mirrored": Flip(),
    "bent": Elastic(1.4),
    "darkened": Brightness((0.3, 1)),
    "noisy": Noise(0.1),
    "covered": Erase(8),
}


def draw_kinds(x, seed):
    """Return a figure of the pictures x (N, 1, 28, 28), and a row of each kind of change."""
    xp, backend = xpdl.array_module(x), xpdl.backend_of(x)
    rows = [x, *(augment(x, backend.generator(seed)) for augment in KINDS.values())]
    titles = [title for name in ["as it is", *KINDS] for title in [name, *[""] * (len(x) - 1)]]
    return plots.picture_grid(xp.concatenate(rows), titles, columns=len(x), limits=(0, 1), size=0.8)


def main(experiment: Experiment) -> None:
    images, watched, tested, epochs, filters = experiment.choose(
        quick=(200, 100, 1000, 40, 8), full=(1000, 1000, 10000, 60, 30)
    )
    (x, t), (x_test, t_test) = xpdl.datasets.load_mnist(flatten=False)
    experiment.save(draw_kinds(x[:8], experiment.seed))

    curves = {}
    for name, augment in (
        ("without augmentation", None),
        ("with augmentation", Compose([Rotate(10), Shift(2), Zoom(0.1)])),
    ):
        network = SimpleConvNet(filters=filters, weight_init_std="he", seed=experiment.seed)
        trainer = xpdl.Trainer(
            network,
            (x[:images], t[:images]),
            (x_test[:watched], t_test[:watched]),
            optimizer=Adam(0.004),
            schedule="cosine",
            epochs=epochs,
            seed=experiment.seed,
            augment=augment,
        )
        curves[name] = [epoch.test_accuracy for epoch in trainer.fit().epochs]
        accuracy = network.accuracy(x_test[:tested], t_test[:tested])
        experiment.record(f"test accuracy {name}", accuracy, ".2%")
    title = f"A network that learns from {images:,} digits"
    labels = {"xlabel": "epoch", "ylabel": "test accuracy"}
    experiment.save(plots.curves(curves, title, smooth=3, **labels), "curves")


if __name__ == "__main__":
    run(main)
