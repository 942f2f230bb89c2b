"""Bounds of expressions hold at every point of their boxes, rounding included."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from toolkit.light.bounds import Box, Linear, NotFinite, Rows, layer_lines, lower_bounds, relu_lines
from toolkit.light.expressions import Expression


def random_layers(generator: np.random.Generator, widths: list[int], scale: float = 1.0) -> list[Expression]:
    """Dense layers; each second one also reads the source before the last."""
    layers = []
    for number, (before, size) in enumerate(pairwise(widths)):
        parts = {number: scale * generator.normal(size=(size, before))}
        if number % 2:
            parts[number - 1] = scale * generator.normal(size=(size, widths[number - 1]))
        layers.append(Expression(parts, scale * generator.normal(size=size)))
    return layers


def bounded(rows: Expression, layers: list[Expression], box: Box) -> tuple[Linear, np.ndarray]:
    """Linear bounds of all rows in all boxes, box by box, and their minima ``(B, R)``."""
    boxes, count = len(box.lower), len(rows.constant)
    parts = {source: np.tile(part, (boxes, 1)) for source, part in rows.coefficients.items()}
    number = np.repeat(np.arange(boxes), count)
    linear = lower_bounds(Rows(parts, np.tile(rows.constant, boxes), number), layers, layer_lines(layers, box), box)
    return linear, linear.minimum(box.lower[number], box.upper[number]).reshape(boxes, count)


def values(layers: list[Expression], points: np.ndarray) -> list[np.ndarray]:
    """Pre-activations ``(P, N)`` of every layer at points ``(P, n)``."""
    sources, found = [points], []
    for layer in layers:
        found.append(layer.constant + sum(sources[s] @ part.T for s, part in layer.coefficients.items()))
        sources.append(np.maximum(found[-1], 0))
    return found


@pytest.mark.parametrize("seed", range(10))
def test_bounds_hold_at_points(seed: int) -> None:
    generator = np.random.default_rng(seed)
    *layers, rows = random_layers(generator, [4, 7, 6, 5, 3], scale=float(generator.choice([0.3, 1.0, 30.0])))
    centre, radius = generator.normal(size=(6, 4)), generator.choice([0.0, 0.01, 0.3], size=(6, 1))
    box = Box(centre - radius, centre + radius)
    lines = layer_lines(layers, box)
    linear, bound = bounded(rows, layers, box)
    for row in range(6):
        points = generator.uniform(box.lower[row], box.upper[row], (200, 4))
        points[:100] = np.where(generator.random((100, 4)) < 0.5, box.lower[row], box.upper[row])
        *hidden, reached = values([*layers, rows], points)
        tolerance = 1e-12 * np.abs(reached).max()
        assert (bound[row] <= reached + tolerance).all()
        mine = slice(3 * row, 3 * row + 3)
        assert (points @ linear.coefficients[mine].T + linear.offset[mine] <= reached + 1e3 * tolerance).all()
        for line, z in zip(lines, hidden, strict=True):
            assert (line.lower[row] * z <= np.maximum(z, 0) + tolerance).all()
            assert (line.upper[row] * z + line.offset[row] >= np.maximum(z, 0) - tolerance).all()


def test_a_point_has_the_value_as_its_bound() -> None:
    *layers, rows = random_layers(np.random.default_rng(0), [3, 5, 5, 2])
    point = np.array([[0.3, -0.2, 0.9]])
    box = Box(point, point)
    _, bound = bounded(rows, layers, box)
    reached = values([*layers, rows], point)[-1]
    assert (bound < reached).all()
    assert np.allclose(bound, reached, rtol=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_the_upper_line_is_above_in_exact_arithmetic(seed: int) -> None:
    """At both ends of intervals of very different sides, where a rounded slope is nearly too small."""
    generator = np.random.default_rng(seed)
    lower, upper = -(10.0 ** generator.uniform(-9, 9, (1, 50))), 10.0 ** generator.uniform(-9, 9, (1, 50))
    lines = relu_lines(lower, upper)
    for low, high, slope, offset in zip(lower[0], upper[0], lines.upper[0], lines.offset[0], strict=True):
        assert Fraction(slope) * Fraction(low) + Fraction(offset) >= 0
        assert Fraction(slope) * Fraction(high) + Fraction(offset) >= Fraction(high)


@pytest.mark.parametrize("weight", [np.inf, np.nan, 1e200])
def test_what_is_not_finite_has_no_lines(weight: float) -> None:
    layers = [
        Expression({0: np.array([[weight, 1.0]])}, np.zeros(1)),
        Expression({1: np.array([[1e200]])}, np.zeros(1)),
    ]
    with pytest.raises(NotFinite), np.errstate(all="ignore"):
        layer_lines(layers, Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0)))
