"""Boxes of rounded inputs are shrunk to one point a step, and none of the steps is lost."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from programs import program_of
from torch import Tensor, nn

from toolkit.bounds.interval import interval_bounds
from toolkit.ops import RELAXATIONS
from toolkit.problem.compile import Problem
from toolkit.problem.input_cells import InputCells, input_cells
from toolkit.search.box_frontier import shrink
from toolkit.search.input_domains import InputBoxes, bisect, unrefuted

SLOPE, OFFSET = torch.tensor([7.3, 0.6, 110.0]), torch.tensor([0.2, -3.0, 0.5])


class Rounded(nn.Module):
    """Two inputs that are only read rounded, and others in other ways."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("matrix", torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        z = x * SLOPE + OFFSET
        if self.kind == "negative":
            z = z * torch.tensor([1.0, 1.0, -1.0])
        if self.kind == "mixed":
            z = torch.cat([z[:, :2], z[:, 2:] + x[:, :1]], 1)
        steps = torch.round(z)
        if self.kind == "two steps":
            steps = steps + torch.round(torch.cat([0 * x[:, :2], 2 * z[:, 2:]], 1))
        if self.kind == "smooth":
            steps = steps + torch.cat([0 * x[:, :2], torch.tanh(x[:, 2:])], 1)
        value = torch.relu(steps @ self.matrix.T)
        return value + x[:, 2:] if self.kind == "past it" else value


def problem_of(kind: str, lower: Tensor, upper: Tensor) -> Problem:
    """One case over a box, with an atom that is never decided."""
    program = program_of(Rounded(kind), 3)
    return Problem(
        program=program,
        lower=lower.double().unsqueeze(0),
        upper=upper.double().unsqueeze(0),
        region=torch.zeros(1, dtype=torch.int64),
        rows=torch.tensor([[0]]),
        weights=torch.zeros(1, program.features.size, dtype=torch.float64),
        offsets=torch.zeros(1, dtype=torch.float64),
    )


def boxes_of(problem: Problem, lower: Tensor, upper: Tensor) -> InputBoxes:
    """Boxes ``(B, n)`` of the only case, about which nothing is known."""
    count, neurons = len(lower), problem.program.num_neurons
    return InputBoxes(
        case=torch.zeros(count, dtype=torch.int64),
        lower=lower.double(),
        upper=upper.double(),
        bound=torch.full((count,), -torch.inf, dtype=torch.float64),
        depth=torch.zeros(count, dtype=torch.int64),
        neuron_lower=torch.full((count, neurons), -torch.inf, dtype=torch.float64),
        neuron_upper=torch.full((count, neurons), torch.inf, dtype=torch.float64),
        rows=torch.zeros(count, 1, 3, dtype=torch.float64),
        offset=torch.zeros(count, 1, dtype=torch.float64),
        gain=torch.ones(count, 3, dtype=torch.float64),
    )


def cells_of(problem: Problem) -> InputCells:
    found = input_cells(problem)
    assert found is not None
    return found


def steps_of(points: Tensor) -> list[tuple[int, ...]]:
    """The integers at points ``(B, n)``."""
    return [tuple(row) for row in torch.round(points * SLOPE.double() + OFFSET.double()).to(torch.int64).tolist()]


@pytest.mark.parametrize(
    ("kind", "rounded"),
    [
        ("plain", [True, True, True]),
        ("past it", [True, True, False]),
        ("smooth", [True, True, False]),
        ("two steps", [True, True, False]),
        ("negative", [True, True, False]),
        ("mixed", [False, True, False]),
    ],
)
def test_which_inputs_are_only_read_rounded(kind: str, rounded: list[bool]) -> None:
    one = torch.ones(3)
    cells = cells_of(problem_of(kind, -one, one))
    assert cells.rounded.tolist() == rounded
    assert torch.equal(cells.slope[cells.rounded], SLOPE.double()[cells.rounded])
    assert torch.equal(cells.offset[cells.rounded], OFFSET.double()[cells.rounded])


def test_a_network_that_rounds_nothing_has_no_cells() -> None:
    problem = problem_of("plain", -torch.ones(3), torch.ones(3))
    assert input_cells(replace(problem, program=program_of(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), 3))) is None


