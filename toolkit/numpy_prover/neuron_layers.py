"""Layers of neurons: expressions to which an operator is applied, each a new source for those after it.

Neurons that are constant or linear all over the boxes of a query are no sources: their values are expressions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from toolkit.numpy_prover.expression_intervals import BoxBatch, interval
from toolkit.numpy_prover.expressions import (
    AffineExpression,
    Array,
    NotRead,
    evaluated,
    moved,
    placed,
    reshaped,
    scaled,
    total,
)
from toolkit.numpy_prover.neuron_operators import OPERATORS, NumpyLines, NumpyOperator
from toolkit.tuning import tuned


@dataclass(frozen=True)
class NeuronLayer:
    """Neurons, flat: an operator and its arguments as rows over the sources before."""

    operator: NumpyOperator
    rows: AffineExpression


@dataclass
class NeuronLayers:
    """The layers that have been met, for inputs in a box."""

    sources: list[BoxBatch]
    """Bounds of the values of all sources, one box each: at first those of the input."""
    found: list[NeuronLayer] = field(default_factory=list)

    def apply(self, name: str, x: AffineExpression) -> AffineExpression:
        """The values of an operator, those of some neurons as a new source. Raises NotRead."""
        operator, flat = OPERATORS[name], reshaped(x, (x.constant.size,))
        bounds = interval(flat, self.sources)
        if not np.isfinite(bounds.lower + bounds.upper).all():
            raise NotRead("overflow")
        lines, changing = operator.lines(bounds.lower, bounds.upper), changes(flat)
        neurons = _neurons(flat, changing, operator.inexact(bounds.lower, bounds.upper)[0], lines)
        values = _affine_values(operator, flat, changing, lines, neurons)
        if len(neurons):
            values = total(values, self._source(operator, flat, bounds, neurons))
        return reshaped(values, x.shape)

    def _source(
        self, operator: NumpyOperator, flat: AffineExpression, bounds: BoxBatch, neurons: NDArray[np.int64]
    ) -> AffineExpression:
        """The values of some neurons as a new source, in their places among zeros."""
        size = len(flat.constant)
        if size * len(neurons) > tuned().numpy_prover.most_numbers:
            raise NotRead("a wide layer")
        self.found.append(NeuronLayer(operator, moved(flat, lambda array: array[neurons])))
        self.sources.append(BoxBatch(*operator.image(bounds.lower[:, neurons], bounds.upper[:, neurons])))
        matrix = placed(neurons, size)
        return AffineExpression({len(self.found): matrix}, np.zeros(size), matrix @ self.sources[-1].reach[0])


def changes(flat: AffineExpression) -> NDArray[np.bool_]:
    """Which elements of a vector some source changes, ``(N,)``."""
    parts = [part.any(1) for part in flat.coefficients.values()]
    return np.logical_or.reduce([np.zeros(flat.shape, np.bool_), *parts])


def _neurons(
    flat: AffineExpression, changing: NDArray[np.bool_], inexact: NDArray[np.bool_], lines: NumpyLines
) -> NDArray[np.int64]:
    """The neurons that become a source: the inexact ones, or all that change where that makes later layers smaller."""
    moving = inexact | (lines.lower_slope[0] != 0)
    curved, varying = np.flatnonzero(changing & inexact), np.flatnonzero(changing & moving)
    columns = sum(part.shape[-1] for part in flat.coefficients.values())
    return curved if columns + len(curved) <= len(varying) else varying


def _affine_values(
    operator: NumpyOperator,
    flat: AffineExpression,
    changing: NDArray[np.bool_],
    lines: NumpyLines,
    neurons: NDArray[np.int64],
) -> AffineExpression:
    """The values of all but some neurons: constants, or on their line. No operator makes errors of rounding larger."""
    still = ~changing
    slope = np.where(still, 0.0, lines.lower_slope[0])
    constant = np.where(still, operator.function(flat.constant), lines.lower_offset[0])
    slope[neurons] = constant[neurons] = 0.0
    values = AffineExpression({}, constant, np.abs(constant) + np.where(still, flat.magnitude, 0.0))
    return total(scaled(flat, slope), values) if slope.any() else values


def values(layers: Sequence[NeuronLayer], points: Array) -> list[Array]:
    """Values of all sources, ``(P, size)`` each, at points ``(P, n)``."""
    sources = [points]
    for layer in layers:
        sources.append(layer.operator.function(evaluated(layer.rows, sources)))
    return sources
