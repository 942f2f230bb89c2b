"""Backward linear bounds (CROWN, Zhang et al., NeurIPS 2018) of expressions over boxes, in double precision.

Every bound is widened by what rounding can have changed, so that a positive one is a proof. Intervals come first: the
neurons that they show to be stable in a box need no better bounds there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.numpy_prover.expression_intervals import INPUT, BoxBatch, interval
from toolkit.numpy_prover.expressions import ROUNDING, AffineExpression, Array
from toolkit.numpy_prover.neuron_layers import NeuronLayer
from toolkit.numpy_prover.neuron_operators import NumpyLines


class NotFinite(Exception):  # noqa: N818 - not an error: nothing is proved then
    """A bound overflowed, or is not a number."""


@dataclass(frozen=True)
class ExpressionRows:
    """Functions ``coefficients[source] @ value of the source + constant``, each to be bounded in one box."""

    coefficients: Mapping[int, Array]
    """By source, ``(R, size)``."""
    constant: Array
    """``(R,)``."""
    magnitude: Array
    """Total magnitude of the terms of each constant, ``(R,)``."""
    box: NDArray[np.int64]
    """The box of each, ``(R,)``."""


def every_row(x: AffineExpression, boxes: int) -> ExpressionRows:
    """All rows of an expression, in each of some boxes."""
    parts = {source: np.tile(part, (boxes, 1)) for source, part in x.coefficients.items()}
    number = np.repeat(np.arange(boxes), len(x.constant))
    return ExpressionRows(parts, np.tile(x.constant, boxes), np.tile(x.magnitude, boxes), number)


def both_sides(x: AffineExpression, rows: NDArray[np.int64], box: NDArray[np.int64]) -> ExpressionRows:
    """Some rows of an expression, each in its box, and after them the same rows negated."""
    parts = {source: np.concatenate([part[rows], -part[rows]]) for source, part in x.coefficients.items()}
    constant, magnitude = x.constant[rows], x.magnitude[rows]
    return ExpressionRows(
        parts, np.concatenate([constant, -constant]), np.concatenate([magnitude] * 2), np.concatenate([box] * 2)
    )


@dataclass(frozen=True)
class RowLinearBounds:
    """Linear lower bounds of rows over the input: ``coefficients . x + offset``, ``(R, n)`` and ``(R,)``."""

    coefficients: Array
    offset: Array
    magnitude: Array
    """Total magnitude of the terms of each offset, ``(R,)``."""

    def minimum(self, lower: Array, upper: Array) -> Array:
        """Lower bounds ``(R,)`` over the box of each row, ``(R, n)``, less an allowance for rounding."""
        centre, radius = (lower + upper) / 2, (upper - lower) / 2
        radius = radius + ROUNDING * np.maximum(np.abs(lower), np.abs(upper))
        spread = _dot(np.abs(self.coefficients), radius) + ROUNDING * self.magnitude
        return _dot(self.coefficients, centre) - spread + self.offset


def layer_lines(layers: Sequence[NeuronLayer], box: BoxBatch) -> list[NumpyLines]:
    """The lines of every layer over boxes, from bounds of its neurons. Raises NotFinite."""
    sources, lines = [box], list[NumpyLines]()
    for layer in layers:
        found = interval(layer.rows, sources)
        if any(source != INPUT for source in layer.rows.coefficients):
            found = _tightened(found, layer, layers, lines, box)
        if not np.isfinite(found.lower + found.upper).all():
            raise NotFinite
        sources.append(BoxBatch(*layer.operator.image(found.lower, found.upper)))
        lines.append(layer.operator.lines(found.lower, found.upper))
    return lines


def _tightened(
    found: BoxBatch, layer: NeuronLayer, layers: Sequence[NeuronLayer], lines: Sequence[NumpyLines], box: BoxBatch
) -> BoxBatch:
    """Bounds of which the loose ones are intersected with backward ones."""
    number, neuron = np.nonzero(layer.operator.loose(found.lower, found.upper))
    rows = both_sides(layer.rows, neuron, number)
    low, high = np.split(lower_bounds(rows, layers, lines, box).minimum(box.lower[rows.box], box.upper[rows.box]), 2)
    lower, upper = found.lower.copy(), found.upper.copy()
    lower[number, neuron] = np.maximum(lower[number, neuron], low)
    upper[number, neuron] = np.minimum(upper[number, neuron], -high)
    return BoxBatch(lower, upper)


def lower_bounds(
    rows: ExpressionRows, layers: Sequence[NeuronLayer], lines: Sequence[NumpyLines], box: BoxBatch
) -> RowLinearBounds:
    """Linear lower bounds of rows, pushed back to the input layer by layer."""
    pending, offset, magnitude = dict(rows.coefficients), rows.constant, rows.magnitude
    for source in range(len(lines), INPUT, -1):
        if source not in pending:
            continue
        layer, line, coefficients = layers[source - 1].rows, lines[source - 1], pending.pop(source)
        alone = len(box.lower) == 1
        pushed = _pushed_in_one(coefficients, layer, line) if alone else _pushed(coefficients, layer, line, rows.box)
        offset, magnitude = offset + pushed.constant, magnitude + pushed.magnitude
        for earlier, part in pushed.coefficients.items():
            pending[earlier] = pending[earlier] + part if earlier in pending else part
    nothing = np.zeros((len(offset), box.lower.shape[1]))
    return RowLinearBounds(pending.get(INPUT, nothing), offset, magnitude)


# Coefficients c of a layer's values come to ``c * lower_slope + min(c, 0) * (upper_slope - lower_slope)`` of its
# arguments, and to an offset of the same form.


def _pushed(coefficients: Array, layer: AffineExpression, line: NumpyLines, box: NDArray[np.int64]) -> AffineExpression:
    """Lower bounds of rows over a layer's values, by rows over its sources; each row in its box."""
    negative = np.minimum(coefficients, 0)
    gap = line.upper_offset - line.lower_offset
    constant, magnitude = _dot(negative, gap[box]), -_dot(negative, (np.abs(gap) + np.abs(line.lower_offset))[box])
    if line.lower_offset.any():
        constant = constant + _dot(coefficients, line.lower_offset[box])
        magnitude = magnitude + _dot(np.abs(coefficients), np.abs(line.lower_offset)[box])
    negative *= (line.upper_slope - line.lower_slope)[box]
    through = coefficients * line.lower_slope[box]
    through += negative
    parts = {source: through @ matrix for source, matrix in layer.coefficients.items()}
    constant = constant + through @ layer.constant
    return AffineExpression(parts, constant, magnitude + np.abs(through) @ layer.magnitude)


