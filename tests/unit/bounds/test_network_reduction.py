"""Reduction on a box: equal on the box, smaller, and no looser in its bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from programs import ResidualNetwork, boxes, mlp, points_in, program_of

from toolkit.attack.gradient_attack import forward
from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.interval import Bounds
from toolkit.bounds.network_reduction import reduce_program
from toolkit.problem.program import Program


def _cases() -> dict[str, Program]:
    torch.manual_seed(0)
    return {
        "mlp": program_of(mlp(5, 20, 20, 20, 3), 5),
        "residual": program_of(ResidualNetwork(), 1, 6, 6),
        "smooth": program_of(torch.nn.Sequential(mlp(4, 10, 6), torch.nn.Sigmoid(), torch.nn.Linear(6, 2)), 4),
    }


@pytest.mark.parametrize("name", ["mlp", "residual", "smooth"])
@pytest.mark.parametrize("radius", [0.01, 0.1, 1.0])
def test_equal_on_the_box(name: str, radius: float) -> None:
    program = _cases()[name]
    box = boxes(program, radius)
    reduction = reduce_program(program, box, crown_bounds(program, box))
    points = points_in(box, 64)
    expected, found = forward(program, points), forward(reduction.program, points[:, reduction.inputs])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_small_constants_beside_large_terms_are_kept() -> None:
    """What rounding may change in a box is far more than the constant, and nothing at all where the term is zero."""
    first, second, last = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for layer, weight, bias in ((first, 1.0, 0.0), (second, 1e35, 1.0), (last, 1.0, 0.0)):
        torch.nn.init.constant_(layer.weight, weight)
        torch.nn.init.constant_(layer.bias, bias)
    program = program_of(torch.nn.Sequential(first, torch.nn.ReLU(), second, torch.nn.Tanh(), last), 1)
    box = Bounds(torch.tensor([[-1.0]]).double(), torch.tensor([[1.0]]).double())
    reduction = reduce_program(program, box, crown_bounds(program, box))
    points = torch.tensor([[-0.5]]).double()
    torch.testing.assert_close(forward(reduction.program, points), forward(program, points))


def test_only_unstable_neurons_are_left() -> None:
    program = _cases()["mlp"]
    box = boxes(program, 0.05)
    bounds = crown_bounds(program, box)
    reduction = reduce_program(program, box, bounds)
    unstable = ((bounds.lower < 0) & (bounds.upper > 0))[0].nonzero().squeeze(1)
    assert torch.equal(reduction.neurons, unstable)
    assert reduction.program.num_neurons == len(unstable) < program.num_neurons
    assert reduction.program.cost < program.cost


def test_bounds_of_the_reduced_network_are_no_looser() -> None:
    program = _cases()["residual"]
    box = boxes(program, 0.05)
    bounds = crown_bounds(program, box)
    reduction = reduce_program(program, box, bounds)
    kept = bounds.of(reduction.neurons)
    again = crown_bounds(reduction.program, reduction.restrict_box(box), kept)
    assert bool((again.lower >= kept.lower - 1e-9).all())
    assert bool((again.upper <= kept.upper + 1e-9).all())


def test_fixed_inputs_vanish_and_come_back() -> None:
    program = _cases()["mlp"]
    box = boxes(program, 0.2)
    lower, upper = box.lower.clone(), box.upper.clone()
    lower[0, 1] = upper[0, 1] = 0.3
    box = Bounds(lower, upper)
    reduction = reduce_program(program, box, crown_bounds(program, box))
    assert reduction.inputs.tolist() == [0, 2, 3, 4]
    point = points_in(box, 1)[0]
    torch.testing.assert_close(reduction.restore(point[reduction.inputs]), point)


def test_several_boxes_keep_what_any_of_them_needs() -> None:
    program = _cases()["mlp"]
    box = boxes(program, 0.05, count=3)
    reduction = reduce_program(program, box, crown_bounds(program, box))
    for index in range(3):
        one = Bounds(box.lower[index : index + 1], box.upper[index : index + 1])
        points = points_in(one, 32)
        found = forward(reduction.program, points[:, reduction.inputs])
        torch.testing.assert_close(found, forward(program, points), rtol=1e-9, atol=1e-9)


def test_a_network_without_unstable_neurons_becomes_affine() -> None:
    program = _cases()["mlp"]
    box = boxes(program, 0.0)
    reduction = reduce_program(program, box, crown_bounds(program, box))
    assert reduction.program.layers == ()
    assert reduction.program.num_inputs == 0
    empty = torch.zeros(1, 0, dtype=program.dtype)
    torch.testing.assert_close(forward(reduction.program, empty), forward(program, box.lower), rtol=1e-9, atol=1e-9)


def test_looser_bounds_only_keep_more() -> None:
    program = _cases()["mlp"]
    box = boxes(program, 0.05)
    bounds = crown_bounds(program, box)
    loose = replace(bounds, lower=bounds.lower - 1.0, upper=bounds.upper + 1.0)
    tight, more = (reduce_program(program, box, b) for b in (bounds, loose))
    assert set(tight.neurons.tolist()) <= set(more.neurons.tolist())


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_the_centre_of_the_boxes_may_become_the_origin(name: str) -> None:
    """The smaller network's boxes hold all points of the original's, less the centre; its values there are the same."""
    program = _cases()[name]
    whole = boxes(program, 0.1, count=3)
    lower, upper = whole.lower.clone(), whole.upper.clone()
    lower[:, 0] = upper[:, 0] = 0.3
    box = Bounds(lower, upper)
    reduction = reduce_program(program, box, crown_bounds(program, box), recentred=True)
    centre = box.around().centre[0]
    assert torch.equal(reduction.base, torch.where(torch.arange(len(centre)) == 0, 0.3, centre))
    inner = reduction.restrict_box(box)
    for index in range(3):
        points = points_in(box.select(torch.tensor([index])), 32)
        moved = points[:, reduction.inputs] - centre[reduction.inputs]
        assert bool((inner.lower[index] <= moved).all()) and bool((moved <= inner.upper[index]).all())
        torch.testing.assert_close(forward(reduction.program, moved), forward(program, points), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(reduction.restore(moved[0]), points[0])
    assert bool((inner.upper - inner.lower <= (upper - lower)[:, reduction.inputs] + 1e-12).all())


def test_an_input_is_fixed_only_where_all_boxes_have_its_value() -> None:
    """The first varies in one box, the second differs between them, the third is one number in both."""
    program = _cases()["mlp"]
    box = boxes(program, 0.1, count=2)
    lower, upper = box.lower.clone(), box.upper.clone()
    lower[:, 0], upper[0, 0], upper[1, 0] = 0.1, 0.4, 0.1
    lower[:, 1] = upper[:, 1] = torch.tensor([0.2, 0.3], dtype=lower.dtype)
    lower[:, 2] = upper[:, 2] = 0.5
    box = Bounds(lower, upper)
    assert reduce_program(program, box, crown_bounds(program, box)).inputs.tolist() == [0, 1, 3, 4]
