"""Operators of layers: their values, their images, and two lines a neuron that the operator lies between.

Lines hold over the real numbers: every computed offset is moved outward by what rounding can have changed, in the
values of functions too. Bounds are finite here; lines that overflowed prove nothing, as no bound is finite then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Function = Callable[[Array], Array]
Line = tuple[Array, Array]
"""Slope and offset."""

TERMS = 1 << 20
"""Terms of a sum with those of all sums that it is made of, at most: a graph with more is not read."""
ROUNDING = TERMS * np.finfo(np.float64).eps
"""Relative error of such sums, in any order, by the total magnitude of their terms."""
OUTWARD_ULPS = 16
"""Units in the last place by which computed values are moved outward; elementary functions err by a few."""
NARROW_IMAGE_WIDTH = 1e-3
"""Width of an image in [-1, 1] that better bounds would hardly change."""
BISECTIONS = 8
"""Halvings of the range of a tangent point; any result is sound."""


@dataclass(frozen=True)
class NumpyLines:
    """``lower_slope * z + lower_offset <= f(z) <= upper_slope * z + upper_offset``, each ``(B, N)``."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


@dataclass(frozen=True)
class ElementwiseOperator:
    """A function of one variable that changes by no more than its argument does."""

    function: Function
    lines: Callable[[Array, Array], NumpyLines]
    """Lines on [l, u]."""
    image: Callable[[Array, Array], tuple[Array, Array]]
    """Bounds of the values on [l, u]."""
    inexact: Callable[[Array, Array], NDArray[np.bool_]]
    """Where the lines are not the operator itself."""
    loose: Callable[[Array, Array], NDArray[np.bool_]]
    """Where better bounds are worth their price."""


def _relu(z: Array) -> Array:
    return np.maximum(z, 0.0)


def relu_lines(lower: Array, upper: Array) -> NumpyLines:
    """The triangle, the line below by area (0 or the identity)."""
    low, high = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
    unstable = _unstable(lower, upper)
    slope = np.where(unstable, high / np.where(unstable, high - low, 1.0), (lower >= 0).astype(np.float64))
    below = np.where(unstable, (upper > -lower).astype(np.float64), slope)
    offset = np.where(unstable, ROUNDING * (high - low) - slope * low, 0.0)
    return NumpyLines(below, np.zeros_like(offset), slope, offset)


def _unstable(lower: Array, upper: Array) -> NDArray[np.bool_]:
    return (lower < 0) & (upper > 0)


RELU = ElementwiseOperator(_relu, relu_lines, lambda lower, upper: (_relu(lower), _relu(upper)), _unstable, _unstable)


def s_shaped(function: Function, derivative: Function, least: float, most: float) -> ElementwiseOperator:
    """An increasing function with values in [least, most] that is convex below zero and concave above."""

    def lines(lower: Array, upper: Array) -> NumpyLines:
        # -f(-z) bends as f does, so the line below is a line above, seen from the other side.
        slope, offset = _above(lambda z: -function(-z), lambda z: derivative(-z), -upper, -lower)
        return NumpyLines(slope, -offset, *_above(function, derivative, lower, upper))

    def image(lower: Array, upper: Array) -> tuple[Array, Array]:
        low, high = function(lower), function(upper)
        return np.maximum(low - _allowance(low), least), np.minimum(high + _allowance(high), most)

    def loose(lower: Array, upper: Array) -> NDArray[np.bool_]:
        return function(upper) - function(lower) > NARROW_IMAGE_WIDTH

    return ElementwiseOperator(function, lines, image, lambda lower, upper: lower < upper, loose)


def _above(function: Function, derivative: Function, lower: Array, upper: Array) -> Line:
    """A line above: the chord where the function is still steeper than it at the upper end, else a tangent.

    A tangent of the concave side is above that side; raised until it clears the lower end, it is above the other too.
    """
    f_lower, f_upper = function(lower), function(upper)
    chord = (f_upper - f_lower) / np.where(upper > lower, upper - lower, 1.0)
    concave = lower >= 0
    by_chord = (upper <= 0) | (~concave & (derivative(upper) >= chord))
    touch = np.where(by_chord, upper, (lower + upper) / 2)
    free = np.nonzero(~by_chord & ~concave)
    touch[free] = _touching(function, derivative, lower[free], upper[free], f_lower[free])
    slope = np.where(by_chord, chord, derivative(touch))
    f_touch, magnitude = function(touch), np.abs(slope) * np.maximum(np.abs(lower), np.abs(upper))
    at_lower = f_lower - slope * lower + _allowance(np.abs(f_lower) + magnitude)
    at_touch = f_touch - slope * touch + _allowance(np.abs(f_touch) + magnitude)
    return slope, np.maximum(at_lower, at_touch)


def _touching(function: Function, derivative: Function, lower: Array, upper: Array, f_lower: Array) -> Array:
    """A point of [0, upper] whose tangent is just above the function at ``lower``, where there is one."""
    low, high = np.zeros_like(upper), np.maximum(upper, 0.0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        clears = function(middle) + derivative(middle) * (lower - middle) >= f_lower
        low, high = np.where(clears, low, middle), np.where(clears, middle, high)
    return high


def _allowance(values: Array) -> Array:
    """What rounding may have changed in a sum of terms of this total magnitude."""
    info = np.finfo(np.float64)
    return OUTWARD_ULPS * (info.eps * np.abs(values) + info.tiny)


def _sigmoid(z: Array) -> Array:
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


def _sigmoid_derivative(z: Array) -> Array:
    """Its relative error is small in the tails too."""
    decay = np.exp(-np.abs(z))
    return decay / (1.0 + decay) ** 2


OPERATORS: dict[str, ElementwiseOperator] = {
    "Relu": RELU,
    "Sigmoid": s_shaped(_sigmoid, _sigmoid_derivative, 0.0, 1.0),
    "Tanh": s_shaped(np.tanh, lambda z: 4.0 * _sigmoid_derivative(2.0 * z), -1.0, 1.0),
}
"""By the name of the ONNX operator."""