def test_values_that_are_too_large_to_tell_steps_have_no_cells() -> None:
    large = torch.tensor([1e14, 1.0, 1.0])
    assert cells_of(problem_of("plain", -large, large)).rounded.tolist() == [False, True, True]


@pytest.mark.parametrize("seed", range(20))
def test_cutting_loses_no_step_and_ends_at_points(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lower = 2 * torch.rand(3, generator=generator) - 1
    widths = torch.rand(3, generator=generator) * torch.tensor([0.4, 6.0, 0.04])
    ties = (torch.round(lower * SLOPE + OFFSET) + 0.5 - OFFSET) / SLOPE
    lower = torch.where(torch.rand(3, generator=generator) < 0.3, ties, lower)  # or as near as numbers are
    upper = torch.where(torch.rand(3, generator=generator) < 0.1, lower, lower + widths)
    problem = problem_of("plain", lower, upper)
    cells, low, high = cells_of(problem), problem.lower, problem.upper
    points = low + torch.rand(3000, 3, dtype=torch.float64, generator=generator) * (high - low)
    wanted = set(steps_of(torch.cat([points, low, high])))
    open_boxes = shrink(problem, boxes_of(problem, low, high), cells)
    reached: set[tuple[int, ...]] = set()
    for _ in range(200):
        assert bool((open_boxes.lower >= low).all() and (open_boxes.upper <= high).all())
        done = (open_boxes.lower == open_boxes.upper).all(1)
        reached |= set(steps_of(open_boxes.lower[done]))
        open_boxes = open_boxes.select(~done)
        if not len(open_boxes):
            break
        dimension = (open_boxes.upper - open_boxes.lower).mul(SLOPE.double()).argmax(1)
        open_boxes = unrefuted(shrink(problem, bisect(open_boxes, dimension), cells))
    assert not len(open_boxes)
    assert reached >= wanted


def test_a_box_between_two_points_is_refuted() -> None:
    problem = problem_of("plain", -torch.ones(3), torch.ones(3))
    cells, one = cells_of(problem), torch.ones(1, 3, dtype=torch.float64)
    lower, upper = (torch.full((1, 3), z, dtype=torch.float64) for z in (2.1, 2.9))
    between = [(side - cells.offset) / cells.slope for side in (lower, upper)]
    inside = boxes_of(problem, torch.where(torch.tensor([True, False, False]), between[0], -one),
                      torch.where(torch.tensor([True, False, False]), between[1], one))  # fmt: skip
    assert not len(unrefuted(shrink(problem, inside, cells)))
    around = boxes_of(problem, torch.where(torch.tensor([True, False, False]), between[0] - 0.05, -one),
                      torch.where(torch.tensor([True, False, False]), between[1], one))  # fmt: skip
    shrunk = unrefuted(shrink(problem, around, cells))
    assert len(shrunk) == 1 and bool(shrunk.lower[0, 0] == shrunk.upper[0, 0])


def test_what_is_left_around_a_jump_has_one_value() -> None:
    """However often it is cut, a box around a jump has two values; of the points that stand for it each has one."""
    tie = ((torch.tensor([2.5, -0.5, 3.5]) - OFFSET.double()) / SLOPE.double()).unsqueeze(0)
    problem = problem_of("plain", *(tie[0] + side for side in (-1e-3, 1e-3)))
    shrunk = shrink(problem, boxes_of(problem, problem.lower, problem.upper), cells_of(problem))
    points = unrefuted(shrink(problem, bisect(shrunk, torch.tensor([0])), cells_of(problem)))
    assert len(points) == 2 and torch.equal(points.lower[:, 0], points.upper[:, 0])
    for boxes, two in ((boxes_of(problem, tie - 1e-9, tie + 1e-9), True), (points, False)):
        neurons, _ = interval_bounds(problem.program, boxes.box)
        first = problem.program.layers[0]
        assert first.op == "round"
        low, high = RELAXATIONS["round"].image(neurons.lower[:, :1], neurons.upper[:, :1])
        assert bool((low < high).all()) == two and bool((low == high).all()) != two
