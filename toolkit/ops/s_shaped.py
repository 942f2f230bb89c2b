"""Functions with one inflection point, at zero: sigmoids, and odd powers with the bends the other way round.

The line above a function that is convex, then concave: the chord where the function is still steeper than it at the
upper end, else the tangent at the point of the concave side whose tangent meets the lower end (CROWN, Zhang et al.
2018, for sigmoid and tanh). That point is found by bisection, and need not be exact: a tangent of the concave side,
raised until it clears the lower end, is above the function.
"""

from __future__ import annotations

from functools import partial
from math import inf, pi
from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import computed_where, named, namespace
from toolkit.ops.operator_record import ElementwiseOperator, OnnxOperator, OperatorKind
from toolkit.ops.relaxation import (
    Function,
    Line,
    Relaxation,
    RelaxationLines,
    chord_slope,
    combine,
    increasing,
    resting_above,
    wide,
)
from toolkit.tuning import tuned

if TYPE_CHECKING:
    from torch import Tensor


def _above(function: Function, derivative: Function, lower: Tensor, upper: Tensor) -> Line:
    """A line above a function that is convex below zero and concave above."""
    where = namespace(lower).where
    f_lower, f_upper = function(lower), function(upper)
    chord = chord_slope(lower, upper, f_lower, f_upper)
    concave = lower >= 0
    by_chord = (upper <= 0) | (~concave & (derivative(upper) >= chord))
    bent = ~(concave | by_chord)
    touching = computed_where(bent, partial(_touching, function, derivative), lower, upper, f_lower)
    touch = where(concave, (lower + upper) / 2, touching)
    touch = where(by_chord, upper, touch)
    slope = where(by_chord, chord, derivative(touch))
    return slope, resting_above(slope, lower, upper, [lower, touch], [f_lower, function(touch)])


def _touching(function: Function, derivative: Function, lower: Tensor, upper: Tensor, f_lower: Tensor) -> Tensor:
    """A point of [0, upper] whose tangent is just above the function at ``lower``, where there is one."""
    xp = namespace(upper)
    low, high = xp.zeros_like(upper), xp.clip(upper, 0, None)
    for _ in range(tuned().relaxations.bisections):
        middle = (low + high) / 2
        clears = function(middle) + derivative(middle) * (lower - middle) >= f_lower
        low, high = xp.where(clears, low, middle), xp.where(clears, middle, high)
    return high


def convex_concave(function: Function, derivative: Function, least: float, most: float) -> Relaxation:
    """An increasing function that is convex below zero and concave above, with its range."""
    image = increasing(function, least, most)

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        # -f(-z) bends as f does, so the line below is a line above, seen from the other side.
        slope, offset = _above(lambda z: -function(-z), lambda z: derivative(-z), -upper, -lower)
        return combine((slope, -offset), _above(function, derivative, lower, upper), *image(lower, upper))

    return Relaxation(function, lines, image, wide)


def concave_convex(function: Function, derivative: Function) -> Relaxation:
    """An increasing, unbounded function that is concave below zero and convex above."""
    image = increasing(function)

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        down, down_offset = _above(lambda z: -function(z), lambda z: -derivative(z), lower, upper)
        up, up_offset = _above(lambda z: function(-z), lambda z: -derivative(-z), -upper, -lower)
        return combine((-down, -down_offset), (-up, up_offset), *image(lower, upper))

    return Relaxation(function, lines, image, wide)


_sigmoid, _tanh, _cosh, _exp = named("sigmoid"), named("tanh"), named("cosh"), named("exp")

# Derivatives are written so that their relative error is small in the tails too.
S_SHAPED = (
    ElementwiseOperator(
        "sigmoid",
        "aten.sigmoid.default",
        convex_concave(_sigmoid, lambda z: _sigmoid(z) * _sigmoid(-z), 0, 1),
        OnnxOperator("Sigmoid", OperatorKind.ELEMENTWISE, plain=True),
        nonnegative=True,
        saturating=True,
        lipschitz=0.25,
    ),
    ElementwiseOperator(
        "tanh",
        "aten.tanh.default",
        convex_concave(_tanh, lambda z: 1 / _cosh(z) ** 2, -1, 1),
        OnnxOperator("Tanh", OperatorKind.ELEMENTWISE, plain=True),
        saturating=True,
        lipschitz=1.0,
    ),
    ElementwiseOperator(
        "erf",
        "aten.erf.default",
        convex_concave(named("erf"), lambda z: _exp(-z * z) * (2 / pi**0.5), -1, 1),
        OnnxOperator("Erf", OperatorKind.ELEMENTWISE),
        saturating=True,
    ),
    ElementwiseOperator(
        "atan",
        "aten.atan.default",
        convex_concave(named("atan"), lambda z: 1 / (1 + z * z), -inf, inf),
        OnnxOperator("Atan", OperatorKind.ELEMENTWISE),
        saturating=True,
    ),
    ElementwiseOperator("cube", "prunecert.cube.default", concave_convex(lambda z: z**3, lambda z: 3 * z * z)),
)
