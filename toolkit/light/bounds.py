"""Backward linear bounds (CROWN, Zhang et al., NeurIPS 2018) of expressions over boxes, in double precision.

Every bound is widened by what rounding can have changed, so that a positive one is a proof.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.light.expressions import Array, Expression
from toolkit.light.reading import INPUT

ROUNDING = 64 * np.finfo(np.float64).eps
"""Relative allowance for the rounding of a sum."""


@dataclass(frozen=True)
class Box:
    """Boxes of an input vector, ``(B, n)`` each."""

    lower: Array
    upper: Array


@dataclass(frozen=True)
class Lines:
    """The triangle of ReLU for bounds of its argument: ``lower * z <= relu(z) <= upper * z + offset``, ``(B, N)``."""

    lower: Array
    upper: Array
    offset: Array


@dataclass(frozen=True)
class Linear:
    """Linear lower bounds over the input: ``coefficients . x + offset``, ``(B, R, n)`` and ``(B, R)``."""

    coefficients: Array
    offset: Array

    def minimum(self, box: Box) -> Array:
        """Lower bounds ``(B, R)``, less an allowance for rounding."""
        centre, radius = (box.lower + box.upper) / 2, (box.upper - box.lower) / 2
        radius = radius + ROUNDING * np.maximum(np.abs(box.lower), np.abs(box.upper))
        spread = _dot(np.abs(self.coefficients), radius) + ROUNDING * np.abs(self.offset)
        return _dot(self.coefficients, centre) - spread + self.offset


def relu_lines(lower: Array, upper: Array) -> Lines:
    """The lines for bounds l, u of every neuron, the lower one by area (0 or the identity)."""
    low, high = np.minimum(lower, 0.0), np.maximum(upper, 0.0)
    unstable = (lower < 0) & (upper > 0)
    slope = np.where(unstable, high / np.where(unstable, high - low, 1.0), (lower >= 0).astype(np.float64))
    below = np.where(unstable, (upper > -lower).astype(np.float64), slope)
    return Lines(below, slope, np.where(unstable, ROUNDING * (high - low) - slope * low, 0.0))


class NotFinite(Exception):  # noqa: N818 - not an error: nothing is proved then
    """A bound overflowed, or is not a number."""


def layer_lines(layers: Sequence[Expression], box: Box) -> list[Lines]:
    """The lines of every layer over boxes, from bounds of its neurons. Raises NotFinite."""
    lines: list[Lines] = []
    for layer in layers:
        rows = Expression(
            {s: np.concatenate([part, -part]) for s, part in layer.coefficients.items()},
            np.concatenate([layer.constant, -layer.constant]),
        )
        low, minus_high = np.split(lower_bounds(rows, layers, lines, box).minimum(box), 2, axis=1)
        if not np.isfinite(low + minus_high).all():
            raise NotFinite
        lines.append(relu_lines(low, -minus_high))
    return lines


def lower_bounds(rows: Expression, layers: Sequence[Expression], lines: Sequence[Lines], box: Box) -> Linear:
    """Linear lower bounds of the rows of an expression ``(R,)``, pushed back to the input layer by layer."""
    batch = len(box.lower)
    pending = {source: np.broadcast_to(part, (batch, *part.shape)) for source, part in rows.coefficients.items()}
    offset = np.broadcast_to(rows.constant, (batch, len(rows.constant)))
    for source in range(len(lines), INPUT, -1):
        if source not in pending:
            continue
        coefficients, layer, line = pending.pop(source), layers[source - 1], lines[source - 1]
        negative = np.minimum(coefficients, 0)
        offset = offset + _dot(negative, line.offset)
        through = coefficients - negative
        through *= line.lower[:, None]
        negative *= line.upper[:, None]
        through += negative
        offset = offset + through @ layer.constant
        for earlier, matrix in layer.coefficients.items():
            pushed = _times(through, matrix)
            pending[earlier] = pending[earlier] + pushed if earlier in pending else pushed
    nothing = np.zeros((batch, len(rows.constant), box.lower.shape[1]))
    return Linear(pending.get(INPUT, nothing), offset)


def _times(rows: Array, matrix: Array) -> Array:
    """Products ``(B, R, M)`` of ``(B, R, N)`` and ``(N, M)``, as one."""
    return (rows.reshape(-1, len(matrix)) @ matrix).reshape(*rows.shape[:2], matrix.shape[1])


def _dot(rows: Array, vector: Array) -> Array:
    """Row-wise products ``(B, R)`` of ``(B, R, N)`` and ``(B, N)``."""
    return (rows @ vector[..., None])[..., 0]
