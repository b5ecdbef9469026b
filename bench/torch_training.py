"""PyTorch's training by a recipe of xpdl: ``python -m bench.torch_training --recipe fast``.

What ``xpdl train`` does with the same recipe and seed, as one who knows PyTorch would write it: the
data as tensors in memory, channels last, the fused Adam, nothing read from a tensor in between. Not
compiled: that brings nothing to a step of DeepConvNet on a CPU, and takes its time at the start.

From xpdl are the recipe, the first weights, the data, the order of the batches, the rate at each
step and the augmentation. The one thing that differs is dropout. PyTorch's scales in training, and
the book's at inference: both keep the mean between training and testing, but what follows PyTorch's
sees numbers 1 / (1 - ratio) times as large from the first step on.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any, NoReturn

import numpy as np

import xpdl
from bench.networks import torch_twin
from bench.timed_command import Watch
from xpdl.cli.command import seed
from xpdl.errors import ArgumentError, DivergenceError, XpdlError
from xpdl.layers import BatchNormalization
from xpdl.network import Network
from xpdl.optimizers import Adam, AdamW
from xpdl.runs.options import RunOptions, make_options
from xpdl.runs.preparation import load_data, make_network, make_trainer
from xpdl.training import Trainer
from xpdl.training.feeding import AUGMENTATION_STREAM
from xpdl.training.trainer import Data

TESTED_AT_ONCE = 500

# The options of a run that this program follows; of others it takes the usual value alone.
FOLLOWED = {
    "model", "model_options", "epochs", "batch_size", "optimizer", "learning_rate", "schedule",
    "warm_up", "weight_decay", "label_smoothing", "augment", "average", "data", "seed", "backend",
}  # fmt: skip


def make_twin(options: RunOptions) -> tuple[Network, Any]:
    """Return the network of a run and the same in PyTorch, with the same first weights.

    Raises
    ------
    ArgumentError
        If PyTorch's program cannot follow one of the options; the message says which.
    """
    _expect_followed(options)
    network = make_network(options)
    if network.weight_decay:
        raise _refusal(f"the option weight_decay={network.weight_decay:g} of the model")
    if any(isinstance(place.layer, BatchNormalization) for place in network.body.places):
        # Its running statistics go another way in PyTorch, so its accuracies are another network's.
        raise _refusal(f"the model {options.model} (BatchNormalization)")
    try:
        model = torch_twin(network)
    except NotImplementedError as error:
        raise _refusal(f"the model {options.model} ({error})") from error
    give_parameters(network, model)
    return network, model


def _expect_followed(options: RunOptions) -> None:
    for field in fields(options):
        value, usual = getattr(options, field.name), field.default
        if field.default_factory is not MISSING:
            usual = field.default_factory()
        if field.name == "dtype":
            usual = "float32"
        if field.name not in FOLLOWED and value != usual:
            raise _refusal(f"{field.name} {value!r}")
    if options.optimizer.lower() not in ("adam", "adamw"):
        raise _refusal(f"the optimizer {options.optimizer}")


def _refusal(what: str) -> ArgumentError:
    return ArgumentError(
        f"PyTorch's program cannot follow the recipe in {what}; choose another recipe, or measure "
        "xpdl alone, without --against torch."
    )


def give_parameters(network: Network, model: Any) -> None:
    """Give a model of PyTorch the parameters of ours, in the same order.

    `Affine.W` is (in, out) with us, and turned around there.

    Raises
    ------
    ArgumentError
        If the model has others than ours.
    """
    import torch

    ours = {name: network.backend.to_numpy(p) for name, p in network.params.items()}
    turned = {name: p.T if p.ndim == 2 else p for name, p in ours.items()}
    theirs = list(model.parameters())
    shapes = [p.shape for p in turned.values()], [tuple(p.shape) for p in theirs]
    if shapes[0] != shapes[1]:
        raise ArgumentError(f"parameters of shapes {shapes[0]} do not fit {shapes[1]}.")
    with torch.no_grad():
        for values, p in zip(turned.values(), theirs, strict=True):
            p.copy_(torch.tensor(values))


def make_optimizer(rule: Any, model: Any) -> Any:
    """Return PyTorch's Adam or AdamW with the settings of ours; weights alone decay.

    Both divide by sqrt(v') + epsilon, with v' corrected for its start from zero.
    """
    import torch

    kind = {Adam: torch.optim.Adam, AdamW: torch.optim.AdamW}[type(rule)]
    weights, others = ([p for p in model.parameters() if (p.ndim > 1) is w] for w in (True, False))
    return kind(
        [
            {"params": weights, "weight_decay": rule.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=rule.learning_rate,
        betas=(rule.beta1, rule.beta2),
        eps=rule.epsilon,
        fused=True,
    )


def train(options: RunOptions, data: tuple[Data, Data], watch: Watch) -> dict[str, Any]:
    """Train by the options of a run, on the active backend's data, which is on the host.

    Parameters
    ----------
    options : RunOptions
    data : ((x, t), (x, t))
        Training and test data, pixels from 0 to 255.
    watch : Watch
        Told of the steps and the tests.

    Returns
    -------
    dict
        "test_accuracy" at the end, "accuracies" and "losses" of the epochs, and the "threads" on
        which PyTorch computed.

    Raises
    ------
    ArgumentError
        If PyTorch's program cannot follow an option.
    DivergenceError
        If the loss is not finite.
    """
    import torch

    network, model = make_twin(options)
    # Never fitted: asked for the order of the batches, the rates, the augmentation.
    ours = make_trainer(options, network, data[0], progress=False)
    (images, labels), (x_test, t_test) = (_tensors(*part) for part in data)
    torch.manual_seed(options.seed)
    if images.ndim == 4:
        model = model.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(ours.optimizer, model)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=options.label_smoothing)
    tested, average = _averaged(ours, model)
    augment: Callable[[Any], Any] | None = None

    def step(part: np.ndarray[Any, np.dtype[np.int64]]) -> Any:
        rows = torch.from_numpy(part)
        x = images[rows]
        if augment is not None:
            x = augment(x)
        optimizer.zero_grad(set_to_none=True)
        loss = criterion(model(x), labels[rows])
        loss.backward()
        optimizer.step()
        average()
        return loss.detach()

    def test() -> float:
        tested.eval()
        with torch.inference_mode():
            parts = zip(x_test.split(TESTED_AT_ONCE), t_test.split(TESTED_AT_ONCE), strict=True)
            hits = sum((tested(x).argmax(1) == t).sum() for x, t in parts)
        model.train()
        return int(hits) / len(t_test)

    timed_step, timed_test = watch.timed("steps", step), watch.timed("testing", test)
    rate, schedule, batches = ours.optimizer.learning_rate, ours.schedule, ours.batches
    accuracies, means = [], []
    model.train()
    for epoch in range(options.epochs):
        augment = _augmentation(ours, epoch)
        losses = []
        for number, part in enumerate(batches.parts(epoch)):
            factor = schedule(epoch + number / batches.in_epoch(epoch), options.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            losses.append(timed_step(part))
        means.append(float(torch.stack(losses).mean()))
        if not math.isfinite(means[-1]):
            raise DivergenceError(f"PyTorch's mean loss in epoch {epoch + 1} is {means[-1]}.")
        accuracies.append(timed_test())
    watch.trained = time.perf_counter()
    return {
        "test_accuracy": accuracies[-1],
        "accuracies": accuracies,
        "losses": means,
        "threads": torch.get_num_threads(),
    }


def _tensors(x: Any, t: Any) -> tuple[Any, Any]:
    """Return pixels from 0 to 1, as convolutions like them, and labels."""
    import torch

    x = torch.tensor(x, dtype=torch.float32).div_(255)
    return (x.to(memory_format=torch.channels_last) if x.ndim == 4 else x), torch.tensor(t)


def _augmentation(ours: Trainer, epoch: int) -> Callable[[Any], Any] | None:
    """Return what changes the pictures of a batch in an epoch, with the numbers of our Trainer."""
    import torch

    augment = ours.feeding.augment
    if augment is None:
        return None
    generator = ours.network.backend.generator([AUGMENTATION_STREAM, ours.seed, epoch])
    return lambda x: torch.from_numpy(np.ascontiguousarray(augment(x.numpy(), generator)))


def _averaged(ours: Trainer, model: Any) -> tuple[Any, Callable[[], None]]:
    """Return the model to be tested, and what to do after each update: see `MovingAverage`."""
    import torch

    if ours.average is None:
        return model, lambda: None
    tested, updates = copy.deepcopy(model), 0
    pairs = list(zip(tested.parameters(), model.parameters(), strict=True))
    decay, warm_up = ours.average.decay, ours.average.warm_up

    def update() -> None:
        nonlocal updates
        d = min(decay, (1 + updates) / (10 + updates)) if warm_up else decay
        with torch.no_grad():
            for a, p in pairs:
                a.lerp_(p, 1 - d)
        updates += 1

    return tested, update


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See {self.prog} --help.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and print a line of JSON: what `train` returns, the watch's report, and two times.

    "seconds" are those of the training, from the first step to the last test; "wall" those since
    this function was called, with the import of PyTorch and all else.
    """
    start = time.perf_counter()
    parser = _Parser(prog="python -m bench.torch_training", description=(__doc__ or "").strip())
    parser.add_argument("--recipe", default="fast", metavar="NAME")
    parser.add_argument("--seed", type=seed, default=0, metavar="N")
    parser.add_argument("--data", default="mnist", metavar="NAME")
    chosen = parser.parse_args(arguments)
    watch = Watch()
    try:
        import torch  # noqa: F401
    except ImportError:
        parser.error("PyTorch is wanted: pip install torch")
    try:
        with xpdl.use_backend("numpy"):
            options = make_options(
                chosen.recipe, data=chosen.data, seed=chosen.seed, dtype="float32"
            )
            network, _ = make_twin(options)
            data = load_data(options.data, network, normalize=False)
            result = train(options, data, watch)
    except XpdlError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    report = watch.report()
    first, trained, end = (report[name] or 0.0 for name in ("first_step", "trained", "end"))
    result |= report | {"seconds": trained - first, "wall": end - start}
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
