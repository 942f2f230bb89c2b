"""Fused, merged and specialised programs compute what the original does, with fewer neurons."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from toolkit.attack.gradient_attack import forward
from toolkit.bounds.backward import backward, functional, layer_lines
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.problem.compile import Problem
from toolkit.problem.fuse_layers import fuse_layers
from toolkit.problem.merge_neurons import merge_neurons
from toolkit.problem.program import Program, build_program
from toolkit.problem.specialise_cases import specialised, substitute
from toolkit.problem.trace import trace

INPUTS = 4


def program_of(function: Callable[[Tensor], Tensor]) -> Program:
    return build_program(trace(function, [torch.linspace(0.2, 0.8, INPUTS)]))


def points(count: int = 50) -> Tensor:
    return torch.randn(count, INPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def same(first: Program, second: Program, at: Tensor) -> bool:
    return torch.allclose(forward(first, at), forward(second, at), rtol=1e-12, atol=1e-12)


def lattice(x: Tensor) -> Tensor:
    """The minimum of four linear functions, each minimum of two with four ReLUs in one layer."""
    torch.manual_seed(0)
    values = nn.Linear(INPUTS, 4)(x)
    rows = torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    weights = torch.tensor([-0.5, -0.5, 0.5, -0.5])
    while len(values) > 1:
        half = len(values) // 2
        compare, select = torch.kron(torch.eye(half), rows), torch.kron(torch.eye(half), weights.unsqueeze(0))
        values = select @ torch.relu(compare @ values)
    return values


def test_a_minimum_is_one_neuron() -> None:
    program = program_of(lattice)
    merged = merge_neurons(program)
    assert program.num_neurons == 12
    assert merged.num_neurons == 3
    assert same(program, merged, points())


def test_absolute_value_is_one_neuron_though_written_as_two_layers() -> None:
    torch.manual_seed(0)
    inner, outer = nn.Linear(INPUTS, 5), nn.Linear(5, 2)
    program = program_of(lambda x: outer(torch.relu(inner(x)) + torch.relu(-inner(x))))
    merged = merge_neurons(program)
    assert (len(program.layers), len(merged.layers)) == (2, 1)
    assert merged.num_neurons == 5
    assert same(program, merged, points())


def test_smooth_opposites_stay_two_neurons() -> None:
    torch.manual_seed(0)
    inner = nn.Linear(INPUTS, 1)
    weight = torch.cat([inner.weight, -inner.weight])
    bias = torch.cat([inner.bias, -inner.bias])
    program = program_of(lambda x: torch.sigmoid(weight @ x + bias))
    assert merge_neurons(program).num_neurons == 2


@pytest.mark.parametrize("operator", [torch.relu, torch.sigmoid, torch.tanh])
def test_equal_neurons_are_one(operator: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(3, INPUTS)[[0, 1, 0, 2, 1]], torch.randn(3)[[0, 1, 0, 2, 1]]
    last = torch.randn(2, 5)
    program = program_of(lambda x: last @ operator(weight @ x + bias))
    merged = merge_neurons(program)
    assert merged.num_neurons == 3
    assert same(program, merged, points())


def test_a_program_without_such_neurons_is_untouched() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(INPUTS, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    program = program_of(net)
    assert merge_neurons(program) is program


def test_layers_with_different_readers_are_not_fused() -> None:
    torch.manual_seed(0)
    first, second, third = nn.Linear(INPUTS, 3), nn.Linear(INPUTS, 3), nn.Linear(3, 3)
    program = program_of(lambda x: torch.relu(third(torch.relu(first(x)))) + torch.relu(second(x)))
    assert fuse_layers(program) is program


def masked(x: Tensor) -> Tensor:
    """A masked mean of a layer's activations: products and a quotient of inputs."""
    torch.manual_seed(0)
    hidden = torch.relu(nn.Linear(2, 6)(x[:2]))
    mask = x[2:].repeat_interleave(3)
    return (hidden * mask).reshape(2, 3).sum(0) / x[2:].sum()


def test_a_product_with_a_constant_is_affine() -> None:
    program = program_of(masked)
    fixed = points()
    fixed[:, 2:] = torch.tensor([1.0, 2.0], dtype=torch.float64)
    merged = merge_neurons(substitute(program, torch.tensor([2, 3]), fixed[0, 2:]))
    assert {layer.op for layer in merged.layers} == {"relu"}
    assert same(program, merged, fixed)


@pytest.mark.parametrize("fixed", [[0, 0], [0, 1]])
def test_what_may_be_undefined_is_never_merged_into_a_proof(fixed: list[int]) -> None:
    """With a mask of zeros the quotient is 0 / 0, though its product with the reciprocal cancels."""
    columns, values = torch.tensor([2, 3]), torch.tensor(fixed, dtype=torch.float64)
    program = merge_neurons(substitute(program_of(masked), columns, values))
    box = Bounds(-torch.ones(1, INPUTS, dtype=torch.float64), torch.ones(1, INPUTS, dtype=torch.float64))
    bounds, _ = interval_bounds(program, box)
    rows = torch.ones(1, 1, program.features.size, dtype=torch.float64)
    lower = backward(program, functional(program.features, rows), layer_lines(program, bounds), None).minimum(box)
    assert bool(torch.isfinite(lower).all()) == any(fixed)


def masked_problem(masks: list[list[float]]) -> Problem:
    lower = torch.tensor([[-1.0, -1.0, *mask] for mask in masks], dtype=torch.float64)
    upper = torch.tensor([[1.0, 1.0, *mask] for mask in masks], dtype=torch.float64)
    region = torch.arange(len(masks)).repeat(2)
    rows = torch.zeros(len(region), 1, dtype=torch.int64)
    weights, offsets = torch.ones(1, 3, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return Problem(lower, upper, region, rows, weights, offsets, program_of(masked))


def test_regions_are_grouped_by_their_masks() -> None:
    problem = masked_problem([[1, 0], [1, 1], [1, 0], [0, 1]])
    parts = list(specialised(problem))
    assert sorted(tuple(part.regions.tolist()) for part in parts) == [(0, 2), (1,), (3,)]
    assert sum(part.problem.num_cases for part in parts) == problem.num_cases
    for part in parts:
        assert torch.equal(part.problem.lower, problem.lower[part.regions])
        middle = (part.problem.lower + part.problem.upper) / 2
        assert same(problem.program, part.problem.program, middle)


def test_a_problem_whose_factors_vary_stays_whole() -> None:
    problem = masked_problem([[1, 1], [1, 2]])
    problem.upper[0, 2:] += 1
    (part,) = specialised(problem)
    assert torch.equal(part.problem.lower, problem.lower)
    assert part.problem.num_cases == problem.num_cases


def test_many_values_stay_whole() -> None:
    problem = masked_problem([[1.0, 1.0 + number] for number in range(65)])
    (part,) = specialised(problem)
    assert part.problem.num_cases == problem.num_cases
    assert torch.equal(part.regions, torch.arange(65))
