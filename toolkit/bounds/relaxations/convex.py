"""Functions that are convex or concave on all of their domain: a chord on one side, a tangent on the other.

The tangent is taken at the middle, where it leaves the least area. The line above a convex function need not be the
exact chord: a line of any slope that rests on both end points is above it.

Where an argument is known to be in a domain with an end (``..._from_...``), bounds beyond it are errors of rounding or
of relaxation: the real number is inside, so they are cut there. Where it is not known, there may be no value, and
nothing is proved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.bounds.relaxations.relaxation import (
    Function,
    Image,
    Relaxation,
    RelaxationLines,
    chord_slope,
    combine,
    increasing,
    outward,
    resting_above,
    wide,
)


def _lines_of_convex(
    function: Function, derivative: Function, image: Image, lower: Tensor, upper: Tensor
) -> RelaxationLines:
    f_lower, f_upper = function(lower), function(upper)
    chord = chord_slope(lower, upper, f_lower, f_upper)
    above = resting_above(chord, lower, upper, [lower, upper], [f_lower, f_upper])
    middle = lower + (upper - lower) / 2
    tangent = derivative(middle)
    below = -resting_above(-tangent, lower, upper, [middle], [-function(middle)])
    return combine((tangent, below), (chord, above), *image(lower, upper))


def convex(function: Function, derivative: Function, image: Image, least: float = -torch.inf) -> Relaxation:
    """A convex function on the domain from ``least``, which its image function need not mind."""

    def cut(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if least == -torch.inf:
            return lower, upper
        return lower.clamp(min=least) + 0.0, upper.clamp(min=least) + 0.0  # no negative zeros: their poles differ

    return Relaxation(
        function,
        lambda lower, upper: _lines_of_convex(function, derivative, image, *cut(lower, upper)),
        lambda lower, upper: image(*cut(lower, upper)),
        wide,
    )


def concave(function: Function, derivative: Function, image: Image, least: float = -torch.inf) -> Relaxation:
    """A concave function on the domain from ``least``: the convex one, upside down."""

    def negative_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = image(lower, upper)
        return -high, -low

    mirror = convex(lambda z: -function(z), lambda z: -derivative(z), negative_image, least)

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        found = mirror.lines(lower, upper)
        return RelaxationLines(-found.upper_slope, -found.upper_offset, -found.lower_slope, -found.lower_offset)

    def upright_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = mirror.image(lower, upper)
        return -high, -low

    return Relaxation(function, lines, upright_image, wide)


def undefined_below_zero(inside: Relaxation) -> Relaxation:
    """A function that has no value below zero: nothing is known of it on an interval that reaches there."""

    def image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = inside.image(lower, upper)
        undefined = ~(lower >= 0)
        return torch.where(undefined, -torch.inf, low), torch.where(undefined, torch.inf, high)

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        found, undefined = inside.lines(lower, upper), ~(lower >= 0)
        return RelaxationLines(
            found.lower_slope.masked_fill(undefined, 0.0),
            found.lower_offset.masked_fill(undefined, -torch.inf),
            found.upper_slope.masked_fill(undefined, 0.0),
            found.upper_offset.masked_fill(undefined, torch.inf),
        )

    return Relaxation(inside.function, lines, image, inside.inexact)


def _decreasing_positive(function: Function) -> Image:
    """Image of a decreasing function with values above zero."""

    def image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return outward(function(upper), function(lower), 0.0)

    return image


def _square_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    least, most = torch.minimum(lower * lower, upper * upper), torch.maximum(lower * lower, upper * upper)
    return outward(torch.where((lower <= 0) & (upper >= 0), 0.0, least), most, 0.0)


def _inverse(least: float = -torch.inf) -> Relaxation:
    return convex(torch.reciprocal, lambda z: -1 / (z * z), _decreasing_positive(torch.reciprocal), least)


def _inverse_root(least: float) -> Relaxation:
    return convex(torch.rsqrt, lambda z: -0.5 * torch.rsqrt(z) / z, _decreasing_positive(torch.rsqrt), least)


_POSITIVE = _inverse()
RECIPROCAL_FROM_ONE = _inverse(1.0)
"""1 / z of arguments that cannot be below one."""


def _has_pole(lower: Tensor, upper: Tensor) -> Tensor:
    """Intervals with zero in them; NaN counts."""
    return ~((lower > 0) | (upper < 0))


def _positive_side(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether an interval is negative, and the interval or its mirror image, NaN if it contains zero."""
    negative, pole = upper < 0, _has_pole(lower, upper)
    low, high = torch.where(negative, -upper, lower), torch.where(negative, -lower, upper)
    return negative, torch.where(pole, torch.nan, low), torch.where(pole, torch.nan, high)


def _reciprocal_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    negative, *positive = _positive_side(lower, upper)
    low, high = _POSITIVE.image(positive[0], positive[1])
    low, high = torch.where(negative, -high, low), torch.where(negative, -low, high)
    pole = _has_pole(lower, upper)
    return torch.where(pole, -torch.inf, low), torch.where(pole, torch.inf, high)


def _reciprocal_lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """1 / z is odd: the lines of a negative interval are those of its mirror image, exchanged."""
    negative, *positive = _positive_side(lower, upper)
    found = _POSITIVE.lines(positive[0], positive[1])
    below = (
        torch.where(negative, found.upper_slope, found.lower_slope),
        torch.where(negative, -found.upper_offset, found.lower_offset),
    )
    above = (
        torch.where(negative, found.lower_slope, found.upper_slope),
        torch.where(negative, -found.lower_offset, found.upper_offset),
    )
    return combine(below, above, *_reciprocal_image(lower, upper))


_ROOT = concave(torch.sqrt, lambda z: 0.5 / torch.sqrt(z), increasing(torch.sqrt, 0.0), 0.0)
_LOGARITHM = concave(torch.log, torch.reciprocal, increasing(torch.log), 0.0)

CONVEX: dict[str, Relaxation] = {
    "square": convex(lambda z: z * z, lambda z: 2 * z, _square_image),
    "exp": convex(torch.exp, torch.exp, increasing(torch.exp, 0.0)),
    "softplus": convex(lambda z: torch.logaddexp(z, torch.zeros_like(z)), torch.sigmoid,
                       increasing(lambda z: torch.logaddexp(z, torch.zeros_like(z)), 0.0)),
    "sqrt": undefined_below_zero(_ROOT),
    "log": undefined_below_zero(_LOGARITHM),
    "rsqrt": undefined_below_zero(_inverse_root(0.0)),
    "sqrt_from_zero": _ROOT,
    "log_from_zero": _LOGARITHM,
    "rsqrt_from_zero": _inverse_root(0.0),
    "rsqrt_from_one": _inverse_root(1.0),
    "reciprocal": Relaxation(torch.reciprocal, _reciprocal_lines, _reciprocal_image, wide),
}  # fmt: skip
