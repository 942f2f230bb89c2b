"""Functions that are convex or concave on all of their domain: a chord on one side, a tangent on the other.

The tangent is taken at the middle, where it leaves the least area. The line above a convex function need not be the
exact chord: a line of any slope that rests on both end points is above it.

Where an argument is known to be in a domain with an end (``..._from_...``), bounds beyond it are errors of rounding or
of relaxation: the real number is inside, so they are cut there. Where it is not known, there may be no value, and
nothing is proved.
"""

from __future__ import annotations

from math import inf, nan
from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import named, namespace
from toolkit.ops.operator_record import ElementwiseOperator, OnnxOperator, OperatorKind
from toolkit.ops.relaxation import (
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

if TYPE_CHECKING:
    from torch import Tensor


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


def convex(function: Function, derivative: Function, image: Image, least: float = -inf) -> Relaxation:
    """A convex function on the domain from ``least``, which its image function need not mind."""

    def cut(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        if least == -inf:
            return lower, upper
        clip = namespace(lower).clip
        return clip(lower, least, None) + 0.0, clip(upper, least, None) + 0.0  # no negative zeros: their poles differ

    return Relaxation(
        function,
        lambda lower, upper: _lines_of_convex(function, derivative, image, *cut(lower, upper)),
        lambda lower, upper: image(*cut(lower, upper)),
        wide,
    )


def concave(function: Function, derivative: Function, image: Image, least: float = -inf) -> Relaxation:
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
        undefined, where = ~(lower >= 0), namespace(lower).where
        return where(undefined, -inf, low), where(undefined, inf, high)

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        found, undefined, where = inside.lines(lower, upper), ~(lower >= 0), namespace(lower).where
        return RelaxationLines(
            where(undefined, 0.0, found.lower_slope),
            where(undefined, -inf, found.lower_offset),
            where(undefined, 0.0, found.upper_slope),
            where(undefined, inf, found.upper_offset),
        )

    return Relaxation(inside.function, lines, image, inside.inexact)


def _decreasing_positive(function: Function) -> Image:
    """Image of a decreasing function with values above zero."""

    def image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        return outward(function(upper), function(lower), 0.0)

    return image


def _square_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    xp = namespace(lower)
    least, most = xp.minimum(lower * lower, upper * upper), xp.maximum(lower * lower, upper * upper)
    return outward(xp.where((lower <= 0) & (upper >= 0), 0.0, least), most, 0.0)


_exp, _log, _sqrt, _rsqrt = named("exp"), named("log"), named("sqrt"), named("rsqrt")
_reciprocal, _sigmoid = named("reciprocal"), named("sigmoid")


def _softplus(z: Tensor) -> Tensor:
    xp = namespace(z)
    value: Tensor = xp.logaddexp(z, xp.zeros_like(z))
    return value


def _inverse(least: float = -inf) -> Relaxation:
    return convex(_reciprocal, lambda z: -1 / (z * z), _decreasing_positive(_reciprocal), least)


def _inverse_root(least: float) -> Relaxation:
    return convex(_rsqrt, lambda z: -0.5 * _rsqrt(z) / z, _decreasing_positive(_rsqrt), least)


_POSITIVE = _inverse()
RECIPROCAL_FROM_ONE = _inverse(1.0)
"""1 / z of arguments that cannot be below one."""


def _has_pole(lower: Tensor, upper: Tensor) -> Tensor:
    """Intervals with zero in them; NaN counts."""
    return ~((lower > 0) | (upper < 0))


def _positive_side(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether an interval is negative, and the interval or its mirror image, NaN if it contains zero."""
    negative, pole, where = upper < 0, _has_pole(lower, upper), namespace(lower).where
    low, high = where(negative, -upper, lower), where(negative, -lower, upper)
    return negative, where(pole, nan, low), where(pole, nan, high)


def _reciprocal_image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    negative, *positive = _positive_side(lower, upper)
    low, high = _POSITIVE.image(positive[0], positive[1])
    pole, where = _has_pole(lower, upper), namespace(lower).where
    low, high = where(negative, -high, low), where(negative, -low, high)
    return where(pole, -inf, low), where(pole, inf, high)


def _reciprocal_lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
    """1 / z is odd: the lines of a negative interval are those of its mirror image, exchanged."""
    negative, *positive = _positive_side(lower, upper)
    found, where = _POSITIVE.lines(positive[0], positive[1]), namespace(lower).where
    below = (
        where(negative, found.upper_slope, found.lower_slope),
        where(negative, -found.upper_offset, found.lower_offset),
    )
    above = (
        where(negative, found.lower_slope, found.upper_slope),
        where(negative, -found.lower_offset, found.upper_offset),
    )
    return combine(below, above, *_reciprocal_image(lower, upper))


EXPONENTIAL = convex(_exp, _exp, increasing(_exp, 0.0))
_ROOT = concave(_sqrt, lambda z: 0.5 / _sqrt(z), increasing(_sqrt, 0.0), 0.0)
_LOGARITHM = concave(_log, _reciprocal, increasing(_log), 0.0)

LEAST_EXPONENTIAL = 2.0**-126
"""What exponentials below it are rounded to zero from: the smallest normal number of single precision."""

CONVEX = (
    ElementwiseOperator(
        "square",
        "prunecert.square.default",
        convex(lambda z: z * z, lambda z: 2 * z, _square_image),
        nonnegative=True,
        folds=True,
    ),
    ElementwiseOperator(
        "exp",
        "aten.exp.default",
        EXPONENTIAL,
        OnnxOperator("Exp", OperatorKind.ELEMENTWISE),
        nonnegative=True,
        vanishing=LEAST_EXPONENTIAL,
        surrogate=lambda z, value: value * z,
    ),
    ElementwiseOperator(  # log(1 + exp z)
        "softplus",
        "prunecert.softplus.default",
        convex(_softplus, _sigmoid, increasing(_softplus, 0.0)),
        OnnxOperator("Softplus", OperatorKind.ELEMENTWISE),
        nonnegative=True,
        saturating=True,
    ),
    ElementwiseOperator(
        "sqrt",
        "aten.sqrt.default",
        undefined_below_zero(_ROOT),
        OnnxOperator("Sqrt", OperatorKind.ELEMENTWISE),
        partial=True,
        nonnegative=True,
        from_zero="sqrt_from_zero",
    ),
    ElementwiseOperator(
        "log",
        "aten.log.default",
        undefined_below_zero(_LOGARITHM),
        OnnxOperator("Log", OperatorKind.ELEMENTWISE),
        partial=True,
        from_zero="log_from_zero",
    ),
    ElementwiseOperator(
        "rsqrt",
        "aten.rsqrt.default",
        undefined_below_zero(_inverse_root(0.0)),
        partial=True,
        nonnegative=True,
        from_zero="rsqrt_from_zero",
    ),
    ElementwiseOperator("sqrt_from_zero", "prunecert.sqrt_from_zero.default", _ROOT, nonnegative=True),
    ElementwiseOperator("log_from_zero", "prunecert.log_from_zero.default", _LOGARITHM, partial=True),
    ElementwiseOperator(
        "rsqrt_from_zero",
        "prunecert.rsqrt_from_zero.default",
        _inverse_root(0.0),
        partial=True,
        nonnegative=True,
    ),
    ElementwiseOperator("rsqrt_from_one", "prunecert.rsqrt_from_one.default", _inverse_root(1.0), nonnegative=True),
    ElementwiseOperator(
        "reciprocal",
        "aten.reciprocal.default",
        Relaxation(_reciprocal, _reciprocal_lines, _reciprocal_image, wide),
        OnnxOperator("Reciprocal", OperatorKind.ELEMENTWISE),
        partial=True,
        folds=True,
    ),
)
