"""The part ``parity``: gradients of DeepConvNet, held to those in float64 on the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import xpdl
from bench.gpu.session import Notes, Session
from bench.programs import batch
from xpdl.backends import Array, Backend
from xpdl.models import DeepConvNet
from xpdl.network import Network
from xpdl.precision import LossScale

# The most that ||g - reference|| / ||reference|| may be, for each parameter's gradient g.
BOUNDS = {"float64": 1e-9, "float32": 1e-4}
# Half precision is off by 4 to 9 % on the host, too (PyTorch's as well: small numbers choose other
# winners in pools and ReLUs), so the device is held to so many times what the host is off.
HALF_BOUND = 1.5


def parity(session: Session, notes: Notes) -> None:
    """Hold the gradients to those of the textbook in float64.

    Beside float16 on the device stands the textbook's on the host: what half precision costs by
    itself, whoever computes. That takes long, so it comes last of each seed.
    """
    host = xpdl.get_backend("generic")
    runs = {
        "float64": (session.backend, "float64"),
        "float32": (session.backend, "float32"),
        "float16": (session.backend, "float16"),
        "TF32": (session.tf32, "float32"),
        "float16 on the host": (host, "float16"),
    }
    sizes = session.sizes
    rows: dict[str, Any] = {}
    notes.results |= {"batch": sizes.parity_batch, "seeds": 0, "precisions": rows}
    for seed in range(sizes.parity_seeds):
        with xpdl.use_backend(host):
            network = DeepConvNet(seed=seed, dtype="float32")
        x, t = batch(network, sizes.parity_batch)
        reference, _ = _gradients(network, host, "float64", x, t, seed)
        for name, (backend, dtype) in runs.items():
            gradients, scale = _gradients(network, backend, dtype, x, t, seed)
            errors = {key: _apart(gradients[key], g) for key, g in reference.items()}
            _note_errors(rows, name, seed, errors, scale)
            _judge(rows, notes)
            notes.keep()
        notes.results["seeds"] += 1


def _judge(rows: dict[str, Any], notes: Notes) -> None:
    """Hold half precision to the host's, as far as that is known; say what is too far off."""
    half, on_host = rows.get("float16"), rows.get("float16 on the host")
    # As long as a seed is missing on the host, the device may have seen a worse one.
    if half and on_host and half["seeds"] == on_host["seeds"]:
        half["bound"] = HALF_BOUND * on_host["largest"]
        half["held"] = half["largest"] < half["bound"]
    notes.problems[:] = [
        f"the gradient of {row['parameter']} in {name} is off by {row['largest']:.1e}, "
        f"{row['bound']:.2g} is allowed"
        for name, row in rows.items()
        if row["held"] is False
    ]


def _gradients(
    network: Network, backend: Backend, dtype: str, x: Array, t: Array, seed: int
) -> tuple[dict[str, Array], float | None]:
    """Return the gradients of a copy of `network`, in float64 on the host, and the loss scale.

    In half precision the loss is scaled as in training, down from where the scale begins until the
    gradients are finite; what is returned is without the scale.
    """
    with xpdl.use_backend(backend):
        network = network.astype(dtype).to(backend)
        x, t = backend.asarray(x), backend.asarray(t)
        scale = LossScale(backend) if network.precision.mixed else None
        for _ in range(30):
            network.reseed(seed)  # the same dropout masks each time, and on each device
            network.forward_backward(x, t, 1.0 if scale is None else scale.value)
            if scale is None:
                break
            go = scale.unscale(network.grads.buffer)
            if backend.item(go):
                break
            scale.update(go)
        host = {name: backend.to_numpy(g).astype(np.float64) for name, g in network.grads.items()}
        return host, None if scale is None else scale.read()["value"]


def _apart(g: Array, reference: Array) -> float:
    distance = float(np.linalg.norm(g - reference) / np.linalg.norm(reference))
    return distance if math.isfinite(distance) else math.inf


def _note_errors(
    rows: dict[str, Any], name: str, seed: int, errors: dict[str, float], scale: float | None
) -> None:
    """Keep the largest errors that a precision has shown so far."""
    bound = BOUNDS.get(name)
    row = rows.setdefault(name, {"largest": -1.0, "bound": bound, "seeds": 0, "by_parameter": {}})
    row["seeds"] += 1
    for parameter, error in errors.items():
        before = row["by_parameter"].get(parameter, 0.0)
        row["by_parameter"][parameter] = max(before, error)
        if error > row["largest"]:
            row |= {"largest": error, "parameter": parameter, "seed": seed}
    row["held"] = None if bound is None else row["largest"] < bound
    if scale is not None:
        row["loss_scale"] = min(scale, row.get("loss_scale", scale))
