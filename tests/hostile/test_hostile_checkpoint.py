"""Checkpoints that were once refused too late, or taken: what `hostile_readers` found."""

from __future__ import annotations

import json

import hostile_inputs as inputs
import numpy as np
import pytest
from hostile_readers import Checkpoint, put

from xpdl.errors import ArgumentError, ModelFileError


@pytest.fixture
def reader(tmp_path):
    return Checkpoint(tmp_path)


def expect_refused(reader, arrays, text):
    put(inputs.arrays_file(arrays, text), reader.path)
    subject = reader.subject()
    with pytest.raises((ModelFileError, ArgumentError)):
        reader.read(reader.path, subject)
    reader.unchanged(subject)


# Finite in its own type, an array is infinite in the network's.
@pytest.mark.parametrize("room", ["network", "average", "optimizer"])
def test_numbers_beyond_the_networks_type_are_refused(reader, room):
    arrays, text = inputs.arrays_in(reader.seeds[0])
    name = next(name for name in arrays if name.startswith(room) and name.endswith("affine1.W"))
    arrays[name] = np.full(arrays[name].shape, 1e300)
    expect_refused(reader, arrays, text)


@pytest.mark.parametrize("value", [1e300, 0x7FF0000000000001])
def test_a_loss_may_be_anything_and_a_scale_may_not(reader, value):
    """A step that diverged has a loss beyond its type, of which nothing may warn."""
    for name in ("epoch/losses", "epoch/scales"):
        arrays, text = inputs.arrays_in(reader.seeds[1])
        kind = np.uint64 if isinstance(value, int) else np.float64
        arrays[name] = np.full(arrays[name].shape, value, kind).view(np.float64)
        if name == "epoch/scales":
            expect_refused(reader, arrays, text)
        else:
            put(inputs.arrays_file(arrays, text), reader.path)
            reader.read(reader.path, reader.subject())


def test_a_state_of_the_generators_that_is_none_is_refused(reader):
    arrays, text = inputs.arrays_in(reader.seeds[1])
    about = json.loads(text)
    about["epoch"]["augmentation"] = 1
    expect_refused(reader, arrays, json.dumps(about))


@pytest.mark.parametrize(
    "change",
    [
        {"loss": [1.0]},
        {"loss": True},
        {"train": {"accuracy": [0.5]}},
        {"train": [0.5]},
        {"test_accuracy": "0.5"},
        {"learning_rate": None},
        {"seconds": {}},
        {"skipped_steps": 0.5},
        {"batch_size": [7]},
        {"loss_scale": "2"},
    ],
    ids=str,
)
def test_a_history_of_other_kinds_is_refused(reader, change):
    arrays, text = inputs.arrays_in(reader.seeds[0])
    about = json.loads(text)
    about["history"]["epochs"][0] |= change
    expect_refused(reader, arrays, json.dumps(about))
