"""Learning-rate curves: their ends, edges, shape and the area below them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xpdl import schedules
from xpdl.errors import ArgumentError, UnknownNameError
from xpdl.schedules import (
    Constant,
    Cosine,
    Exponential,
    OneCycle,
    Step,
    WarmUp,
    get_schedule,
    with_warm_up,
)

EPOCHS = 8.0


def curve(schedule, points=4001, epochs=EPOCHS):
    return np.array([schedule(e, epochs) for e in np.linspace(0, epochs, points)])


def area(schedule):
    """The mean factor, by the midpoint rule."""
    middles = (np.arange(4000) + 0.5) / 4000 * EPOCHS
    return np.mean([schedule(e, EPOCHS) for e in middles])


def rises(values):
    return (np.diff(values) > 0).all()


def falls(values):
    return (np.diff(values) < 0).all()


@pytest.mark.parametrize(
    "schedule",
    [Constant(), Step(3, 0.5), Exponential(), Cosine(), OneCycle(), WarmUp(Cosine(), 2)],
)
def test_factors_are_python_numbers_between_0_and_1(schedule):
    for epoch in (0, 0.5, 2.0, 7.99, 8, 8.0):
        factor = schedule(epoch, 8)
        assert type(factor) is float
        assert 0 <= factor <= 1


@pytest.mark.parametrize("schedule", [Exponential(), Cosine(), OneCycle()])
def test_the_shape_does_not_depend_on_the_length(schedule):
    np.testing.assert_allclose(curve(schedule, 101, 3), curve(schedule, 101, 40), rtol=1e-9)


def test_constant():
    assert {Constant()(e, EPOCHS) for e in (0, 0.1, 8)} == {1.0}


def test_step_edges():
    step = Step(every=2, factor=0.5)
    positions = (0, 1.999, 2, 3.999, 4, 6, 7.999, 8)
    assert [step(e, EPOCHS) for e in positions] == [1, 1, 0.5, 0.5, 0.25, 0.125, 0.125, 0.0625]
    assert Step()(9.99, 30) == 1
    assert Step()(10, 30) == pytest.approx(0.1)
    assert Step()(29, 30) == pytest.approx(0.01)


def test_exponential():
    schedule = Exponential(final=0.01)
    assert schedule(0, EPOCHS) == 1
    assert schedule(EPOCHS, EPOCHS) == pytest.approx(0.01)
    assert schedule(EPOCHS / 2, EPOCHS) == pytest.approx(0.1)
    assert falls(curve(schedule))
    np.testing.assert_allclose(np.diff(np.log(curve(schedule))), math.log(0.01) / 4000, rtol=1e-6)
    assert area(schedule) == pytest.approx(0.99 / math.log(100), rel=1e-5)
    assert Exponential()(EPOCHS, EPOCHS) == pytest.approx(0.01)


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine(final):
    schedule = Cosine(final)
    assert schedule(0, EPOCHS) == 1
    assert schedule(EPOCHS, EPOCHS) == pytest.approx(final, abs=1e-15)
    assert schedule(EPOCHS / 2, EPOCHS) == pytest.approx((1 + final) / 2)
    expected = final + (1 - final) * (1 + math.sqrt(0.5)) / 2  # cos of an eighth of a turn
    assert schedule(EPOCHS / 4, EPOCHS) == pytest.approx(expected)
    assert falls(curve(schedule))
    assert area(schedule) == pytest.approx((1 + final) / 2, rel=1e-5)


def test_cosine_falls_to_nothing_by_default():
    assert Cosine()(EPOCHS, EPOCHS) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(("warm_up", "start", "final"), [(0.25, 0.04, 0.0), (0.5, 0.2, 0.1)])
def test_one_cycle(warm_up, start, final):
    schedule = OneCycle(warm_up, start, final)
    top = warm_up * EPOCHS
    assert schedule(0, EPOCHS) == pytest.approx(start)
    assert schedule(top, EPOCHS) == 1
    assert schedule(EPOCHS, EPOCHS) == pytest.approx(final, abs=1e-15)
    assert schedule(top / 2, EPOCHS) == pytest.approx((start + 1) / 2)
    assert schedule((top + EPOCHS) / 2, EPOCHS) == pytest.approx((1 + final) / 2)
    values = curve(schedule)
    peak = round(warm_up * 4000)
    assert values.argmax() == peak
    assert rises(values[: peak + 1])
    assert falls(values[peak:])
    expected = warm_up * (start + 1) / 2 + (1 - warm_up) * (1 + final) / 2
    assert area(schedule) == pytest.approx(expected, rel=1e-5)


def test_one_cycle_formula():
    """Both ways half a cosine: slow at the ends, written with sin^2 instead."""
    for position in np.linspace(0, 1, 41):
        if position < 0.25:
            expected = 0.04 + 0.96 * math.sin(math.pi / 2 * position / 0.25) ** 2
        else:
            expected = 1 - math.sin(math.pi / 2 * (position - 0.25) / 0.75) ** 2
        assert OneCycle()(4 * position, 4) == pytest.approx(expected, abs=1e-12)


def test_one_cycle_does_not_jump():
    assert abs(np.diff(curve(OneCycle()))).max() < 2e-3


def test_warm_up_rises_evenly_and_then_follows():
    schedule = WarmUp(Cosine(), epochs=2, start=0.1)
    for e in (0, 0.5, 1, 1.5):
        assert schedule(e, EPOCHS) == pytest.approx(0.1 + 0.9 * e / 2)
    for e in (2, 3, 8):
        assert schedule(e, EPOCHS) == Cosine()(e - 2, EPOCHS - 2)


@pytest.mark.parametrize("schedule", [Constant(), Step(), Exponential(), Cosine()])
def test_after_a_warm_up_the_whole_schedule_follows(schedule):
    warmed = WarmUp(schedule, epochs=3)
    assert warmed(3, 23) == schedule(0, 20) == 1
    assert warmed(13, 23) == schedule(10, 20)
    assert warmed(23, 23) == schedule(20, 20)


def test_a_training_may_end_within_its_warm_up():
    schedule = WarmUp(Cosine(), epochs=4, start=0)
    assert [schedule(e, 2) for e in (0, 1, 2)] == [0, 0.25, 0.5]
    assert schedule(4, 4) == 1


def test_warm_up_by_default():
    schedule = WarmUp()
    assert [schedule(e, EPOCHS) for e in (0, 0.25, 1, 5)] == pytest.approx([0.04, 0.28, 1, 1])


@pytest.mark.parametrize("argument", ["every", "factor"])
@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf])
def test_step_refuses(argument, bad):
    with pytest.raises(ArgumentError, match=f"^{argument} must be a number above 0, got"):
        Step(**{argument: bad})


@pytest.mark.parametrize("bad", [0, -0.1, math.nan, math.inf])
def test_exponential_and_warm_up_refuse(bad):
    with pytest.raises(ArgumentError, match=r"^final must be a number above 0, got"):
        Exponential(final=bad)
    with pytest.raises(ArgumentError, match=r"^epochs must be a number above 0, got"):
        WarmUp(epochs=bad)


@pytest.mark.parametrize("bad", [0, 1, -0.5, 25, math.nan])
def test_one_cycle_refuses(bad):
    with pytest.raises(ArgumentError, match=r"^warm_up is a share .* got"):
        OneCycle(warm_up=bad)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("constant", Constant()),
        ("step", Step()),
        ("exponential", Exponential()),
        ("cosine", Cosine()),
        ("one-cycle", OneCycle()),
    ],
)
def test_names(name, made):
    assert get_schedule(name) == made


def test_every_name_is_tried():
    assert set(schedules.BY_NAME) == {"constant", "step", "exponential", "cosine", "one-cycle"}


def test_choices():
    assert get_schedule(None) == Constant()
    mine = WarmUp(Step(2, 0.3), 1.5)
    assert get_schedule(mine) is mine

    def of_my_own(epoch, epochs):
        return 0.5

    assert get_schedule(of_my_own) is of_my_own


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(UnknownNameError) as caught:
        get_schedule("cosin")
    message = str(caught.value)
    assert message.startswith("unknown schedule 'cosin'")
    assert all(name in message for name in schedules.BY_NAME)
    assert "Did you mean 'cosine'?" in message


def test_what_is_no_schedule_is_refused():
    with pytest.raises(ArgumentError, match=r"^schedule must be a name or callable, got 0.1"):
        get_schedule(0.1)


@pytest.mark.parametrize("schedule", [Constant(), Cosine(), Exponential(0.1)])
def test_a_warm_up_is_a_share_of_the_training(schedule):
    for epochs in (EPOCHS, 40):
        warmed = with_warm_up(schedule, 0.25, epochs)
        for share in (0, 0.1, 0.2, 0.25):
            assert warmed(share * epochs, epochs) == pytest.approx(0.04 + 0.96 * share / 0.25)
        for share in (0.25, 0.5, 1):
            expected = schedule((share - 0.25) * epochs, 0.75 * epochs)
            assert warmed(share * epochs, epochs) == pytest.approx(expected)


def test_one_cycle_has_a_warm_up_of_its_own():
    schedule = OneCycle(start=0.1, final=0.2)
    assert with_warm_up(schedule, 0.5, EPOCHS) == OneCycle(0.5, 0.1, 0.2)
    assert schedule == OneCycle(start=0.1, final=0.2)
    assert with_warm_up(schedule, 0.5, EPOCHS)(EPOCHS / 2, EPOCHS) == 1


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan"), "0.5", True])
def test_a_warm_up_leaves_something_of_the_training(share):
    for schedule in (Constant(), OneCycle()):
        with pytest.raises(ArgumentError, match="warm_up must be a number above 0 and below 1"):
            with_warm_up(schedule, share, EPOCHS)
