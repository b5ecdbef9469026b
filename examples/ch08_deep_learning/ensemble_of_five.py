"""Five networks that answer together are more often right than each of them alone.

Book, section 8.1.2, which names ensembles as a way past 99.38 %. The networks differ only in their
seed; their probabilities are averaged.
"""

import statistics

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.models import DeepConvNet, TwoLayerNet
from xpdl.optimizers import Adam
from xpdl.tuning.ensemble import Ensemble

MEMBERS = 5


def make_network(experiment, seed):
    if experiment.quick:
        return TwoLayerNet((1, 28, 28), weight_init_std="he", seed=seed)
    return DeepConvNet(drop_scores=False, seed=seed)


def main(experiment: Experiment) -> None:
    images, epochs = experiment.choose(quick=(1000, 12), full=(60000, 4))
    (x, t), (x_test, t_test) = xpdl.datasets.load_mnist(flatten=False)
    members, alone, together = [], [], []
    for seed in range(experiment.seed, experiment.seed + MEMBERS):
        network = make_network(experiment, seed)
        trainer = xpdl.Trainer(
            network,
            (x[:images], t[:images]),
            optimizer=Adam(0.004),
            schedule="one-cycle",
            epochs=epochs,
            batch_size=100,
            seed=seed,
            checkpoint=experiment.checkpoint(f"seed{seed}"),
        )
        experiment.fit(trainer)
        members.append(network)
        alone.append(network.accuracy(x_test, t_test))
        together.append(Ensemble(members).accuracy(x_test, t_test))
        print(f"seed {seed}: {alone[-1]:.2%}; {len(members)} together: {together[-1]:.2%}")
    experiment.record("test accuracy of each", alone, ".2%")
    experiment.record("test accuracy, mean of five", statistics.mean(alone), ".2%")
    experiment.record("test accuracy, five together", together[-1], ".2%", book="past 99.38 %")
    numbers = range(1, MEMBERS + 1)
    percent = {
        name: (numbers, [100 * accuracy for accuracy in accuracies])
        for name, accuracies in {"each alone": alone, "together so far": together}.items()
    }
    figure = plots.curves(percent, xlabel="network", ylabel="test accuracy (%)", xticks=numbers)
    experiment.save(figure)


if __name__ == "__main__":
    run(main)
