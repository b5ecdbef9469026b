"""How good a network is on data that it was not trained on."""

from __future__ import annotations

from xpdl.backends import Array
from xpdl.datasets.batches import Batches
from xpdl.distributed.ranks import Ranks
from xpdl.network import Network


def judge(
    network: Network, data: Batches | None, ranks: Ranks | None = None
) -> tuple[dict[str, float] | None, Array | None]:
    """Return the loss and what its measure finds, over all of `data`, and the network's answers.

    Read from the device once. The loss is a mean over the data, with the weights' decay; the
    answers, such as class numbers (N,), are of the first output, and stay on the device. Ranks
    share the data, and each finds what all of them do. Without data there is neither.
    """
    if data is None:
        return None, None
    backend, measure = network.backend, network.loss_layer.measure
    sums = measure.zeros(next(iter(network.output_shapes.values())), backend)
    losses = backend.xp.zeros(2, dtype="float64")  # sum of weights times losses, and of weights
    part = slice(0, data.examples) if ranks is None else ranks.rows(data.examples)
    answers, done = [], part.start
    for x, t in data.in_order(part):
        ys = network.predict(x)
        xs, ts, _ = network.batch(x, t)
        ys = tuple(ys.values()) if isinstance(ys, dict) else (ys,)
        rows = backend.xp.arange(done, done + len(xs[0]))
        weights, done = data.weigh(rows), done + len(xs[0])
        mean = network.mean_loss(ys, ts, weights)
        weight = network.loss_weight(len(xs[0]))
        losses[0] += mean * weight
        losses[1] += weight
        sums += measure.sums(ys[0], ts[0], weights)
        answers.append(network.loss_layer.answers(ys[0]))
    if ranks is not None:
        answers = _of_all(network, ranks, answers)
        for a in (losses, sums):
            ranks.sum(a)
    decay = network.decayed(backend.xp.zeros(1, network.precision.accumulate))
    loss = losses[:1] / losses[1:] + decay.astype("float64")
    read = backend.to_numpy(backend.xp.concatenate([loss, sums]))
    return {"loss": float(read[0])} | measure.values(read[1:]), backend.xp.concatenate(answers)


def _of_all(network: Network, ranks: Ranks, answers: list[Array]) -> list[Array]:
    """Return the answers of all ranks, in the order of the data; a rank may have none."""
    backend = network.backend
    mine = backend.to_numpy(backend.xp.concatenate(answers)) if answers else None
    return [backend.asarray(a) for a in ranks.gather(mine) if a is not None]
