"""Bounds of expressions hold at every point of their boxes, rounding included."""

from itertools import pairwise

import numpy as np
import pytest

from toolkit.numpy_prover.expression_bounds import NotFinite, RowLinearBounds, every_row, layer_lines, lower_bounds
from toolkit.numpy_prover.expression_intervals import BoxBatch
from toolkit.numpy_prover.expressions import AffineExpression, affine, evaluated
from toolkit.numpy_prover.neuron_layers import NeuronLayer, values
from toolkit.numpy_prover.neuron_operators import OPERATORS


def random_layers(generator: np.random.Generator, widths: list[int], scale: float = 1.0) -> list[NeuronLayer]:
    """Dense layers of random operators; each second one also reads the source before the last."""
    layers = []
    for number, (before, size) in enumerate(pairwise(widths)):
        parts = {number: scale * generator.normal(size=(size, before))}
        if number % 2:
            parts[number - 1] = scale * generator.normal(size=(size, widths[number - 1]))
        operator = OPERATORS[str(generator.choice(list(OPERATORS)))]
        layers.append(NeuronLayer(operator, affine(parts, scale * generator.normal(size=size))))
    return layers


def bounded(rows: AffineExpression, layers: list[NeuronLayer], box: BoxBatch) -> tuple[RowLinearBounds, np.ndarray]:
    """Linear bounds of all rows in all boxes, box by box, and their minima ``(B, R)``."""
    every = every_row(rows, len(box.lower))
    linear = lower_bounds(every, layers, layer_lines(layers, box), box)
    return linear, linear.minimum(box.lower[every.box], box.upper[every.box]).reshape(len(box.lower), -1)


@pytest.mark.parametrize("seed", range(20))
def test_bounds_hold_at_points(seed: int) -> None:
    generator = np.random.default_rng(seed)
    *layers, last = random_layers(generator, [4, 7, 6, 5, 3], scale=float(generator.choice([0.3, 1.0, 30.0])))
    centre, radius = generator.normal(size=(6, 4)), generator.choice([0.0, 0.01, 0.3], size=(6, 1))
    box = BoxBatch(centre - radius, centre + radius)
    lines = layer_lines(layers, box)
    linear, bound = bounded(last.rows, layers, box)
    for row in range(6):
        points = generator.uniform(box.lower[row], box.upper[row], (200, 4))
        points[:100] = np.where(generator.random((100, 4)) < 0.5, box.lower[row], box.upper[row])
        sources = values(layers, points)
        reached = evaluated(last.rows, sources)
        tolerance = 1e-12 * np.abs(reached).max()
        assert (bound[row] <= reached + tolerance).all()
        mine = slice(3 * row, 3 * row + 3)
        assert (points @ linear.coefficients[mine].T + linear.offset[mine] <= reached + 1e3 * tolerance).all()
        for line, layer, value in zip(lines, layers, sources[1:], strict=True):
            z = evaluated(layer.rows, sources)
            assert (line.lower_slope[row] * z + line.lower_offset[row] <= value + tolerance).all()
            assert (line.upper_slope[row] * z + line.upper_offset[row] >= value - tolerance).all()


def test_a_point_has_the_value_as_its_bound() -> None:
    *layers, last = random_layers(np.random.default_rng(0), [3, 5, 5, 2])
    point = np.array([[0.3, -0.2, 0.9]])
    _, bound = bounded(last.rows, layers, BoxBatch(point, point))
    reached = evaluated(last.rows, values(layers, point))
    assert (bound < reached).all()
    assert np.allclose(bound, reached, rtol=1e-9)


@pytest.mark.parametrize("weight", [np.inf, np.nan, 1e200])
def test_what_is_not_finite_has_no_lines(weight: float) -> None:
    first = affine({0: np.array([[weight, 1.0]])}, np.zeros(1))
    layers = [
        NeuronLayer(OPERATORS["Relu"], first),
        NeuronLayer(OPERATORS["Relu"], affine({1: np.array([[1e200]])}, np.zeros(1))),
    ]
    with pytest.raises(NotFinite), np.errstate(all="ignore"):
        layer_lines(layers, BoxBatch(np.full((1, 2), -1.0), np.full((1, 2), 1.0)))
