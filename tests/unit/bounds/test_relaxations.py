"""Every relaxation against its function, sampled densely and evaluated in extended precision: no tolerance."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scipy.special import erf
from torch import Tensor

from toolkit.ops import RELAXATIONS, RelaxationLines
from toolkit.ops.relaxation import distance
from toolkit.problem.operator_table import NONLINEAR

Extended = Callable[[np.ndarray], np.ndarray]
TRUTH: dict[str, Extended] = {
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "erf": lambda z: erf(z.astype(np.float64)).astype(np.longdouble),
    "atan": np.arctan,
    "cube": lambda z: z**3,
    "square": lambda z: z**2,
    "exp": np.exp,
    "softplus": lambda z: np.logaddexp(z, np.longdouble(0)),
    "sqrt": np.sqrt,
    "log": np.log,
    "rsqrt": lambda z: 1 / np.sqrt(z),
    "rsqrt_from_one": lambda z: 1 / np.sqrt(z),
    "sqrt_from_zero": np.sqrt,
    "log_from_zero": np.log,
    "rsqrt_from_zero": lambda z: 1 / np.sqrt(z),
    "reciprocal": lambda z: 1 / z,
    "exp_below_cap": lambda z: np.minimum(np.exp(z), np.longdouble(2) ** 115),
    "share": lambda z: 1 / z,
    "sin": np.sin,
    "sign": np.sign,
    "floor": np.floor,
    "round": np.rint,
    "float32": lambda z: z.astype(np.float32).astype(np.longdouble),
    "float16": lambda z: z.astype(np.float16).astype(np.longdouble),
    "bfloat16": lambda z: torch.from_numpy(z.astype(np.float64)).bfloat16().double().numpy().astype(np.longdouble),
}
DOMAIN = {"sqrt_from_zero": 0.0, "log_from_zero": 0.0, "rsqrt_from_zero": 0.0, "rsqrt_from_one": 1.0, "share": 1.0}
BELOW_ZERO = ("sqrt", "log", "rsqrt")
"""Operators that have no value there, and whose arguments may be there."""
EXACT = {"relu", "sign", "floor", "round"}
"""Operators that need no arithmetic; the lines of ReLU rely on the allowance of the sums they enter."""
ROUNDED = {"float32", "float16", "bfloat16"}
"""Roundings, which are as far from their lines as a unit in the last place, however narrow the interval."""
DTYPES = [torch.float32, torch.float64]
STARTS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-30, -1e-30, 1.5, -2.0]),
    st.floats(-3, 3, width=32),
    st.floats(-100, 100, width=32),
    st.floats(-1e6, 1e6, width=32),
)
WIDTHS = st.one_of(
    st.sampled_from([0.0, 1e-30, 1e-7, 1e-3, 1.0, 1e4]), st.floats(0, 1, width=32), st.floats(0, 100, width=32)
)
INTERVALS = st.lists(st.tuples(STARTS, WIDTHS, st.booleans()), min_size=1, max_size=12)


def bounds(intervals: list[tuple[float, float, bool]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The intervals, starting or ending at the given points, ``(1, N)``."""
    pairs = [(x, x + w) if forward else (x - w, x) for x, w, forward in intervals]
    lower, upper = torch.tensor(pairs, dtype=torch.float64).to(dtype).T
    return lower.unsqueeze(0), upper.unsqueeze(0)


def samples(name: str, lower: Tensor, upper: Tensor) -> np.ndarray:
    """Points of the domain in each interval, ``(points, N)``, in extended precision; NaN where there is none."""
    low, high = (side[0].double().numpy().astype(np.longdouble) for side in (lower, upper))
    share = np.concatenate([np.linspace(0, 1, 61), 10.0 ** -np.arange(3, 12), 1 - 10.0 ** -np.arange(3, 12)])
    z = np.clip(low + share[:, None].astype(np.longdouble) * (high - low), low, high)
    zero = np.clip(np.zeros_like(low), low, high)
    z = np.concatenate([z, zero[None], low[None], high[None]])
    return np.where(z >= DOMAIN.get(name, -np.inf), z, np.nan)


