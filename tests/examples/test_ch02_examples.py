"""Chapter 2: gates answer as their truth tables say, and a perceptron learns what one line can."""

from __future__ import annotations

import pytest

GATES = {
    "AND": lambda a, b: a and b,
    "NAND": lambda a, b: 1 - (a and b),
    "OR": lambda a, b: a or b,
    "XOR": lambda a, b: a ^ b,
}
INPUTS = [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("gate", GATES)
def test_gates_answer_as_logic_does(example, gate):
    table = [GATES[gate](a, b) for a, b in INPUTS]
    assert example("gates").numbers[f"{gate} of (0,0), (1,0), (0,1), (1,1)"] == table


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_perceptron_learns_what_a_line_can_part_and_not_xor(example, seed):
    numbers = example("learned_perceptron", seed).numbers
    for gate in ("AND", "NAND", "OR"):
        assert numbers[f"{gate}: what it answers"] == [GATES[gate](a, b) for a, b in INPUTS]
        assert numbers[f"{gate}: mistakes in the last of 100 epochs"] == 0
        assert 0 <= numbers[f"{gate}: epochs until none is wrong"] < 100
    assert numbers["XOR: what it answers"] != [0, 1, 1, 0]
    assert numbers["XOR: mistakes in the last of 100 epochs"] >= 1
    assert numbers["XOR: fewest mistakes in an epoch"] >= 1
