"""The schedules' published check points."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.training.schedule import epsilon_at, learning_rate_at, smoothed_fraction
from toolkit.training.training_options import Ramp, Training


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