def evaluate(name: str, z: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        value = TRUTH[name](z)
    return np.where(np.isnan(z) | ~np.isfinite(value), np.nan, value)


def array(line: Tensor) -> np.ndarray:
    return line[0].double().numpy().astype(np.longdouble)


def violation(name: str, lines: RelaxationLines, z: np.ndarray) -> np.ndarray:
    """By how much the function leaves the lines, beyond what its own evaluation can err; NaN where it does not."""
    value = evaluate(name, z)
    below = array(lines.lower_slope) * z + array(lines.lower_offset)
    above = array(lines.upper_slope) * z + array(lines.upper_offset)
    return np.maximum(below - value, value - above)


def own_error(name: str, lines: RelaxationLines, z: np.ndarray) -> np.ndarray | float:
    """What the evaluation here, or for ReLU the sum the line enters, may err by."""
    if name == "relu":
        kind = torch.finfo(lines.upper_slope.dtype)
        # Slopes and offsets that are below the smallest normal number err by a last place of one size.
        underflow = kind.tiny * (1 + np.nanmax(np.abs(z), 0))
        return 4 * kind.eps * (np.abs(array(lines.upper_offset)) + np.abs(z) + underflow)
    return 4e-16 if name == "erf" else 1e-18 * np.abs(evaluate(name, z))


def test_every_relaxation_is_tested_and_used() -> None:
    assert set(TRUTH) == set(RELAXATIONS) == set(NONLINEAR.values())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", sorted(TRUTH))
@settings(max_examples=25, deadline=None)
@given(intervals=INTERVALS)
def test_lines_enclose_the_function(name: str, dtype: torch.dtype, intervals: list[tuple[float, float, bool]]) -> None:
    lower, upper = bounds(intervals, dtype)
    z = samples(name, lower, upper)
    lines = RELAXATIONS[name].lines(lower, upper)
    assert not np.any(violation(name, lines, z) > own_error(name, lines, z))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", sorted(TRUTH))
@settings(max_examples=25, deadline=None)
@given(intervals=INTERVALS)
def test_image_encloses_the_function(name: str, dtype: torch.dtype, intervals: list[tuple[float, float, bool]]) -> None:
    lower, upper = bounds(intervals, dtype)
    low, high = RELAXATIONS[name].image(lower, upper)
    value = evaluate(name, samples(name, lower, upper))
    error = 4e-16 if name == "erf" else 0
    assert not np.any((value < array(low) - error) | (value > array(high) + error))


@pytest.mark.parametrize("name", sorted(set(TRUTH) - EXACT - ROUNDED))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lines_of_points_are_the_function(name: str, dtype: torch.dtype) -> None:
    z = torch.tensor([[1.0, 1.25, 2.0, 3.0]], dtype=dtype)
    lines = RELAXATIONS[name].lines(z, z)
    size = RELAXATIONS[name].function(z).abs() + lines.lower_slope.abs() * z + 1
    assert bool((distance(lines, z, z) <= 100 * torch.finfo(dtype).eps * size).all())


@pytest.mark.parametrize("name", sorted(set(TRUTH) - EXACT - ROUNDED))
def test_gap_shrinks_with_the_square_of_the_width(name: str) -> None:
    centre = torch.tensor([[1.3, 1.9, 2.7, 4.1]], dtype=torch.float64)
    gaps = [
        distance(RELAXATIONS[name].lines(centre - width, centre + width), centre - width, centre + width).max()
        for width in (1e-1, 1e-2, 1e-3)
    ]
    assert gaps[1] < gaps[0] / 50
    assert gaps[2] < gaps[1] / 50


@pytest.mark.parametrize(("name", "wide"), [("sigmoid", 5.0), ("tanh", 3.0), ("erf", 2.0), ("atan", 6.0)])
def test_lines_around_the_inflection_touch_an_end_and_the_far_side(name: str, wide: float) -> None:
    lower, upper = torch.tensor([[-wide]], dtype=torch.float64), torch.tensor([[wide]], dtype=torch.float64)
    lines = RELAXATIONS[name].lines(lower, upper)
    z = torch.linspace(-wide, wide, 20001, dtype=torch.float64)
    distance = lines.upper_slope * z + lines.upper_offset - RELAXATIONS[name].function(z)
    assert float(distance[0, 0]) < 1e-2
    assert float(distance[0, 10001:].min()) < 1e-6
    assert 0 < float(lines.upper_slope) < 0.7


@pytest.mark.parametrize(("name", "lower", "upper"), [
    ("reciprocal", -1.0, 2.0), ("reciprocal", 0.0, 1.0), ("log", 0.0, 1.0), ("log", -1.0, 1.0), ("exp", 0.0, 1e4),
    ("square", -torch.inf, torch.inf), ("sigmoid", -torch.inf, torch.inf), ("sin", -torch.inf, 0.0),
    ("relu", -torch.inf, torch.inf), ("sqrt", torch.nan, torch.nan), ("sign", torch.nan, torch.nan),
])  # fmt: skip
def test_what_is_not_bounded_is_never_above_a_finite_line(name: str, lower: float, upper: float) -> None:
    """A line that would be wrong somewhere is infinite or NaN on its outer side."""
    relaxation = RELAXATIONS[name]
    l, u = torch.tensor([[lower]]), torch.tensor([[upper]])
    lines = relaxation.lines(l, u)
    low, high = relaxation.image(l, u)
    assert bool(relaxation.inexact(l, u))
    assert not bool((lines.lower_offset > low) & torch.isfinite(low))
    assert not bool(lines.lower_offset == torch.inf) and not bool(lines.upper_offset == -torch.inf)
    assert not bool(low == torch.inf) and not bool(high == -torch.inf)
    if name in {"reciprocal", "log"}:
        assert float(lines.lower_offset) == float(low) == -torch.inf


@pytest.mark.parametrize("name", ["exp", "square", "cube", "softplus"])
def test_an_overflow_is_no_bound(name: str) -> None:
    l, u = torch.tensor([[1e38]]), torch.tensor([[2e38]])
    low, high = RELAXATIONS[name].image(l, u)
    assert float(low) < torch.inf
    assert not float(high) < float(TRUTH[name](np.longdouble(1e3)))


@pytest.mark.parametrize("name", sorted(ROUNDED))
def test_a_rounding_is_bounded_by_its_last_place_and_not_beyond_overflow(name: str) -> None:
    kind = torch.finfo(getattr(torch, name))
    z = torch.tensor([[0.0, 1.0, -3.0, 1000.0]], dtype=torch.float64)
    gap = distance(RELAXATIONS[name].lines(z - 1e-9, z + 1e-9), z - 1e-9, z + 1e-9)
    assert bool((gap <= 1.1 * kind.eps * (z.abs() + 1e-8) + 3 * kind.tiny * kind.eps).all())
    for lower, upper in ((0.0, kind.max * 1.1), (-kind.max * 1.1, 0.0), (kind.max * 1.1, kind.max * 1.2)):
        l, u = (torch.tensor([[end]], dtype=torch.float64) for end in (lower, upper))
        lines, image = RELAXATIONS[name].lines(l, u), RELAXATIONS[name].image(l, u)
        assert float(lines.lower_offset) == float(image[0]) == -torch.inf
        assert float(lines.upper_offset) == float(image[1]) == torch.inf


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_next_to_a_tie_may_go_either_way(dtype: torch.dtype) -> None:
    """A quotient in single precision may be a tie where the exact one is none, and the other way round."""
    z = torch.tensor([[0.5, 1.5, -2.5, 2.4999998, 100.50001, -7.5000005]], dtype=dtype)
    low, high = RELAXATIONS["round"].image(z, z)
    assert low.tolist() == [[0, 1, -3, 2, 100, -8]] and high.tolist() == [[1, 2, -2, 3, 101, -7]]
    z = torch.tensor([[0.49, 1.51, -2.51, 100.49, 3e4 + 0.4]], dtype=dtype)
    low, high = RELAXATIONS["round"].image(z, z)
    assert low.tolist() == high.tolist() == [[0, 2, -3, 100, 3e4]]
    assert not bool(RELAXATIONS["round"].inexact(z, z).any())


@pytest.mark.parametrize(
    ("lower", "upper", "worst"),
    [(-0.4, 0.4, 0.0), (2.6, 3.4, 0.0), (0.1, 0.6, 1.0), (0.45, 0.55, 1.0), (-0.4, 1.4, 1.35), (-3.0, 40.0, 1.001)],
)
def test_lines_of_rounding_are_those_through_corners(lower: float, upper: float, worst: float) -> None:
    """Constant within a step; within one step's length around a jump, its two values; else as near as two corners."""
    l, u = torch.tensor([[lower]], dtype=torch.float64), torch.tensor([[upper]], dtype=torch.float64)
    for sign in (1, -1):
        ends = (l, u) if sign > 0 else (-u, -l)
        lines, (low, high) = RELAXATIONS["round"].lines(*ends), RELAXATIONS["round"].image(*ends)
        assert float(distance(lines, *ends)) <= worst
        if upper - lower < 1:
            assert (lines.lower_slope, lines.upper_slope) == (0, 0)
            assert (lines.lower_offset, lines.upper_offset) == (low, high)


@pytest.mark.parametrize("name", BELOW_ZERO)
@given(intervals=INTERVALS)
def test_nothing_is_known_where_a_value_may_be_undefined(name: str, intervals: list[tuple[float, float, bool]]) -> None:
    lower, upper = bounds(intervals, torch.float64)
    undefined = lower < 0
    low, high = RELAXATIONS[name].image(lower, upper)
    lines = RELAXATIONS[name].lines(lower, upper)
    assert bool((low[undefined] == -torch.inf).all()) and bool((high[undefined] == torch.inf).all())
    assert bool((lines.lower_offset[undefined] == -torch.inf).all())
    assert bool((lines.upper_offset[undefined] == torch.inf).all())
    assert not bool(torch.isinf(high[(lower > 0) & torch.isfinite(upper)]).any())
