"""A small convolutional network learns to read digits.

Book, section 7.5; figure 7-23. One convolution of 30 filters 5x5, a pooling and
two affine layers: every pixel keeps its neighbours, which a network of affine layers alone throws
away.
"""

import xpdl
from xpdl import plots
from xpdl.experiment import Experiment, run
from xpdl.models import SimpleConvNet
from xpdl.optimizers import Adam


def main(experiment: Experiment) -> None:
    images, tested, epochs = experiment.choose(quick=(3000, 1000, 2), full=(60000, 10000, 20))
    (x, t), (x_test, t_test) = xpdl.datasets.load_mnist(flatten=False)
    train, test = (x[:images], t[:images]), (x_test[:tested], t_test[:tested])
    network = SimpleConvNet(seed=experiment.seed)
    print(network.summary())
    trainer = xpdl.Trainer(
        network,
        train,
        test,
        optimizer=Adam(0.001),
        epochs=epochs,
        batch_size=100,
        seed=experiment.seed,
        checkpoint=experiment.checkpoint(),
    )
    history = experiment.fit(trainer)
    accuracies = [(epoch.train_accuracy, epoch.test_accuracy) for epoch in history.epochs]
    seen, unseen = zip(*accuracies, strict=True)
    title = f"SimpleConvNet on {images:,} digits"
    experiment.save(plots.learning_curves(history.losses, seen, unseen, title))
    experiment.record("training accuracy", network.accuracy(*train), ".2%", book="99.82 %")
    experiment.record("test accuracy", network.accuracy(*test), ".2%", book="98.96 %")


if __name__ == "__main__":
    run(main)
