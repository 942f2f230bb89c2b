"""What a relaxation is, and the parts that all kinds share.

It is two lines a neuron, ``lower_slope z + lower_offset <= op(z) <= upper_slope z + upper_offset`` for all z in [l, u].
Which of its lower lines an unstable ReLU gets may be optimised (``alpha``). One file for each shape of function.

Lines have to hold for the function over the real numbers, so every computed offset is moved outward by what rounding
can have changed. Where no finite line can be given (a pole, an overflow, bounds that are not known), lines are
constants, infinite if need be: such a bound is not finite, so it never proves anything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from math import inf
from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import namespace

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[["Tensor"], "Tensor"]
Image = Callable[["Tensor", "Tensor"], tuple["Tensor", "Tensor"]]
Line = tuple["Tensor", "Tensor"]
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
    return namespace(lower).maximum(slope * lower, slope * upper) + offset


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
    return namespace(lower).maximum(abs(lower), abs(upper))


def allowance(values: Tensor) -> Tensor:
    """What rounding may have changed in a sum of terms of this total magnitude."""
    info = namespace(values).finfo(values.dtype)
    found: Tensor = OUTWARD_ULPS * (info.eps * abs(values) + info.tiny)
    return found


def chord_slope(lower: Tensor, upper: Tensor, f_lower: Tensor, f_upper: Tensor) -> Tensor:
    """Slope between the end points; zero for a point."""
    return (f_upper - f_lower) / namespace(lower).where(upper > lower, upper - lower, 1.0)


def resting_above(slope: Tensor, lower: Tensor, upper: Tensor, points: list[Tensor], values: list[Tensor]) -> Tensor:
    """Offset of the lowest line of a slope above some points of [lower, upper], rounded up.

    The allowance includes that of a slope wrong in its last places, anywhere in the interval.
    """
    offsets = [value - slope * point for point, value in zip(points, values, strict=True)]
    magnitude = abs(slope) * reach(lower, upper)
    needed = [o + allowance(abs(v) + magnitude) for o, v in zip(offsets, values, strict=True)]
    return reduce(namespace(slope).maximum, needed)


def outward(low: Tensor, high: Tensor, least: float = -inf, most: float = inf) -> tuple[Tensor, Tensor]:
    """A computed interval with allowance for rounding, inside the function's range.

    What overflowed is finite over the real numbers: an infinite lower end becomes the largest number.
    """
    xp = namespace(low)
    largest = xp.finfo(low.dtype).max
    low, high = xp.clip(low, None, largest), xp.clip(high, -largest, None)
    return xp.clip(low - allowance(low), least, None), xp.clip(high + allowance(high), None, most)


def increasing(function: Function, least: float = -inf, most: float = inf) -> Image:
    """The image of an increasing function with this range: its end points."""

    def image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return outward(function(lower), function(upper), least, most)

    return image


def odd_lines(above: Callable[[Tensor, Tensor], Line], image: Image) -> Callable[[Tensor, Tensor], RelaxationLines]:
    """Both lines of an odd function: that below is the one above the mirrored interval, with its offset negated."""

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        slope, offset = above(-upper, -lower)
        return combine((slope, -offset), above(lower, upper), *image(lower, upper))

    return lines


def combine(below: Line, above: Line, low: Tensor, high: Tensor) -> RelaxationLines:
    """The two lines; where one of them is not finite, both are constants: the image's ends."""
    xp = namespace(low)
    finite = xp.isfinite(below[0] + below[1]) & xp.isfinite(above[0] + above[1])
    flat = xp.zeros_like(low)
    return RelaxationLines(
        xp.where(finite, below[0], flat),
        xp.where(finite, below[1], low),
        xp.where(finite, above[0], flat),
        xp.where(finite, above[1], high),
    )