def _pushed_in_one(coefficients: Array, layer: AffineExpression, line: NumpyLines) -> AffineExpression:
    """Lower bounds of rows over a layer's values, by rows over its sources, where there is one box.

    Elements that its lines make zero are left out, and bends that are none.
    """
    slope, offset = line.lower_slope[0], line.lower_offset[0]
    bend, gap = line.upper_slope[0] - slope, line.upper_offset[0] - offset
    used, bent = np.flatnonzero((slope != 0) | (bend != 0) | (gap != 0)), np.flatnonzero((bend != 0) | (gap != 0))
    negative = np.minimum(coefficients[:, bent], 0)
    constant, magnitude = negative @ gap[bent], -negative @ (np.abs(gap) + np.abs(offset))[bent]
    if offset.any():
        constant, magnitude = constant + coefficients @ offset, magnitude + np.abs(coefficients) @ np.abs(offset)
    through = coefficients[:, used] * slope[used]
    through[:, np.searchsorted(used, bent)] += negative * bend[bent]
    parts = {source: through @ matrix[used] for source, matrix in layer.coefficients.items()}
    constant, magnitude = constant + through @ layer.constant[used], magnitude + np.abs(through) @ layer.magnitude[used]
    return AffineExpression(parts, constant, magnitude)


def _dot(rows: Array, vectors: Array) -> Array:
    """Products ``(R,)`` of the rows of two arrays ``(R, N)``."""
    return np.einsum("rn,rn->r", rows, vectors)
