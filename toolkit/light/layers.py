"""Layers of neurons: expressions to which an operator is applied, each a new source for those after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from toolkit.light.expressions import MOST_NUMBERS, Array, Expression, NotRead, evaluated, moved, placed, reshaped
from toolkit.light.relaxations import OPERATORS, Operator

INPUT = 0
"""Number of the input vector among the sources; the layers follow."""


@dataclass(frozen=True)
class Layer:
    """Neurons, flat: an operator and its arguments as rows over the sources before."""

    operator: Operator
    rows: Expression


@dataclass
class Layers:
    """The layers that have been met."""

    found: list[Layer] = field(default_factory=list)

    def apply(self, name: str, x: Expression) -> Expression:
        """A new layer; its values are the next source, but for those that no source changes. Raises NotRead."""
        operator, flat = OPERATORS[name], reshaped(x, (x.constant.size,))
        changing = np.flatnonzero(changes(flat))
        if len(changing) * x.constant.size > MOST_NUMBERS:
            raise NotRead("a wide layer")
        value = _unchanged(operator, flat, changing)
        if len(changing):
            self.found.append(Layer(operator, moved(flat, lambda array: array[changing])))
            value = Expression({len(self.found): placed(changing, x.constant.size)}, value.constant, value.magnitude)
        return reshaped(value, x.shape)


def changes(flat: Expression) -> NDArray[np.bool_]:
    """Which elements of a vector some source changes, ``(N,)``."""
    parts = [part.any(1) for part in flat.coefficients.values()]
    return np.logical_or.reduce([np.zeros(flat.shape, np.bool_), *parts])


def _unchanged(operator: Operator, flat: Expression, changing: NDArray[np.int64]) -> Expression:
    """Values where no source changes them, 0 elsewhere; what rounding may have changed there an operator passes on."""
    constant = operator.function(flat.constant)
    magnitude = np.abs(constant) + flat.magnitude
    constant[changing] = magnitude[changing] = 0.0
    return Expression({}, constant, magnitude)


def values(layers: Sequence[Layer], points: Array) -> list[Array]:
    """Values of all sources, ``(P, size)`` each, at points ``(P, n)``."""
    sources = [points]
    for layer in layers:
        sources.append(layer.operator.function(evaluated(layer.rows, sources)))
    return sources
