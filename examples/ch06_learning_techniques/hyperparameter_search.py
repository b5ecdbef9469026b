"""Learning rate and weight decay by random search, judged on images set aside from training.

Book, section 6.5; figure 6-24. 500 images, a fifth of them for validation; values are drawn from
1e-6 to 1e-2 and 1e-8 to 1e-4, each power of ten as likely as the other. A second round draws from
what the best five span.
"""

from typing import Any

from xpdl import Trainer
from xpdl.cli.experiment import Experiment, run
from xpdl.datasets import load_mnist
from xpdl.models import MultiLayerNet
from xpdl.optimizers import SGD
from xpdl.tuning import LogUniform, RandomSearch

RANGES = {"learning rate": LogUniform(1e-6, 1e-2), "weight decay": LogUniform(1e-8, 1e-4)}


def main(experiment: Experiment) -> None:
    trials, epochs, batch_size = experiment.choose(quick=(12, 6, 20), full=(100, 50, 100))
    (x, t), _ = load_mnist()

    def make(values, train, validation, seed):
        decay = values["weight decay"]
        network = MultiLayerNet(784, [100] * 6, 10, weight_decay_lambda=decay, seed=seed)
        optimizer = SGD(values["learning rate"])
        return Trainer(
            network,
            train,
            validation,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
        )

    search = RandomSearch(
        RANGES,
        make,
        (x[:500], t[:500]),
        validation=0.2,
        trials=trials,
        rounds=2,
        stopping=None,  # all curves to their end
        seed=experiment.seed,
        path=experiment.checkpoint(f"seed{experiment.seed}", ".json"),
        progress=False,
    )
    result = experiment.search(search)
    print(result.table())
    first, second = (result.best(5, round=i) for i in range(2))

    def record(label, of, form, book=None):
        experiment.record(label, [of(trial) for trial in first], form, book=book)

    rates = "0.0092, 0.0096, 0.0057, 0.0063, 0.0052"
    record("learning rates of the best five", lambda b: b.values["learning rate"], ".2g", rates)
    record("their validation accuracies", lambda b: b.accuracy, ".0%", "83, 78, 77, 74, 73 %")
    record("their weight decays", lambda b: b.values["weight decay"], ".1e")
    ranges: dict[str, Any] = result.searched[1]
    for name, choices in ranges.items():
        experiment.record(f"second round, {name} from and to", [choices.low, choices.high], ".1e")
    again = [trial.accuracy for trial in second]
    experiment.record("second round, validation accuracies of the best five", again, ".0%")
    experiment.save(result.chart(20, round=0))


if __name__ == "__main__":
    run(main)
