"""Sums whose terms cancel: what was lost in them is no share of what they come to.

Parts of one sum go up in steps of t and down in twice as many steps of t / 2, so that the exact sum is zero, whatever t
is, and the partial sums of a rounding one do not come back to where they started.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from toolkit.bounds.backward import LinearBounds, backward, functional, layer_lines
from toolkit.bounds.backward_rounding import map_errors
from toolkit.bounds.clip_boxes import HalfSpaces, minimum_within, polytopes
from toolkit.bounds.crown import bound_features, crown_bounds, tighten
from toolkit.bounds.dual_ascent import evaluate, relax
from toolkit.bounds.forward import forward_bounds
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.bounds.optimised_bound import Domain, Multipliers
from toolkit.bounds.recentred_crown import CentreValues, centre_of, recentred_bounds
from toolkit.problem.affine import DenseAffine
from toolkit.problem.program import INPUT, Layer, Program
from toolkit.problem.sum_rounding import gamma

CPU = torch.device("cpu")
PART = 1 << 14
PRECISIONS = [torch.float32, torch.float64]


def by_rows(program: Program, box: Bounds) -> Bounds:
    return tighten(program, box, interval_bounds(program, box)[0], HalfSpaces.none(box)).bounds


TECHNIQUES: list[Callable[[Program, Bounds], Bounds]] = [
    lambda program, box: interval_bounds(program, box)[0],
    crown_bounds,
    by_rows,
    lambda program, box: forward_bounds(program, box, interval_bounds(program, box)[0]),
]


def steps(seed: int, dtype: torch.dtype, part: int = PART) -> tuple[Tensor, Tensor]:
    """Numbers and signs ``(3 part,)`` whose products have the sum zero."""
    step = 0.25 + torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    numbers = torch.cat([torch.ones(part), torch.full((2 * part,), 0.5)]).double() * step.to(dtype).double()
    return numbers, torch.cat([torch.ones(part), -torch.ones(2 * part)]).double()


def centre_values(program: Program, box: Bounds) -> CentreValues:
    found = centre_of(program, box)
    assert found is not None
    return found


def of_point(point: Tensor, dtype: torch.dtype) -> Bounds:
    return Bounds(point.to(dtype).unsqueeze(0), point.to(dtype).unsqueeze(0))


def sum_of_inputs(seed: int, dtype: torch.dtype) -> tuple[Program, Bounds]:
    """A neuron that adds up the inputs."""
    numbers, signs = steps(seed, dtype)
    none = torch.zeros(1, dtype=torch.float64)
    layer = Layer("sum", "relu", DenseAffine((INPUT,), (signs.unsqueeze(0),), none), 0)
    last = DenseAffine((0,), (torch.ones(1, 1, dtype=torch.float64),), none)
    program = Program(len(signs), (layer,), last, CPU, torch.float64)
    return program.to(CPU, dtype), of_point(numbers, dtype)


def sum_of_biases(seed: int, dtype: torch.dtype) -> tuple[Program, Bounds]:
    """A neuron that adds up active ones, which are nothing but their biases."""
    numbers, signs = steps(seed, dtype)
    none, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    first = DenseAffine((INPUT,), (torch.zeros(len(numbers), 1, dtype=torch.float64),), numbers)
    layers = (
        Layer("first", "relu", first, 0),
        Layer("sum", "relu", DenseAffine((0,), (signs.unsqueeze(0),), none), len(numbers)),
    )
    program = Program(1, layers, DenseAffine((1,), (one,), none), CPU, torch.float64)
    return program.to(CPU, dtype), of_point(none, dtype)


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("make", [sum_of_inputs, sum_of_biases])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_of_a_sum_that_is_zero_contain_zero(
    make: Callable[[int, torch.dtype], tuple[Program, Bounds]], seed: int, dtype: torch.dtype
) -> None:
    program, box = make(seed, dtype)
    for technique in TECHNIQUES:
        bounds = technique(program, box)
        assert float(bounds.lower[0, -1]) <= 0 <= float(bounds.upper[0, -1])
    neurons = crown_bounds(program, box)
    if dtype == torch.float32:
        exact, _ = make(seed, torch.float64)
        centre = centre_values(exact, box)
        assert float(centre.values[-1].abs()) <= float(centre.errors[-1])
        recentred = recentred_bounds(program, box, centre)
        assert float(recentred.lower[0, -1]) <= 0 <= float(recentred.upper[0, -1])
    for sign in (1.0, -1.0):
        _, lower = bound_features(program, torch.full((1, 1, 1), sign, dtype=dtype), box, neurons)
        assert float(lower) <= 0


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("seed", range(6))
def test_a_linear_function_that_is_zero_at_a_point_has_no_minimum_above(seed: int, dtype: torch.dtype) -> None:
    """Over a box alone, and over a box that half-spaces may cut."""
    numbers, signs = steps(seed, dtype)
    box, rows = of_point(numbers, dtype), torch.stack([signs, -signs]).to(dtype)
    zeros = rows.new_zeros(1, 2)
    over_box = LinearBounds(rows.unsqueeze(0), zeros, []).minimum(box)
    owner = torch.zeros(2, dtype=torch.int64)
    within = minimum_within(rows, zeros[0], polytopes(box, HalfSpaces.none(box)), owner)
    assert bool((over_box <= 0).all()) and bool((within <= 0).all())


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_atoms_that_are_zero_have_no_positive_bound_together(seed: int, dtype: torch.dtype) -> None:
    """Two opposite atoms, both zero at the only point, by weights for which their coefficients nearly cancel."""
    generator = torch.Generator().manual_seed(seed)
    point = torch.randint(1, 16, (2,), generator=generator).double()
    sizes = torch.randint(1, 1 << 20, (2,), generator=generator).double()
    zero = torch.stack([point[1], -point[0]])
    atoms = torch.stack([sizes[0] * zero, -sizes[1] * zero]).to(dtype).unsqueeze(0)
    features = DenseAffine((INPUT,), (torch.eye(2, dtype=torch.float64),), torch.zeros(2, dtype=torch.float64))
    program = Program(2, (), features, CPU, torch.float64).to(CPU, dtype)
    none = torch.zeros(1, 0, dtype=dtype)
    domain = Domain(of_point(point, dtype), Bounds(none, none), none.to(torch.int8), atoms, atoms.new_zeros(1, 2))
    weight = (sizes.flip(0) / sizes.sum()).to(dtype).unsqueeze(0)
    bound = evaluate(program, relax(program, domain), Multipliers(none, none, weight)).bound
    assert float(bound.lower) <= 0


@pytest.mark.parametrize("dtype", PRECISIONS, ids=str)
@pytest.mark.parametrize("op", ["relu", "tanh", "square"])
def test_the_sums_of_offsets_and_the_slopes_that_multipliers_take_off_are_counted(op: str, dtype: torch.dtype) -> None:
    """No example shows them alone, as other parts of the error are as large: they are compared with the factors."""
    generator = torch.Generator().manual_seed(1)
    width = 40
    first = DenseAffine((INPUT,), (torch.randn(width, 2, generator=generator).double(),), torch.zeros(width).double())
    last = DenseAffine((0,), (torch.randn(1, width, generator=generator).double(),), torch.zeros(1).double())
    program = Program(2, (Layer(op, op, first, 0),), last, CPU, torch.float64).to(CPU, dtype)
    box = Bounds(-torch.ones(1, 2, dtype=dtype), torch.ones(1, 2, dtype=dtype))
    bounds = crown_bounds(program, box)
    (lines,) = layer_lines(program, bounds)
    errors = map_errors(program, box, bounds)
    row = torch.ones(1, 1, 1, dtype=dtype)
    start = functional(program.features, row, None, errors.features)
    plain = backward(program, start, [lines], errors)
    coefficients = last.matrices[0].to(dtype)
    offsets = torch.where(coefficients > 0, lines.lower_offset, lines.upper_offset)
    slopes = torch.where(coefficients > 0, lines.lower_slope, lines.upper_slope)
    of_layer = float(((coefficients * slopes).abs() * errors.layers[0]).sum())
    of_offsets = gamma(width, dtype) * float((coefficients * offsets).abs().sum())
    assert plain.error is not None and start.error is not None
    assert float(plain.error) >= (float(start.error) + of_layer + of_offsets) * (1 - 1e-3)
    held = backward(program, start, [lines], errors, [coefficients * slopes])
    assert held.error is not None
    assert float(held.error) >= float(plain.error) * (1 - 1e-3)
