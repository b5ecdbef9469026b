"""A step captured once and replayed does what the step does, with today's data and rates."""

from __future__ import annotations

import numpy as np
import pytest
from promised import assert_as_promised

from xpdl import Trainer
from xpdl.backends.cupy.capture import WARM_UP
from xpdl.errors import DeviceRuleError
from xpdl.layers import Affine, BatchNormalization, Convolution, Dropout, MaxPooling, ReLU
from xpdl.network import Network
from xpdl.optimizers import BY_NAME, get_optimizer
from xpdl.precision import LossScale

STEPS = 10


def small_network(dtype):
    layers = [
        *(Convolution(4, 3, pad=1), ReLU(), Convolution(4, 3, stride=2, pad=1, remainder="drop")),
        *(BatchNormalization(), ReLU(), MaxPooling(2), Affine(8), ReLU(), Dropout(0.3), Affine(3)),
    ]
    return Network(layers, (2, 8, 8), dtype=dtype, weight_decay=1e-4)


def train(backend, dtype, optimizer, compiled):
    """Do ten steps, at ten rates; return all that a step leaves, and what it returned."""
    rng = np.random.default_rng(5)
    x = backend.asarray(rng.random((60, 2, 8, 8), dtype=np.float32))
    t = backend.asarray(rng.integers(0, 3, 60))
    network, rule = small_network(dtype), get_optimizer(optimizer, learning_rate=0.1)
    scale = LossScale(backend, 1024.0, patience=4) if network.precision.mixed else None

    def step(part):
        batch = backend.gather(x, part, network.precision.compute)
        factor = 1.0 if scale is None else scale.value
        loss, _ = network.forward_backward(batch, t[part], factor)
        if scale is None:
            rule.update(network.params, network.grads)
        else:
            go = scale.unscale(network.grads.buffer)
            rule.update(network.params, network.grads, go=go)
            scale.update(go)
        return loss

    call = backend.compile_step(step) if compiled else step
    losses = []
    with rule.time_kept_on(backend, network.precision.parameters):
        for i in range(STEPS):
            rule.learning_rate = 0.01 / (1 + i)
            part = backend.asarray(rng.permutation(60)[:20])
            losses.append(backend.item(call(part)))
        left = {name: backend.to_numpy(a) for name, a in network.arrays().items()}
        for slot, arrays in rule.state_dict()["state"].items():
            left |= {f"{slot} of {name}": a for name, a in arrays.items()}
        left["iteration"] = np.array(rule.state_dict()["iteration"])
    if scale is not None:
        left["scale"] = np.array(list(scale.read().values()))
    return losses, left


@pytest.mark.parametrize("optimizer", BY_NAME)
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_ten_replayed_steps_are_ten_steps(backend, dtype, optimizer):
    eager_losses, eager = train(backend, dtype, optimizer, compiled=False)
    losses, left = train(backend, dtype, optimizer, compiled=True)
    assert len(set(losses)) == STEPS  # other data, other masks, other rates each time
    both = {"losses": losses, **left}, {"losses": eager_losses, **eager}
    assert_as_promised(backend, *both, dtype)
    assert left["iteration"] == STEPS


def test_on_a_cpu_the_step_is_itself(backend):
    def step(a):
        return a

    assert (backend.compile_step(step) is step) == (not backend.compiles)
    assert backend.compiles == (backend.name in ("cupy", "strict"))


def test_python_runs_only_until_the_step_is_captured(backend):
    calls = []

    def step(a):
        calls.append(None)
        return a * 2

    compiled = backend.compile_step(step)
    for i in range(6):
        twice = compiled(backend.asarray(np.full(3, i, np.float32)))
        np.testing.assert_array_equal(backend.to_numpy(twice), np.full(3, 2 * i))
    assert len(calls) == (WARM_UP + 1 if backend.compiles else 6)
    compiled(backend.asarray(np.zeros(4, np.float32)))  # another shape is another step
    assert len(calls) == (WARM_UP + 2 if backend.compiles else 7)


def test_a_step_that_reads_the_device_is_refused_on_strict_and_runs_as_it_is_on_a_gpu(backend):
    def step(a):
        backend.item(a.sum())
        return a + 1

    compiled = backend.compile_step(step)
    ones = backend.asarray(np.ones(3, np.float32))
    for _ in range(WARM_UP):
        compiled(ones)
    if backend.name == "strict":
        with pytest.raises(DeviceRuleError, match="while a step is captured"):
            compiled(ones)
    elif backend.name == "cupy":
        with pytest.warns(UserWarning, match=r"cannot be captured.*as it stands"):
            result = compiled(ones)
        np.testing.assert_array_equal(backend.to_numpy(result), 2)
        np.testing.assert_array_equal(backend.to_numpy(compiled(ones)), 2)  # without a word now


def test_where_no_capture_can_begin_training_goes_on_as_it_is(backend, monkeypatch):
    if backend.name != "cupy":
        pytest.skip(f"{backend.name} has no streams")
    stream, begun = backend.xp.cuda.Stream, []

    def refused(self, *mode):
        begun.append(None)
        raise RuntimeError("cudaErrorStreamCaptureUnsupported: not permitted")

    monkeypatch.setattr(stream, "begin_capture", refused)
    rng = np.random.default_rng(1)
    x, t = rng.random((50, 2, 8, 8), dtype=np.float32), rng.integers(0, 3, 50)
    trainer = Trainer(small_network("float32"), (x, t), epochs=1, batch_size=10, progress=False)
    with pytest.warns(UserWarning, match=r"cannot be captured: .*not permitted.*as it stands"):
        trainer.fit()
    assert len(begun) == 1
    assert trainer.optimizer.iteration == 5
    assert np.isfinite(trainer.history.losses).all()


def test_the_trainer_captures_its_step(backend, monkeypatch):
    if not backend.compiles:
        pytest.skip(f"{backend.name} is a CPU")
    captured = []
    capture = type(backend).capture
    monkeypatch.setattr(
        type(backend), "capture", lambda *args: captured.append(None) or capture(*args)
    )
    rng = np.random.default_rng(1)
    x, t = rng.random((50, 2, 8, 8), dtype=np.float32), rng.integers(0, 3, 50)
    trainer = Trainer(small_network("float32"), (x, t), epochs=2, batch_size=10, progress=False)
    trainer.fit()
    assert len(captured) == 1  # once a training
    assert trainer.optimizer.iteration == 10
    Trainer(
        small_network("float32"), (x, t), epochs=1, batch_size=10, progress=False, capture=False
    ).fit()
    assert len(captured) == 1
