"""Rounding to a narrower floating type: the identity, within half a unit in the last place.

``|round(z) - z| <= u |z| + t`` with the type's unit roundoff u and its smallest number t, as long as z does not
overflow. Beyond that the result may be infinite, so there are no finite lines. With ``z - u |z|`` concave and
``z + u |z|`` convex, their chords are lines below and above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from toolkit.ops.array_namespace import namespace
from toolkit.ops.operator_record import ElementwiseOperator
from toolkit.ops.relaxation import (
    Line,
    Relaxation,
    RelaxationLines,
    chord_slope,
    combine,
    outward,
    resting_above,
    wide,
)

if TYPE_CHECKING:
    from torch import Tensor

MARGIN = 1 + 2.0**-8
"""Factor on the unit roundoff for values that are rounded to single precision on the way, as onnxruntime does."""


@dataclass(frozen=True)
class FloatFormat:
    """A floating type of torch: its unit in the last place of 1, smallest normal and largest number."""

    name: str
    eps: float
    tiny: float
    max: float


FORMATS = (
    FloatFormat("float32", 2.0**-23, 2.0**-126, (2 - 2.0**-23) * 2.0**127),
    FloatFormat("float16", 2.0**-10, 2.0**-14, 65504.0),
    FloatFormat("bfloat16", 2.0**-7, 2.0**-126, (2 - 2.0**-7) * 2.0**127),
)


def rounding_to(kind: FloatFormat) -> Relaxation:
    """The relaxation of rounding to the nearest number of a type."""
    unit, least = kind.eps / 2 * MARGIN, kind.tiny * kind.eps

    def function(z: Tensor) -> Tensor:
        return z.to(getattr(namespace(z), kind.name)).to(z.dtype)

    def error(z: Tensor) -> Tensor:
        return unit * z.abs() + max(least, namespace(z).finfo(z.dtype).tiny)

    def image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = outward(lower - error(lower), upper + error(upper))
        known = (lower >= -kind.max) & (upper <= kind.max)
        where = namespace(low).where
        return where(known, low, -inf), where(known, high, inf)

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        xp, (low, high) = namespace(lower), image(lower, upper)
        known = xp.isfinite(low + high)
        lower, upper = xp.where(known, lower, 0.0), xp.where(known, upper, 0.0)
        below = _chord(-upper, -lower, error)  # rounding is odd
        above = _chord(lower, upper, error)
        infinite = xp.full_like(low, inf)
        return combine(
            (below[0], xp.where(known, -below[1], infinite)),
            (above[0], xp.where(known, above[1], infinite)),
            low,
            high,
        )

    return Relaxation(function, lines, image, wide)


def _chord(lower: Tensor, upper: Tensor, error: Callable[[Tensor], Tensor]) -> Line:
    """A line above ``z + error(z)``, which is convex."""
    ends = [lower + error(lower), upper + error(upper)]
    slope = chord_slope(lower, upper, *ends)
    return slope, resting_above(slope, lower, upper, [lower, upper], ends)


CASTS = tuple(
    ElementwiseOperator(kind.name, f"prunecert.to_{kind.name}.default", rounding_to(kind), jumps=True, partial=True)
    for kind in FORMATS
)
"""Roundings to a type, by its name."""
