"""Values of expressions over layers at points, with the errors of an evaluation in floating point. No torch.

The two estimates are those of `toolkit.problem.evaluate_program`: bounds by absolute coefficients, and disturbed
copies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.numpy_prover.expressions import AffineExpression, Array, evaluated
from toolkit.numpy_prover.neuron_layers import NeuronLayer
from toolkit.tuning import tuned

ROUNDINGS_BESIDE_SUM = 64
"""Roundings of a value besides those of its sum: an expression's coefficients are what a few operators made."""


@dataclass(frozen=True)
class ExpressionValues:
    """Values ``(B, N)``, a bound on the distance of another evaluation, and disturbed copies ``(COPIES, B, N)``."""

    value: Array
    error: Array
    copies: Array

    @property
    def tolerance(self) -> Array:
        """How far the value of another evaluation may be away, ``(B, N)``: the smaller of both estimates."""
        spread = np.abs(self.copies - self.value).max((0, 1), initial=0.0)
        return np.fmin(self.error, tuned().agreement.spread_factor * spread)


def evaluate(
    x: AffineExpression, layers: Sequence[NeuronLayer], points: Array, error: Array, unit: float
) -> ExpressionValues:
    """An expression at points ``(B, n)`` of its input, given up to an error, where operations round to ``unit``."""
    generator, count_copies = np.random.default_rng(0), tuned().agreement.disturbed_copies

    def signs(shape: tuple[int, ...]) -> Array:
        return generator.integers(0, 2, shape).astype(np.float64) * 2 - 1

    def affine(rows: AffineExpression) -> ExpressionValues:
        count = sum(part.shape[-1] for part in rows.coefficients.values()) + ROUNDINGS_BESIDE_SUM
        factor = count * unit / (1 - count * unit) if count * unit < 1 else math.inf
        usual = min(factor, ROUNDINGS_BESIDE_SUM * math.ceil(math.sqrt(count)) * unit)
        size = _weighted(rows, [np.abs(source.value) for source in sources]) + rows.magnitude
        distance = factor * size + _weighted(rows, [source.error for source in sources])
        disturbed = [[source.copies[number] for source in sources] for number in range(count_copies)]
        copies = np.stack([evaluated(rows, values) for values in disturbed])
        value = evaluated(rows, [source.value for source in sources])
        return ExpressionValues(value, distance, copies + usual * size * signs(copies.shape))

    copies = np.broadcast_to(points, (count_copies, *points.shape))
    sources = [ExpressionValues(points, error, copies + error * signs(copies.shape))]
    with np.errstate(over="ignore", invalid="ignore"):
        for layer in layers:
            sources.append(_operated(layer, affine(layer.rows), unit, signs))
        return affine(x)


def _operated(layer: NeuronLayer, z: ExpressionValues, unit: float, signs) -> ExpressionValues:  # type: ignore[no-untyped-def]
    operator = layer.operator
    value, copies = operator.function(z.value), operator.function(z.copies)
    low, high = operator.image(z.value - z.error, z.value + z.error)
    rounded = 0.0 if operator.relaxation.piecewise_linear else ROUNDINGS_BESIDE_SUM * unit * (np.abs(value) + 1.0)
    return ExpressionValues(
        value, np.maximum(high - value, value - low) + rounded, copies + rounded * signs(copies.shape)
    )


def _weighted(rows: AffineExpression, sizes: Sequence[Array]) -> Array:
    """Sums of the sizes of sources by absolute coefficients, ``(B, *shape)``."""
    absolute = {source: np.abs(part) for source, part in rows.coefficients.items()}
    return evaluated(AffineExpression(absolute, np.zeros_like(rows.constant), rows.magnitude), sizes)
