"""Step functions: sign, floor and rounding to integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import as_numbers, named, namespace
from toolkit.ops.operator_record import ElementwiseOperator, OnnxOperator, OperatorKind
from toolkit.ops.relaxation import (
    Line,
    Relaxation,
    RelaxationLines,
    allowance,
    combine,
    odd_lines,
    reach,
    resting_above,
)

if TYPE_CHECKING:
    from torch import Tensor

LEAST_MEAN_MAGNITUDE = 1e-9
"""Smallest mean of a layer's magnitudes by which its signs are scaled."""
_floor = named("floor")
_round = named("round")
QUOTIENT_ROUNDING = 2.0**-22
"""Share of a quotient or product by which single precision may miss it: four times its unit roundoff."""


def _sign_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """By comparisons: torch says that the sign of NaN, of bounds that are not known, is zero."""
    xp = namespace(lower)
    one = xp.ones_like(lower)
    low = xp.where(lower > 0, one, xp.where(lower >= 0, 0.0, -one))
    high = xp.where(upper < 0, -one, xp.where(upper <= 0, 0.0, one))
    return low, high


def _sign_above(lower: Tensor, upper: Tensor) -> Line:
    """From (lower, -1) through (0, 1) where that leaves less area than the constant 1."""
    xp, (_, high) = namespace(lower), _sign_image(lower, upper)
    steep = xp.where((lower < 0) & (upper > 0) & (-lower > upper), -2 / lower, 0.0)
    steep = xp.where(xp.isfinite(steep), steep, 0.0)
    error = allowance(1 + steep * reach(lower, upper))
    return steep, xp.where(steep > 0, high + error, high)


def _sign_inexact(lower: Tensor, upper: Tensor) -> Tensor:
    low, high = _sign_image(lower, upper)
    return low != high


def _floor_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    return _floor(lower), _floor(upper)


def _floor_lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """The constant, or ``z - 1 <= floor(z) <= z``."""
    low, high = _floor_image(lower, upper)
    slope = as_numbers(low != high, low)
    return combine((slope, low * (1 - slope) - slope), (slope, high * (1 - slope)), low, high)


def _floor_inexact(lower: Tensor, upper: Tensor) -> Tensor:
    return ~(_floor(lower) == _floor(upper))


def _missed(z: Tensor) -> Tensor:
    """By how much single precision may miss a number that is rounded next."""
    return QUOTIENT_ROUNDING * abs(z)


def _round_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Next to a tie, both neighbours: which of them a network takes that computes in single precision is not known."""
    return _round(lower - _missed(lower)), _round(upper + _missed(upper))


def _round_above(lower: Tensor, upper: Tensor) -> Line:
    """The edge over the middle of the interval of the hull of all steps' corners.

    Over two jumps and more that is ``z + 1/2``, through their upper corners. With one jump it is the line through the
    lower end and the jump's upper corner, or the constant; in intervals shorter than a step always the constant, which
    alone comes down to the function as an interval shrinks around its jump.
    """
    xp, (low, high) = namespace(lower), _round_image(lower, upper)
    many = high - low >= 2
    offset = 0.5 + allowance(reach(lower, upper)) + _missed(reach(lower, upper))
    jump = low + 0.5 - _missed(low + 0.5)
    chord = ~many & (high > low) & (upper - lower >= 1) & (jump - lower > upper - jump)
    steep = xp.where(chord, 1 / xp.where(chord, jump - lower, 1.0), 0.0)
    resting = resting_above(steep, lower, upper, [lower, jump], [low, high])
    return as_numbers(many, low) + steep, xp.where(many, offset, xp.where(chord, resting, high))


def _round_inexact(lower: Tensor, upper: Tensor) -> Tensor:
    low, high = _round_image(lower, upper)
    return ~(low == high)


def _scaled_by_mean(z: Tensor, value: Tensor) -> Tensor:
    """A sign passed straight through (Bengio et al. 2013), where it is not saturated."""
    return (z / z.detach().abs().mean(1, keepdim=True).clamp(min=LEAST_MEAN_MAGNITUDE)).clamp(-1, 1)


STEPS = (
    ElementwiseOperator(
        "sign",
        "aten.sign.default",
        Relaxation(named("sign"), odd_lines(_sign_above, _sign_image), _sign_image, _sign_inexact),
        OnnxOperator("Sign", OperatorKind.ELEMENTWISE, exact=True, jumps=True),
        jumps=True,
        surrogate=_scaled_by_mean,
    ),
    ElementwiseOperator(
        "floor",
        "aten.floor.default",
        Relaxation(_floor, _floor_lines, _floor_image, _floor_inexact),
        OnnxOperator("Floor", OperatorKind.ELEMENTWISE, exact=True, jumps=True),
        jumps=True,
        surrogate=lambda z, value: z,
    ),
    ElementwiseOperator(
        "round",
        "aten.round.default",
        Relaxation(_round, odd_lines(_round_above, _round_image), _round_image, _round_inexact),  # ties are odd, too
        OnnxOperator("Round", OperatorKind.ELEMENTWISE, exact=True, jumps=True),
        jumps=True,
        surrogate=lambda z, value: z,
    ),
)
