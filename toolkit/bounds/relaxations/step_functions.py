"""Step functions: sign and floor."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.bounds.relaxations.relaxation import Line, Relaxation, RelaxationLines, allowance, combine, reach


def _sign_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """By comparisons: torch says that the sign of NaN, of bounds that are not known, is zero."""
    one = torch.ones_like(lower)
    low = torch.where(lower > 0, one, torch.where(lower >= 0, 0.0, -one))
    high = torch.where(upper < 0, -one, torch.where(upper <= 0, 0.0, one))
    return low, high


def _sign_above(lower: Tensor, upper: Tensor) -> Line:
    """From (lower, -1) through (0, 1) where that leaves less area than the constant 1."""
    _, high = _sign_image(lower, upper)
    steep = torch.where((lower < 0) & (upper > 0) & (-lower > upper), -2 / lower, 0.0)
    steep = torch.where(torch.isfinite(steep), steep, 0.0)
    error = allowance(1 + steep * reach(lower, upper))
    return steep, torch.where(steep > 0, high + error, high)


def _sign_lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    slope, offset = _sign_above(-upper, -lower)  # sign is odd
    return combine((slope, -offset), _sign_above(lower, upper), *_sign_image(lower, upper))


def _sign_inexact(lower: Tensor, upper: Tensor) -> Tensor:
    low, high = _sign_image(lower, upper)
    return low != high


def _floor_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    return torch.floor(lower), torch.floor(upper)


def _floor_lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """The constant, or ``z - 1 <= floor(z) <= z``."""
    low, high = _floor_image(lower, upper)
    slope = (low != high).to(low.dtype)
    return combine((slope, low * (1 - slope) - slope), (slope, high * (1 - slope)), low, high)


def _floor_inexact(lower: Tensor, upper: Tensor) -> Tensor:
    return ~(torch.floor(lower) == torch.floor(upper))


SIGN = Relaxation(torch.sign, _sign_lines, _sign_image, _sign_inexact)
FLOOR = Relaxation(torch.floor, _floor_lines, _floor_image, _floor_inexact)
