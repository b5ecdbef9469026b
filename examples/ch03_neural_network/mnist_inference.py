"""Digits recognised by a network of 784-50-100-10, one by one and in batches of 100.

Book, section 3.6. The book loads weights that were learned before; here they
are learned. `xpdl.storage.load_book_parameters` reads the book's file, sample_weight.pkl.
"""

import time

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.models import MultiLayerNet


def infer(network, x, batch_size):
    """Return the answers (N,) for x (N, 784), and the seconds they took."""
    backend = network.backend
    start = time.perf_counter()
    answers = [
        network.predict(x[i : i + batch_size]).argmax(axis=1) for i in range(0, len(x), batch_size)
    ]
    backend.synchronize()
    return backend.xp.concatenate(answers), time.perf_counter() - start


def main(experiment: Experiment) -> None:
    (x_train, t_train), (x_test, t_test) = load_mnist()
    images, epochs, tests = experiment.choose(quick=(10_000, 3, 2000), full=(60_000, 5, 10_000))
    network = MultiLayerNet(784, [50, 100], activation="sigmoid", seed=experiment.seed)
    xpdl.Trainer(
        network,
        (x_train[:images], t_train[:images]),
        optimizer=xpdl.optimizers.Adam(0.005),
        epochs=epochs,
        seed=experiment.seed,
        progress=False,
    ).fit()

    x, t = x_test[:tests], t_test[:tests]
    for name, batch_size in (("one by one", 1), ("in batches of 100", 100)):
        answers, seconds = infer(network, x, batch_size)
        share = network.backend.item((answers == t).mean(dtype="float32"))
        experiment.record(f"test accuracy, {name}", share, ".2%", book="93.52 %")
        experiment.record(f"ms a digit, {name}", 1000 * seconds / tests, ".4f")
    pairs = zip(xpdl.to_numpy(answers[:24]).tolist(), xpdl.to_numpy(t[:24]).tolist(), strict=True)
    titles = [
        str(answer) if answer == label else f"{answer}, is {label}" for answer, label in pairs
    ]
    figure = plots.picture_grid(
        x[:24].reshape(-1, 28, 28), titles, "digits and the answers to them"
    )
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
