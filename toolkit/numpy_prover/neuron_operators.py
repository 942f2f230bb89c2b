"""Operators of layers in numpy: the records of `toolkit.ops`, over arrays of double precision.

Lines hold over the real numbers: every computed offset is moved outward by what rounding can have changed, in the
values of functions too. Bounds are finite here; lines that overflowed prove nothing, as no bound is finite then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.numpy_prover.expressions import ROUNDING, Array
from toolkit.ops import ELEMENTWISE, Relaxation
from toolkit.tuning import tuned


@dataclass(frozen=True)
class NumpyLines:
    """``lower_slope * z + lower_offset <= f(z) <= upper_slope * z + upper_offset``, each ``(B, N)``."""

    lower_slope: Array
    lower_offset: Array
    upper_slope: Array
    upper_offset: Array


@dataclass(frozen=True)
class NumpyOperator:
    """A function of one variable that changes by no more than its argument does."""

    relaxation: Relaxation

    def function(self, z: Any) -> Array:
        """Values of the operator at z, of any shape; what is not defined is NaN or infinite, without a warning."""
        with np.errstate(all="ignore"):
            return self.relaxation.function(z)  # type: ignore[return-value]

    def lines(self, lower: Any, upper: Any) -> NumpyLines:
        """Lines on [l, u]. Those of a ReLU are raised by what the rounding of a slope changes at the ends."""
        with np.errstate(all="ignore"):
            found: Any = self.relaxation.lines(lower, upper)
        above = found.upper_offset
        if self.relaxation.piecewise_linear:
            above = above + np.where(self.inexact(lower, upper), ROUNDING * (upper - lower), 0.0)
        return NumpyLines(found.lower_slope, found.lower_offset, found.upper_slope, above)

    def image(self, lower: Any, upper: Any) -> tuple[Array, Array]:
        """Bounds of the values on [l, u]."""
        with np.errstate(all="ignore"):
            return self.relaxation.image(lower, upper)  # type: ignore[return-value]

    def inexact(self, lower: Any, upper: Any) -> NDArray[np.bool_]:
        """Where the lines are not the operator itself."""
        return self.relaxation.inexact(lower, upper)  # type: ignore[return-value]

    def loose(self, lower: Array, upper: Array) -> NDArray[np.bool_]:
        """Where better bounds are worth their price."""
        if self.relaxation.piecewise_linear:
            return self.inexact(lower, upper)
        return self.function(upper) - self.function(lower) > tuned().numpy_prover.narrow_image_width


OPERATORS: dict[str, NumpyOperator] = {
    operator.onnx.name: NumpyOperator(operator.relaxation)
    for operator in ELEMENTWISE.values()
    if operator.onnx is not None and operator.lipschitz is not None and operator.lipschitz <= 1
}
"""By the name of the ONNX operator."""
