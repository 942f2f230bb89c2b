"""The schedules' published check points."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.training.schedule import epsilon_at, learning_rate_at, smoothed_fraction, stretched
from toolkit.training.training_options import Averaging, Ramp, Training


@pytest.mark.parametrize(
    ("epoch", "fraction"),
    [
        (1, 0),
        (11, 0),
        (20, 0.0009),
        (30, 0.0169),
        (40, 0.0917),
        (50, 0.259),
        (60, 0.436),
        (70, 0.612),
        (80, 0.788),
        (90, 0.965),
        (92, 1),
        (200, 1),
    ],
)
def test_ramp_of_the_paper(epoch: int, fraction: float) -> None:
    ramp = Ramp(start=11, length=81)
    assert smoothed_fraction(ramp, (epoch - 1) * 100, 100) == pytest.approx(fraction, abs=6e-4)


def test_ramp_for_the_large_radius_ends_at_epoch_137() -> None:
    ramp = Ramp(start=16, length=121)
    assert smoothed_fraction(ramp, 136 * 100, 100) == 1
    assert smoothed_fraction(ramp, 136 * 100 - 1, 100) < 1


@given(
    st.builds(
        Ramp, start=st.integers(1, 5), length=st.integers(1, 9), middle=st.floats(0, 1), exponent=st.floats(1, 6)
    ),
    st.integers(1, 7),
)
def test_every_ramp_rises_from_zero_to_one(ramp: Ramp, batches: int) -> None:
    values = [smoothed_fraction(ramp, step, batches) for step in range(16 * batches)]
    assert values[0] == 0
    assert values[-1] == 1
    assert all(0 <= first <= second + 1e-12 for first, second in pairwise(values))


def test_without_a_ramp_epsilon_is_full_at_once() -> None:
    assert epsilon_at(Training(epsilon=0.3), 0, 10) == 0.3
    assert epsilon_at(Training(epsilon=0.3, ramp=Ramp(start=2)), 0, 10) == 0


def test_learning_rate_falls_after_each_milestone() -> None:
    training = Training(learning_rate=1.0, milestones=(140, 170))
    rates = [learning_rate_at(training, epoch) for epoch in (1, 140, 141, 170, 171, 200)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_a_stretched_schedule_is_the_same_at_the_same_part_of_the_training() -> None:
    ramp, averaging = Ramp(start=3, length=4, middle=0.25, exponent=2), Averaging(start=9)
    short = Training(epsilon=0.1, epochs=10, milestones=(6, 8), ramp=ramp, averaging=averaging, learning_rate=0.5)
    long = stretched(short, 35)
    assert long.epochs == 35
    for epoch in range(1, 36):
        assert learning_rate_at(long, epoch) == learning_rate_at(short, (epoch - 1) * 10 // 35 + 1)
    for step in range(0, 100):
        assert epsilon_at(long, step * 7, 20) == pytest.approx(epsilon_at(short, step * 2, 20))
    assert long.averaging is not None
    assert long.averaging.start == 29
    same = {"epochs", "milestones", "ramp", "averaging"}
    assert long.model_dump(exclude=same) == short.model_dump(exclude=same)
    assert stretched(short, 10) == short


def test_a_stretched_schedule_without_parts_has_none() -> None:
    assert stretched(Training(epochs=4), 6) == Training(epochs=6)
    assert stretched(Training(epochs=0), 6) == Training(epochs=6)
