"""Neurons that are constant or linear on all boxes are no sources, and values stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.numpy_prover.expression_bounds import every_row, layer_lines, lower_bounds
from toolkit.numpy_prover.expression_intervals import INPUT, BoxBatch
from toolkit.numpy_prover.expressions import (
    ROUNDING,
    AffineExpression,
    NotRead,
    affine,
    evaluated,
    times_matrix,
    total,
    variable,
)
from toolkit.numpy_prover.neuron_layers import NeuronLayers, values
from toolkit.numpy_prover.neuron_operators import OPERATORS

INPUTS = 3


def dense(generator: np.random.Generator, x: AffineExpression, outputs: int) -> AffineExpression:
    matrix = generator.normal(size=(x.shape[-1], outputs)) * (generator.random((x.shape[-1], outputs)) < 0.6)
    return total(times_matrix(x, matrix), affine({}, generator.normal(size=outputs)))


def network(seed: int, box: BoxBatch) -> tuple[AffineExpression, NeuronLayers]:
    """A network of random operators for inputs in a box; some elements depend on no input."""
    generator, layers = np.random.default_rng(seed), NeuronLayers([box])
    reach = box.reach[0]
    x = AffineExpression(variable(INPUT, (INPUTS,)).coefficients, np.zeros(INPUTS), reach)
    for name in generator.choice(list(OPERATORS), 3):
        x = layers.apply(str(name), dense(generator, x, 7))
    return dense(generator, x, 2), layers


def reference(seed: int, points: np.ndarray) -> np.ndarray:
    """Values at points of the network that is drawn with this seed."""
    generator, x = np.random.default_rng(seed), points
    for name in generator.choice(list(OPERATORS), 3):
        matrix = generator.normal(size=(x.shape[-1], 7)) * (generator.random((x.shape[-1], 7)) < 0.6)
        x = OPERATORS[str(name)].function(x @ matrix + generator.normal(size=7))
    matrix = generator.normal(size=(7, 2)) * (generator.random((7, 2)) < 0.6)
    return x @ matrix + generator.normal(size=2)


def box_of(seed: int, radius: float) -> BoxBatch:
    centre = np.random.default_rng(1000 + seed).normal(size=(1, INPUTS))
    return BoxBatch(centre - radius, centre + radius)


@pytest.mark.parametrize("radius", [0.0, 1e-6, 0.05, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_values_are_those_of_the_network(seed: int, radius: float) -> None:
    box = box_of(seed, radius)
    x, layers = network(seed, box)
    points = np.random.default_rng(seed).uniform(box.lower, box.upper, (50, INPUTS))
    found, expected = evaluated(x, values(layers.found, points)), reference(seed, points)
    assert (np.abs(found - expected) <= ROUNDING * (1 + x.magnitude)).all()


@pytest.mark.parametrize("radius", [1e-6, 0.05, 1.0])
@pytest.mark.parametrize("seed", range(8))
def test_bounds_hold_in_parts_of_the_box(seed: int, radius: float) -> None:
    """Sources are chosen for the whole box, and bounds are asked for parts of it."""
    box = box_of(seed, radius)
    x, layers = network(seed, box)
    middle = (box.lower + box.upper) / 2
    parts = BoxBatch(np.concatenate([box.lower, middle]), np.concatenate([middle, box.upper]))
    rows = every_row(x, 2)
    linear = lower_bounds(rows, layers.found, layer_lines(layers.found, parts), parts)
    lower = linear.minimum(parts.lower[rows.box], parts.upper[rows.box]).reshape(2, 2)
    for part in range(2):
        points = np.random.default_rng(seed).uniform(parts.lower[part], parts.upper[part], (200, INPUTS))
        assert (lower[part] <= reference(seed, points) + 1e-13).all()


def test_stable_neurons_are_no_sources() -> None:
    layers = NeuronLayers([BoxBatch(np.array([[-1.0]]), np.array([[1.0]]))])
    arguments = affine({INPUT: np.array([[1.0], [1.0], [1.0], [1.0], [0.0]])}, np.array([0.0, 2.0, -2.0, 3.0, 5.0]))
    y = layers.apply("Relu", arguments)
    assert [layer.rows.shape for layer in layers.found] == [(1,)]
    assert (
        evaluated(y, values(layers.found, np.array([[-0.5], [0.5]]))) == [[0, 1.5, 0, 2.5, 5], [0.5, 2.5, 0, 3.5, 5]]
    ).all()


def test_a_wide_input_is_not_carried_on() -> None:
    """Where fewer neurons vary than inputs do, the neurons are the source."""
    layers = NeuronLayers([BoxBatch(np.full((1, 50), -1.0), np.full((1, 50), 1.0))])
    y = layers.apply("Relu", affine({INPUT: np.full((3, 50), 0.01)}, np.array([0.0, 2.0, -2.0])))
    assert [layer.rows.shape for layer in layers.found] == [(2,)]
    assert list(y.coefficients) == [1]


def test_rounding_of_constants_is_passed_on() -> None:
    """A constant neuron's argument, what is left of a large sum, may be wrong by more than its last places."""
    layers = NeuronLayers([BoxBatch(np.zeros((1, 1)), np.ones((1, 1)))])
    for name in OPERATORS:
        y = layers.apply(name, AffineExpression({}, np.array([0.25]), np.array([1e6])))
        assert not y.coefficients
        assert y.magnitude >= 1e6


@pytest.mark.parametrize("weight", [np.inf, np.nan, 1e308])
def test_what_overflows_is_not_read(weight: float) -> None:
    layers = NeuronLayers([BoxBatch(np.full((1, 2), -2.0), np.full((1, 2), 2.0))])
    with pytest.raises(NotRead), np.errstate(all="ignore"):
        layers.apply("Sigmoid", affine({INPUT: np.array([[weight, weight]])}, np.zeros(1)))
