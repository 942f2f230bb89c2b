"""Boxes, and interval images of expressions over them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.numpy_prover.expressions import ROUNDING, AffineExpression, Array

INPUT = 0
"""Number of the input vector among the sources; layers follow."""


@dataclass(frozen=True)
class BoxBatch:
    """Bounds of a vector in each of several boxes, ``(B, n)`` each."""

    lower: Array
    upper: Array

    @property
    def reach(self) -> Array:
        """Largest magnitude of each value."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


def interval(x: AffineExpression, sources: Sequence[BoxBatch]) -> BoxBatch:
    """Interval image of a vector, for bounds of its sources."""
    every = np.zeros((len(sources[INPUT].lower), 1))
    centre, spread = every + x.constant, every + ROUNDING * x.magnitude
    for source, matrix in x.coefficients.items():
        known = sources[source]
        radius = (known.upper - known.lower) / 2 + ROUNDING * known.reach
        centre = centre + (known.lower + known.upper) / 2 @ matrix.T
        spread = spread + radius @ np.abs(matrix).T
    return BoxBatch(centre - spread, centre + spread)
