"""How good a network is on data that it was not trained on."""

from __future__ import annotations

from xpdl.backends import Array
from xpdl.datasets.batches import Batches
from xpdl.network import Network


def judge(network: Network, data: Batches) -> tuple[dict[str, float], Array]:
    """Return the loss and what its measure finds, over all of `data`, and the network's answers.

    Read from the device once. The loss is a mean over the data, with the weights' decay; the
    answers, such as class numbers (N,), are of the first output, and stay on the device.
    """
    backend, measure = network.backend, network.loss_layer.measure
    sums = measure.zeros(next(iter(network.output_shapes.values())), backend)
    losses = backend.xp.zeros(2, dtype="float64")  # sum of weights times losses, and of weights
    answers, done = [], 0
    for x, t in data.in_order():
        ys = network.predict(x)
        xs, ts = network.inputs_and_targets(x, t)
        ys = tuple(ys.values()) if isinstance(ys, dict) else (ys,)
        part = backend.xp.arange(done, done + len(xs[0]))
        weights, done = data.weigh(part), done + len(xs[0])
        mean = network.mean_loss(ys, ts, weights)
        weight = network.loss_weight(len(xs[0]))
        losses[0] += mean * weight
        losses[1] += weight
        sums += measure.sums(ys[0], ts[0], weights)
        answers.append(network.loss_layer.answers(ys[0]))
    loss = network.decayed(losses[:1].sum() / losses[1:].sum())
    read = backend.to_numpy(backend.xp.concatenate([loss.astype("float64").reshape(1), sums]))
    return {"loss": float(read[0])} | measure.values(read[1:]), backend.xp.concatenate(answers)
