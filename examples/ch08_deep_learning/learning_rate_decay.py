"""A learning rate that falls during the training ends lower than one that stays.

Book, sections 6.1.5 and 8.1.2, where it is a way past 99.38 %. Large steps get ahead at first,
small ones settle down at last: the same network, from the same weights, by three schedules.
"""

import xpdl
from xpdl import plots
from xpdl.cli.experiment import Experiment, run
from xpdl.models import SimpleConvNet, TwoLayerNet
from xpdl.optimizers import Adam
from xpdl.schedules import Constant, Cosine, OneCycle, Schedule

SCHEDULES: dict[str, Schedule] = {
    "constant": Constant(),
    "cosine": Cosine(),
    "one-cycle": OneCycle(),
}


def main(experiment: Experiment) -> None:
    images, tested, epochs, rate = experiment.choose(
        quick=(30000, 1000, 1, 0.02), full=(60000, 10000, 8, 0.004)
    )
    (x, t), (x_test, t_test) = xpdl.datasets.load_mnist(flatten=False)
    train, test = (x[:images], t[:images]), (x_test[:tested], t_test[:tested])
    places = [epochs * i / 100 for i in range(101)]
    rates, losses = {}, {}
    for name, schedule in SCHEDULES.items():
        rates[name] = (places, [rate * schedule(place, epochs) for place in places])
        network = (
            TwoLayerNet((1, 28, 28), weight_init_std="he", seed=experiment.seed)
            if experiment.quick
            else SimpleConvNet(weight_init_std="he", seed=experiment.seed)
        )
        trainer = xpdl.Trainer(
            network,
            train,
            test,
            optimizer=Adam(rate),
            schedule=schedule,
            epochs=epochs,
            batch_size=100,
            seed=experiment.seed,
            checkpoint=experiment.checkpoint(f"{name}-seed{experiment.seed}"),
        )
        history = experiment.fit(trainer)
        losses[name] = history.losses
        last = history.losses[-100:]
        experiment.record(f"mean loss of the last 100 steps, {name}", sum(last) / len(last), ".4f")
        experiment.record(f"test accuracy, {name}", history.epochs[-1].test_accuracy, ".2%")
    experiment.save(plots.curves(rates, xlabel="epoch", ylabel="learning rate"), "rates")
    smooth = experiment.choose(quick=20, full=200)
    experiment.save(
        plots.curves(losses, xlabel="step", ylabel="loss", smooth=smooth, yscale="log"), "losses"
    )


if __name__ == "__main__":
    run(main)
