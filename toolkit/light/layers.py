"""Layers of neurons: expressions to which an operator is applied, each a new source for those after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from toolkit.light.expressions import MOST_NUMBERS, Array, Expression, NotRead, evaluated, reshaped, variable
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
        """A new layer; its values are the next source. Raises NotRead where they are many."""
        if x.constant.size**2 > MOST_NUMBERS:
            raise NotRead("a wide layer")
        self.found.append(Layer(OPERATORS[name], reshaped(x, (x.constant.size,))))
        return variable(len(self.found), x.shape)


def values(layers: Sequence[Layer], points: Array) -> list[Array]:
    """Values of all sources, ``(P, size)`` each, at points ``(P, n)``."""
    sources = [points]
    for layer in layers:
        sources.append(layer.operator.function(evaluated(layer.rows, sources)))
    return sources
