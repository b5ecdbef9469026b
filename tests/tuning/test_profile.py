"""Where a step's time goes: every part is there, counted by formula, and nothing is left behind."""

from __future__ import annotations

import numpy as np
import pytest

from xpdl.errors import ArgumentError
from xpdl.layers import Affine, Convolution, MaxPooling, ReLU, Residual
from xpdl.network import Network
from xpdl.optimizers import SGD
from xpdl.plots import layer_times
from xpdl.tuning.profile import profile_step


def small(backend, dtype="float32"):
    network = Network(
        [
            Convolution(4, 3, pad=1),
            Residual({"inner": Convolution(4, 1)}),
            ReLU(),
            MaxPooling(2),
            Affine(5),
        ],
        (2, 6, 6),
        dtype=dtype,
    )
    rng = np.random.default_rng(0)
    x = backend.asarray(rng.random((3, 2, 6, 6), dtype=np.float32))
    return network, x, backend.asarray(rng.integers(0, 5, 3))


def test_every_part_of_a_step_is_there(backend):
    network, x, t = small(backend)
    profile = profile_step(network, x, t, SGD(), rounds=3)
    names = [part.name for part in profile.parts]
    assert names == [*dict(network.body.leaves()), "loss", "update", "all else"]
    for part in profile.parts[:-2]:
        assert part.forward > 0
        assert part.backward > 0
    assert sum(part.share for part in profile.parts) >= 0.9
    assert profile.step > 0
    assert profile.peak_gflops >= max(rate for part in profile.parts for rate in part.gflops) > 0
    assert profile.peak_gigabytes >= max(r for part in profile.parts for r in part.gigabytes) > 0
    assert profile.backend == backend.name


def test_the_peak_is_no_less_than_what_was_reached(backend, monkeypatch):
    monkeypatch.setattr("xpdl.tuning.profile._peaks", lambda *given: (1e-9, 1e-9))
    network, x, t = small(backend)
    profile = profile_step(network, x, t, SGD(), rounds=2)
    assert profile.peak_gflops == max(rate for part in profile.parts for rate in part.gflops)
    assert profile.peak_gigabytes == max(r for part in profile.parts for r in part.gigabytes)


def test_operations_and_bytes_are_those_of_the_formula(backend):
    network, x, t = small(backend)
    parts = {part.name: part for part in profile_step(network, x, t, SGD(), rounds=1).parts}
    first = parts["conv1"]
    multiplications = 3 * 4 * 6 * 6 * (2 * 3 * 3)
    assert first.forward_flops == 2 * multiplications
    assert first.backward_flops == 2 * multiplications  # no gradient for the images
    taken, given, parameters = 3 * 2 * 36, 3 * 4 * 36, 4 * 2 * 9 + 4
    assert first.forward_bytes == 4 * (taken + given + parameters)
    assert first.backward_bytes == 4 * (taken + given + 2 * parameters)
    last = parts["affine1"]
    assert last.forward_flops == 2 * 3 * (4 * 3 * 3) * 5
    assert last.backward_flops == 2 * last.forward_flops
    assert parts["relu1"].forward_flops == 0
    assert parts["relu1"].gflops == (0, 0)
    assert first.gflops[0] == pytest.approx(first.forward_flops / first.forward / 1e9)
    assert first.gigabytes[1] == pytest.approx(first.backward_bytes / first.backward / 1e9)


def test_what_a_convolution_pools_is_counted_there(backend):
    layers = [Convolution(4, 3, pad=1), ReLU(), MaxPooling(2), Affine(5)]
    network = Network(layers, (2, 6, 6), dtype="float32")
    x, t = backend.asarray(np.zeros((3, 2, 6, 6), np.float32)), backend.asarray([0, 1, 2])
    parts = {part.name: part for part in profile_step(network, x, t, SGD(), rounds=1).parts}
    conv, pool = parts["conv1"], parts["pool1"]
    taken, results, parameters = 3 * 2 * 36, 3 * 4 * 36, 4 * 2 * 9 + 4
    assert conv.forward_flops == conv.backward_flops == 2 * results * 2 * 9
    assert conv.forward_bytes == 4 * (taken + results // 4 + parameters)
    assert conv.backward_bytes == 4 * (taken + results + 2 * parameters)
    assert pool.forward_bytes == 0
    assert pool.backward_bytes == 4 * (results + results // 4 + results)


def test_the_network_is_left_as_it_was(backend):
    network, x, t = small(backend)
    profile_step(network, x, t, SGD(), rounds=1)
    for layer in [*dict(network.body.leaves()).values(), network.loss_layer]:
        assert not {"forward", "backward"} & vars(layer).keys()


def test_after_an_error_too(backend):
    network, x, t = small(backend)
    with pytest.raises(ArgumentError):
        profile_step(network, x[:0], t[:0], SGD(), rounds=1)
    for layer in [*dict(network.body.leaves()).values(), network.loss_layer]:
        assert not {"forward", "backward"} & vars(layer).keys()


def test_the_table_has_a_line_a_part(backend):
    network, x, t = small(backend, "float16")
    profile = profile_step(network, x, t, SGD(), rounds=1)
    lines = profile.table().splitlines()
    assert len(lines) == 2 + len(profile.parts) + 1
    assert [line.split()[0] for line in lines[2:5]] == ["conv1", "residual1.inner", "residual1.sum"]
    assert lines[-1].startswith("step")
    assert all(line == line.rstrip() for line in lines[2:])


def test_the_chart_shows_shares():
    figure = layer_times(["a", "b"], [0.001, 0.002], [0.0, 0.001])
    texts = [text.get_text().strip() for text in figure.axes[0].texts]
    assert texts == ["25.0 %", "75.0 %"]
    with pytest.raises(ArgumentError):
        layer_times(["a"], [1.0], [1.0, 2.0])


def test_what_is_not_done_is_not_counted(backend):
    layers = [Convolution(4, 3), ReLU(), Affine(6), Affine(5)]
    network = Network(layers, (2, 6, 6), dtype="float16")
    network.freeze("affine1")
    x = backend.asarray(np.zeros((3, 2, 6, 6), np.float32))
    t = backend.asarray([0, 1, 2])
    parts = {part.name: part for part in profile_step(network, x, t, SGD(), rounds=1).parts}
    # Halves, whatever the caller's x is in.
    taken, given, parameters = 3 * 2 * 36, 3 * 4 * 16, 4 * 2 * 9 + 4
    assert parts["conv1"].forward_bytes == 2 * (taken + given + parameters)
    assert parts["relu1"].forward_bytes == 0  # computed with the convolution
    assert parts["relu1"].backward_bytes == 0
    assert parts["affine1"].backward_flops == parts["affine1"].forward_flops  # dx alone
    assert parts["affine2"].backward_flops == 2 * parts["affine2"].forward_flops
