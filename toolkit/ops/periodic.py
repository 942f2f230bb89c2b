"""Sine: the best line of all slopes above it, by the closed form of its distance from a line.

``sin z - s z`` has its local maxima at ``arccos(s) + 2 pi k``, so the least offset of any slope is known. The line that
leaves the least area is the lowest at the middle of the interval; its height there is convex in the slope, whose best
value is found by bisection.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import named, namespace
from toolkit.ops.operator_record import ElementwiseOperator, OnnxOperator, OperatorKind
from toolkit.ops.relaxation import (
    Line,
    Relaxation,
    allowance,
    chord_slope,
    odd_lines,
    outward,
    reach,
    wide,
)
from toolkit.tuning import tuned

if TYPE_CHECKING:
    from torch import Tensor

PERIOD = 2 * pi
_sin = named("sin")


def _peaks(angle: Tensor | float, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether some ``angle + 2 pi k`` is in [lower, upper], and the first and the last of them."""
    xp = namespace(lower)
    first, last = xp.ceil((lower - angle) / PERIOD), xp.floor((upper - angle) / PERIOD)
    return first <= last, angle + PERIOD * first, angle + PERIOD * last


def _farthest(slope: Tensor, lower: Tensor, upper: Tensor) -> Line:
    """Where in [lower, upper] ``sin z - slope z`` is largest, and an upper bound of its value there."""
    xp = namespace(lower)
    some, first, last = _peaks(xp.arccos(slope), lower, upper)
    first, last = (xp.where(some, z, lower).clamp(lower, upper) for z in (first, last))
    points = xp.stack([lower, upper, first, last])
    value, index = (_sin(points) - slope * points).max(0)
    size = reach(lower, upper)
    # A peak that is off by its own rounding costs the square of that.
    error = allowance(1 + slope.abs() * size) + allowance(size).square()
    return points.gather(0, index.unsqueeze(0)).squeeze(0), value + error


def _above(lower: Tensor, upper: Tensor) -> Line:
    """A line above the sine: the lowest at the middle among chord, constant, and the bisected one."""
    xp = namespace(lower)
    middle = lower + (upper - lower) / 2
    chord = chord_slope(lower, upper, _sin(lower), _sin(upper)).clamp(-1, 1)
    low, high = xp.full_like(lower, -1), xp.ones_like(lower)
    for _ in range(tuned().relaxations.bisections):
        slope = (low + high) / 2
        rising = _farthest(slope, lower, upper)[0] > middle
        low, high = xp.where(rising, slope, low), xp.where(rising, high, slope)
    slopes = [chord, xp.zeros_like(chord), (low + high) / 2]
    lines = [(slope, _farthest(slope, lower, upper)[1]) for slope in slopes]
    best = xp.stack([slope * middle + offset for slope, offset in lines]).argmin(0, keepdim=True)
    slope, offset = (xp.stack(part).gather(0, best).squeeze(0) for part in zip(*lines, strict=True))
    return slope, offset


def _image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """End points, and the peaks between them; -1 and 1 where bounds are not known."""
    xp = namespace(lower)
    ends = xp.stack([_sin(lower), _sin(upper)])
    whole = ~(upper - lower < PERIOD)
    has_top, has_bottom = (_peaks(angle, lower, upper)[0] | whole for angle in (pi / 2, -pi / 2))
    # A peak missed by rounding is so near an end point that the square of the distance is all that is lost.
    missed = allowance(reach(lower, upper)).square()
    low = xp.where(has_bottom, -1.0, ends.amin(0) - missed)
    high = xp.where(has_top, 1.0, ends.amax(0) + missed)
    return outward(low, high, -1, 1)


SINE = ElementwiseOperator(
    "sin",
    "aten.sin.default",
    Relaxation(_sin, odd_lines(_above, _image), _image, wide),
    OnnxOperator("Sin", OperatorKind.ELEMENTWISE),
    saturating=True,
)
