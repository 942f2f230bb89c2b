"""Rounding to a narrower floating type: the identity, within half a unit in the last place.

``|round(z) - z| <= u |z| + t`` with the type's unit roundoff u and its smallest number t, as long as z does not
overflow. Beyond that the result may be infinite, so there are no finite lines. With ``z - u |z|`` concave and
``z + u |z|`` convex, their chords are lines below and above.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.bounds.relaxations.relaxation import (
    Line,
    Relaxation,
    RelaxationLines,
    chord_slope,
    combine,
    outward,
    resting_above,
    wide,
)

MARGIN = 1 + 2.0**-8
"""Factor on the unit roundoff for values that are rounded to single precision on the way, as onnxruntime does."""


def rounding_to(dtype: torch.dtype) -> Relaxation:
    """The relaxation of rounding to the nearest number of a type."""
    kind = torch.finfo(dtype)
    unit, least = kind.eps / 2 * MARGIN, kind.tiny * kind.eps

    def error(z: Tensor) -> Tensor:
        return unit * z.abs() + max(least, torch.finfo(z.dtype).tiny)

    def image(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
        low, high = outward(lower - error(lower), upper + error(upper))
        known = (lower >= -kind.max) & (upper <= kind.max)
        return torch.where(known, low, -torch.inf), torch.where(known, high, torch.inf)

    def lines(lower: Tensor, upper: Tensor) -> RelaxationLines:
        low, high = image(lower, upper)
        known = torch.isfinite(low + high)
        lower, upper = torch.where(known, lower, 0.0), torch.where(known, upper, 0.0)
        below = _chord(-upper, -lower, error)  # rounding is odd
        above = _chord(lower, upper, error)
        infinite = torch.full_like(low, torch.inf)
        return combine(
            (below[0], torch.where(known, -below[1], infinite)),
            (above[0], torch.where(known, above[1], infinite)),
            low,
            high,
        )

    return Relaxation(lambda z: z.to(dtype).to(z.dtype), lines, image, wide)


def _chord(lower: Tensor, upper: Tensor, error: Callable[[Tensor], Tensor]) -> Line:
    """A line above ``z + error(z)``, which is convex."""
    ends = [lower + error(lower), upper + error(upper)]
    slope = chord_slope(lower, upper, *ends)
    return slope, resting_above(slope, lower, upper, [lower, upper], ends)


ROUNDING: dict[str, Relaxation] = {
    "float32": rounding_to(torch.float32),
    "float16": rounding_to(torch.float16),
    "bfloat16": rounding_to(torch.bfloat16),
}
"""By the name of the type."""
