"""Backward linear bounds (CROWN, Zhang et al., NeurIPS 2018) of expressions over boxes, in double precision.

Every bound is widened by what rounding can have changed, so that a positive one is a proof. Intervals come first: the
neurons that they show to be stable in a box need no better bounds there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.light.expressions import Array, Expression
from toolkit.light.reading import INPUT

ROUNDING = 64 * np.finfo(np.float64).eps
"""Relative allowance for the rounding of a sum."""


class NotFinite(Exception):  # noqa: N818 - not an error: nothing is proved then
    """A bound overflowed, or is not a number."""


@dataclass(frozen=True)
class Box:
    """Bounds of a vector in each of several boxes, ``(B, n)`` each."""

    lower: Array
    upper: Array


@dataclass(frozen=True)
class Lines:
    """The triangle of ReLU for bounds of its argument: ``lower * z <= relu(z) <= upper * z + offset``, ``(B, N)``."""

    lower: Array
    upper: Array
    offset: Array


@dataclass(frozen=True)
class Rows:
    """Functions ``coefficients[source] @ value of the source + constant``, each to be bounded in one box."""

    coefficients: Mapping[int, Array]
    """By source, ``(R, size)``."""
    constant: Array
    """``(R,)``."""
    box: NDArray[np.int64]
    """The box of each, ``(R,)``."""


@dataclass(frozen=True)
class Linear:
    """Linear lower bounds of rows over the input: ``coefficients . x + offset``, ``(R, n)`` and ``(R,)``."""

    coefficients: Array
    offset: Array

    def minimum(self, lower: Array, upper: Array) -> Array:
        """Lower bounds ``(R,)`` over the box of each row, ``(R, n)``, less an allowance for rounding."""
        centre, radius = (lower + upper) / 2, (upper - lower) / 2
        radius = radius + ROUNDING * np.maximum(np.abs(lower), np.abs(upper))
        spread = _dot(np.abs(self.coefficients), radius) + ROUNDING * np.abs(self.offset)
        return _dot(self.coefficients, centre) - spread + self.offset


def relu_lines(lower: Array, upper: Array) -> Lines:
    """The lines for bounds l, u of every neuron, the lower one by area (0 or the identity)."""
    low, high = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
    unstable = (lower < 0) & (upper > 0)
    slope = np.where(unstable, high / np.where(unstable, high - low, 1.0), (lower >= 0).astype(np.float64))
    below = np.where(unstable, (upper > -lower).astype(np.float64), slope)
    return Lines(below, slope, np.where(unstable, ROUNDING * (high - low) - slope * low, 0.0))


def layer_lines(layers: Sequence[Expression], box: Box) -> list[Lines]:
    """The lines of every layer over boxes, from bounds of its neurons. Raises NotFinite."""
    bounds: list[Box] = []
    lines: list[Lines] = []
    for layer in layers:
        found = _interval(layer, box, bounds)
        if any(source != INPUT for source in layer.coefficients):
            found = _tightened(found, layer, layers, lines, box)
        if not np.isfinite(found.lower + found.upper).all():
            raise NotFinite
        bounds.append(found)
        lines.append(relu_lines(found.lower, found.upper))
    return lines


def _interval(layer: Expression, box: Box, bounds: Sequence[Box]) -> Box:
    """Interval image of a layer, given bounds of those before it."""
    centre = spread = np.zeros((len(box.lower), 1))
    for source, matrix in layer.coefficients.items():
        known = bounds[source - 1] if source != INPUT else None
        low = box.lower if known is None else np.maximum(known.lower, 0)
        high = box.upper if known is None else np.maximum(known.upper, 0)
        radius = (high - low) / 2 + ROUNDING * np.maximum(np.abs(low), np.abs(high))
        centre = centre + (low + high) / 2 @ matrix.T
        spread = spread + radius @ np.abs(matrix).T
    spread = spread + ROUNDING * np.abs(layer.constant)
    return Box(centre + layer.constant - spread, centre + layer.constant + spread)


def _tightened(found: Box, layer: Expression, layers: Sequence[Expression], lines: Sequence[Lines], box: Box) -> Box:
    """Bounds with those of unstable neurons intersected with backward ones."""
    number, neuron = np.nonzero((found.lower < 0) & (found.upper > 0))
    parts = {source: np.concatenate([part[neuron], -part[neuron]]) for source, part in layer.coefficients.items()}
    constant = np.concatenate([layer.constant[neuron], -layer.constant[neuron]])
    rows = Rows(parts, constant, np.concatenate([number, number]))
    low, high = np.split(lower_bounds(rows, layers, lines, box).minimum(box.lower[rows.box], box.upper[rows.box]), 2)
    lower, upper = found.lower.copy(), found.upper.copy()
    lower[number, neuron] = np.maximum(lower[number, neuron], low)
    upper[number, neuron] = np.minimum(upper[number, neuron], -high)
    return Box(lower, upper)


def lower_bounds(rows: Rows, layers: Sequence[Expression], lines: Sequence[Lines], box: Box) -> Linear:
    """Linear lower bounds of rows, pushed back to the input layer by layer."""
    pending, offset = dict(rows.coefficients), rows.constant
    for source in range(len(lines), INPUT, -1):
        if source not in pending:
            continue
        coefficients, layer, line = pending.pop(source), layers[source - 1], lines[source - 1]
        negative = np.minimum(coefficients, 0)
        offset = offset + _dot(negative, line.offset[rows.box])
        through = coefficients - negative
        through *= line.lower[rows.box]
        negative *= line.upper[rows.box]
        through += negative
        offset = offset + through @ layer.constant
        for earlier, matrix in layer.coefficients.items():
            pushed = through @ matrix
            pending[earlier] = pending[earlier] + pushed if earlier in pending else pushed
    return Linear(pending.get(INPUT, np.zeros((len(offset), box.lower.shape[1]))), offset)


def _dot(rows: Array, vectors: Array) -> Array:
    """Products ``(R,)`` of the rows of two arrays ``(R, N)``."""
    return np.einsum("rn,rn->r", rows, vectors)
