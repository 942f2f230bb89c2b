"""Lines of operators hold on dense samples of their intervals, in exact arithmetic, whatever the interval."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest

from toolkit.numpy_prover.neuron_operators import OPERATORS, NumpyLines

SMOOTH = ["Sigmoid", "Tanh"]
DIGITS = 60
WIDTHS = (1e-15, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0, 1e3)


def exact(name: str, z: float) -> Fraction:
    """The function to many more digits than a double has."""
    with localcontext() as context:
        context.prec = DIGITS + 350
        decay = (-abs(Decimal(z)) * (2 if name == "Tanh" else 1)).exp()
        small = decay / (1 + decay)
        if name == "Sigmoid":
            return Fraction(small if z < 0 else 1 - small)
        return Fraction((2 * small - 1) if z < 0 else (1 - 2 * small))


def intervals(generator: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Of very different widths, near zero and far in the tails, ``(1, number)`` each."""
    centre = generator.choice([-1.0, 1.0], number) * 10.0 ** generator.uniform(-9, 2.8, number)
    radius = generator.choice(WIDTHS, number) / 2
    return (centre - radius)[None], (centre + radius)[None]


def slack(name: str, lines: NumpyLines, k: int, z: float) -> tuple[Fraction, Fraction]:
    """How far the function is above the lower line and below the upper one, exactly."""
    value, at = exact(name, z), Fraction(z)
    below = Fraction(float(lines.lower_slope[0, k])) * at + Fraction(float(lines.lower_offset[0, k]))
    above = Fraction(float(lines.upper_slope[0, k])) * at + Fraction(float(lines.upper_offset[0, k]))
    return value - below, above - value


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", SMOOTH)
def test_lines_hold_in_exact_arithmetic(name: str, seed: int) -> None:
    lower, upper = intervals(np.random.default_rng(seed), 60)
    lines = OPERATORS[name].lines(lower, upper)
    for k, (low, high) in enumerate(zip(lower[0], upper[0], strict=True)):
        for z in np.clip([low, high, 0.0, *np.linspace(low, high, 5)], low, high):
            assert min(slack(name, lines, k, float(z))) >= 0, f"[{low!r}, {high!r}] at {z!r}"


@pytest.mark.parametrize("name", SMOOTH)
def test_lines_hold_on_dense_samples(name: str) -> None:
    lower, upper = intervals(np.random.default_rng(9), 4000)
    lines, function = OPERATORS[name].lines(lower, upper), OPERATORS[name].function
    for share in np.linspace(0, 1, 101):
        z = np.clip(lower + share * (upper - lower), lower, upper)
        rounding = 1e-15 * (1 + np.abs(lines.lower_slope * z) + np.abs(lines.upper_slope * z))
        assert (lines.lower_slope * z + lines.lower_offset <= function(z) + rounding).all()
        assert (lines.upper_slope * z + lines.upper_offset >= function(z) - rounding).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_images_hold_in_exact_arithmetic(name: str) -> None:
    lower, upper = intervals(np.random.default_rng(3), 200)
    low, high = OPERATORS[name].image(lower, upper)
    for k in range(200):
        assert Fraction(float(low[0, k])) <= exact(name, float(lower[0, k]))
        assert Fraction(float(high[0, k])) >= exact(name, float(upper[0, k]))


@pytest.mark.parametrize("name", SMOOTH)
def test_lines_touch(name: str) -> None:
    """They are not just the image's ends: a tangent's or a chord's distance from the function is of second order."""
    lower = np.array([[-3.0, -1.0, -0.01, 0.5, 2.0]])
    for width in (1e-1, 1e-2, 1e-3):
        upper = lower + width
        lines = OPERATORS[name].lines(lower, upper)
        slope, offset = lines.upper_slope - lines.lower_slope, lines.upper_offset - lines.lower_offset
        assert (np.maximum(slope * lower, slope * upper) + offset <= width**2 + 1e-13).all()


@pytest.mark.parametrize("name", OPERATORS)
def test_values_change_by_no_more_than_arguments(name: str) -> None:
    z = np.linspace(-10, 10, 10001)
    assert (np.abs(np.diff(OPERATORS[name].function(z))) <= np.diff(z) * (1 + 1e-9)).all()


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("reach", [800.0, 1e6, 1e308])
def test_far_out_nothing_warns_or_breaks(name: str, reach: float) -> None:
    lower, upper = np.array([[-reach, -reach, 0.5 * reach, 0.0]]), np.array([[-0.5 * reach, reach, reach, reach]])
    with np.errstate(all="raise", under="ignore", over="ignore" if reach == 1e308 else "raise"):
        lines, (low, high) = OPERATORS[name].lines(lower, upper), OPERATORS[name].image(lower, upper)
    assert (low <= high).all()
    for z in (lower, upper):
        value = OPERATORS[name].function(z)
        assert not (lines.lower_slope * z + lines.lower_offset > value).any()
        assert not (lines.upper_slope * z + lines.upper_offset < value).any()


@pytest.mark.parametrize("seed", range(20))
def test_the_upper_line_of_relu_is_above_in_exact_arithmetic(seed: int) -> None:
    """At both ends of intervals of very different sides, where a rounded slope is nearly too small."""
    generator = np.random.default_rng(seed)
    lower, upper = -(10.0 ** generator.uniform(-9, 9, (1, 50))), 10.0 ** generator.uniform(-9, 9, (1, 50))
    lines = OPERATORS["Relu"].lines(lower, upper)
    for low, high, slope, offset in zip(lower[0], upper[0], lines.upper_slope[0], lines.upper_offset[0], strict=True):
        assert Fraction(slope) * Fraction(low) + Fraction(offset) >= 0
        assert Fraction(slope) * Fraction(high) + Fraction(offset) >= Fraction(high)
