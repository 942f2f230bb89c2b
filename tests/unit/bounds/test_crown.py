"""Bounds of many boxes at once: sound at violations, no looser than what was known, refuted only when empty."""

from __future__ import annotations

import pytest
import torch
from programs import ResidualNetwork, boxes, mlp, points_in, program_of

from toolkit.attack.gradient_attack import forward
from toolkit.bounds.backward import backward, functional, layer_lines
from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.crown import crown_bounds, tighten
from toolkit.bounds.interval import Bounds
from toolkit.problem.program import Program


def _program(name: str) -> Program:
    torch.manual_seed(1)
    return {
        "mlp": lambda: program_of(mlp(4, 20, 20, 20, 2), 4),
        "residual": lambda: program_of(ResidualNetwork(), 1, 6, 6),
        "smooth": lambda: program_of(torch.nn.Sequential(mlp(4, 10, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)), 4),
    }[name]()


def _pre_activations(program: Program, points: torch.Tensor) -> torch.Tensor:
    """Exact values of all neurons ``(P, num_neurons)``: the bounds of boxes that are points."""
    return crown_bounds(program, Bounds(points, points)).lower


def _no_spaces(program: Program, count: int) -> HalfSpaces:
    empty = torch.zeros(count, 0, program.num_inputs, dtype=program.dtype)
    return HalfSpaces(empty, empty[..., 0])


def _part(box: Bounds) -> Bounds:
    """A quarter of the box's width, off its centre."""
    width = box.upper - box.lower
    return Bounds(box.lower + 0.5 * width, box.lower + 0.75 * width)


@pytest.mark.parametrize("name", ["mlp", "residual", "smooth"])
def test_bounds_hold_and_are_no_looser_than_those_known(name: str) -> None:
    program = _program(name)
    box = boxes(program, 0.3)
    known, part = crown_bounds(program, box), _part(box)
    found = tighten(program, part, known, _no_spaces(program, 1))
    values = _pre_activations(program, points_in(part, 200))
    assert bool((values >= found.bounds.lower - 1e-9).all())
    assert bool((values <= found.bounds.upper + 1e-9).all())
    assert bool((found.bounds.lower >= known.lower).all())
    assert bool((found.bounds.upper <= known.upper).all())
    assert float(found.contradiction) <= 0


@pytest.mark.parametrize("name", ["mlp", "residual", "smooth"])
def test_bounds_hold_where_the_half_spaces_are(name: str) -> None:
    program = _program(name)
    box = boxes(program, 0.05)
    known, part = crown_bounds(program, box), _part(box)
    plain = tighten(program, part, known, _no_spaces(program, 1)).bounds
    points = points_in(part, 400)
    value = forward(program, points)[:, 0]
    limit = value.quantile(0.1)
    # A violation is a first feature of at most the limit: a tenth of the points.
    row = torch.zeros(1, 1, program.features.size, dtype=program.dtype)
    row[0, 0, 0] = 1.0
    linear = backward(
        program, functional(program.features, row, -limit.reshape(1, 1)), layer_lines(program, plain), None
    )
    found = tighten(program, part, known, HalfSpaces(linear.coefficients, linear.offset))
    values = _pre_activations(program, points[value <= limit])
    assert float(found.contradiction) <= 0
    assert bool((values >= found.bounds.lower - 1e-9).all())
    assert bool((values <= found.bounds.upper + 1e-9).all())
    assert float((plain.upper - plain.lower).sum()) > float((found.bounds.upper - found.bounds.lower).sum())


def test_boxes_of_a_batch_do_not_touch_each_other() -> None:
    program = _program("mlp")
    box = boxes(program, 0.3, count=7)
    known = crown_bounds(program, box)
    part = _part(box)
    together = tighten(program, part, known, _no_spaces(program, 7)).bounds
    for index in range(7):
        one = torch.tensor([index])
        alone = tighten(program, part.select(one), known.select(one), _no_spaces(program, 1)).bounds
        torch.testing.assert_close(together.select(one).lower, alone.lower)
        torch.testing.assert_close(together.select(one).upper, alone.upper)


def test_known_bounds_that_exclude_the_box_refute_it() -> None:
    program = _program("mlp")
    box = boxes(program, 0.05)
    values = _pre_activations(program, (box.lower + box.upper) / 2)
    last = program.num_neurons - 1
    known = crown_bounds(program, box)
    known.lower[0, last] = values[0, last] + 10
    known.upper[0, last] = values[0, last] + 11
    assert float(tighten(program, box, known, _no_spaces(program, 1)).contradiction) > 5


def test_shares_of_the_dimensions_sum_to_one() -> None:
    program = _program("mlp")
    box = boxes(program, 0.5, count=3)
    reach = tighten(program, box, crown_bounds(program, box), _no_spaces(program, 3)).influence
    assert len(reach.owner) == len(reach.neuron) == len(reach.share) > 0
    torch.testing.assert_close(reach.share.sum(1), torch.ones(len(reach.share), dtype=program.dtype))
