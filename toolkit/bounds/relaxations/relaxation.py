"""What a relaxation is, and the parts that all kinds share.

Lines have to hold for the function over the real numbers, so every computed offset is moved outward by what rounding
can have changed. Where no finite line can be given (a pole, an overflow, bounds that are not known), lines are
constants, infinite if need be: such a bound is not finite, so it never proves anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
Image = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Line = tuple[Tensor, Tensor]
"""Slope and offset."""


@dataclass(frozen=True)
class RelaxationLines:
    """Two lines a neuron, each field of shape ``(B, N)`` (or broadcastable to it)."""

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor
    from_origin: bool = False
    """Whether all lower offsets are zero."""


def distance(lines: RelaxationLines, lower: Tensor, upper: Tensor) -> Tensor:
    """Largest distance between two lines on [l, u]: that at one of the ends."""
    slope, offset = lines.upper_slope - lines.lower_slope, lines.upper_offset - lines.lower_offset
    return torch.maximum(slope * lower, slope * upper) + offset


@dataclass(frozen=True)
class Relaxation:
    """Everything that bounding and branching need to know about an operator."""

    function: Function
    lines: Callable[[Tensor, Tensor], RelaxationLines]
    """Lines for bounds l, u; of an unstable piecewise-linear neuron any lower slope in [0, 1] is sound."""
    image: Image
    """Interval image ``(low, high)`` of bounds l, u."""
    inexact: Callable[[Tensor, Tensor], Tensor]
    """Neurons whose lines are not the operator itself on [l, u], those without known bounds included."""
    piecewise_linear: bool = False
    """Whether splitting at zero makes it linear, so that branching on its phase is complete."""
    gap: Callable[[RelaxationLines, Tensor, Tensor], Tensor] = distance
    """The relaxation's largest error, for its lines on l, u: what branching wants to make smaller."""


OUTWARD_ULPS = 16
"""Units in the last place by which computed values are moved outward; elementary functions err by one or two."""


def wide(lower: Tensor, upper: Tensor) -> Tensor:
    """Intervals of more than a point; NaN counts, as nothing is known there."""
    return ~(upper <= lower)


def reach(lower: Tensor, upper: Tensor) -> Tensor:
    """Largest magnitude in each interval."""
    return torch.maximum(lower.abs(), upper.abs())


def allowance(values: Tensor) -> Tensor:
    """What rounding may have changed in a sum of terms of this total magnitude."""
    info = torch.finfo(values.dtype)
    return OUTWARD_ULPS * (info.eps * values.abs() + info.tiny)


def chord_slope(lower: Tensor, upper: Tensor, f_lower: Tensor, f_upper: Tensor) -> Tensor:
    """Slope between the end points; zero for a point."""
    return (f_upper - f_lower) / torch.where(upper > lower, upper - lower, 1.0)


def resting_above(slope: Tensor, lower: Tensor, upper: Tensor, points: list[Tensor], values: list[Tensor]) -> Tensor:
    """Offset of the lowest line of a slope above some points of [lower, upper], rounded up.

    The allowance includes that of a slope wrong in its last places, anywhere in the interval.
    """
    offsets = [value - slope * point for point, value in zip(points, values, strict=True)]
    magnitude = slope.abs() * reach(lower, upper)
    needed = [o + allowance(v.abs() + magnitude) for o, v in zip(offsets, values, strict=True)]
    return needed[0] if len(needed) == 1 else torch.stack(needed).amax(0)


def outward(low: Tensor, high: Tensor, least: float = -torch.inf, most: float = torch.inf) -> tuple[Tensor, Tensor]:
    """A computed interval with allowance for rounding, inside the function's range.

    What overflowed is finite over the real numbers: an infinite lower end becomes the largest number.
    """
    largest = torch.finfo(low.dtype).max
    low, high = low.clamp(max=largest), high.clamp(min=-largest)
    return (low - allowance(low)).clamp(min=least), (high + allowance(high)).clamp(max=most)


def increasing(function: Function, least: float = -torch.inf, most: float = torch.inf) -> Image:
    """The image of an increasing function with this range: its end points."""

    def image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return outward(function(lower), function(upper), least, most)

    return image


def combine(below: Line, above: Line, low: Tensor, high: Tensor) -> RelaxationLines:
    """The two lines; where one of them is not finite, both are constants: the image's ends."""
    finite = torch.isfinite(below[0] + below[1]) & torch.isfinite(above[0] + above[1])
    flat = torch.zeros_like(low)
    return RelaxationLines(
        torch.where(finite, below[0], flat),
        torch.where(finite, below[1], low),
        torch.where(finite, above[0], flat),
        torch.where(finite, above[1], high),
    )
