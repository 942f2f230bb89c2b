"""Step functions: sign and floor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import as_numbers, named, namespace
from toolkit.ops.operator_record import ElementwiseOperator, OnnxOperator, OperatorKind
from toolkit.ops.relaxation import Line, Relaxation, RelaxationLines, allowance, combine, reach

if TYPE_CHECKING:
    from torch import Tensor

LEAST_MEAN_MAGNITUDE = 1e-9
"""Smallest mean of a layer's magnitudes by which its signs are scaled."""
_floor = named("floor")


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


def _sign_lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    slope, offset = _sign_above(-upper, -lower)  # sign is odd
    return combine((slope, -offset), _sign_above(lower, upper), *_sign_image(lower, upper))


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


def _scaled_by_mean(z: Tensor, value: Tensor) -> Tensor:
    """A sign passed straight through (Bengio et al. 2013), where it is not saturated."""
    return (z / z.detach().abs().mean(1, keepdim=True).clamp(min=LEAST_MEAN_MAGNITUDE)).clamp(-1, 1)


STEPS = (
    ElementwiseOperator(
        "sign",
        "aten.sign.default",
        Relaxation(named("sign"), _sign_lines, _sign_image, _sign_inexact),
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
)
