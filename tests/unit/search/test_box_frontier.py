"""Branch and bound over the input: covers what it cuts, proves what holds, and never proves what does not."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch
from programs import mlp, program_of
from searches import BoxOptions, boxes_of

from toolkit.attack.gradient_attack import forward
from toolkit.problem.compile import Problem
from toolkit.problem.program import Program
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Event, RoundDone
from toolkit.search.box_frontier import branch, divisible, root_boxes
from toolkit.search.input_domains import UNGROUPED, BoxStack, InputBoxes, bisect, groups_of, unrefuted, weakest_last
from toolkit.search.loop import SearchOutcome, branch_and_bound
from toolkit.search.root import root_bounds

PLAN = BoxOptions(batch=256, fill=16)
SHARED = replace(PLAN, shared=True)
ODD = replace(SHARED, batch=3, fill=1)
"""Batches that part the cases of a box."""


def _problem(program: Program, weights: list[list[float]], offsets: list[float], cases: list[list[int]]) -> Problem:
    """Cases over the box [-1, 1]^n; all have the same number of atoms."""
    side = torch.ones(1, program.num_inputs, dtype=torch.float64)
    return Problem(
        program=program,
        lower=-side,
        upper=side,
        region=torch.zeros(len(cases), dtype=torch.int64),
        rows=torch.tensor(cases),
        weights=torch.tensor(weights, dtype=torch.float64),
        offsets=torch.tensor(offsets, dtype=torch.float64),
    )


def _network(seed: int, smooth: bool = False) -> Program:
    torch.manual_seed(seed)
    if not smooth:
        return program_of(mlp(3, 16, 16, 2), 3)
    return program_of(torch.nn.Sequential(mlp(3, 12, 8), torch.nn.Sigmoid(), torch.nn.Linear(8, 2)), 3)


def _least(program: Program) -> float:
    """The least value of the first feature on a fine sample of the box, and of points near the best."""
    points = torch.rand(40_000, 3, dtype=torch.float64) * 2 - 1
    best = points[forward(program, points)[:, 0].argmin()]
    near = (best + 0.05 * torch.randn(20_000, 3, dtype=torch.float64)).clamp(-1, 1)
    return float(torch.cat([forward(program, points), forward(program, near)])[:, 0].min())


def _search(problem: Problem, plan: BoxOptions = PLAN, limit: float = 20.0, truthful: bool = True) -> SearchOutcome:
    """Searched with a witness test in exact terms of the program, or one that refuses everything."""

    def accept(point: torch.Tensor, region: int) -> bool:
        atoms = problem.weights @ forward(problem.program, point.unsqueeze(0))[0] + problem.offsets
        assert bool((point >= problem.lower[region]).all() & (point <= problem.upper[region]).all())
        return truthful and bool((atoms[problem.rows] <= 0).all(1).any())

    with torch.no_grad():
        clock = Clock.started(limit)
        root = root_bounds(problem, clock, lambda event: None)
        return branch_and_bound(boxes_of(problem, root, plan), Budget(clock, accept))


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_proves_above_the_minimum_and_finds_below(seed: int, smooth: bool) -> None:
    program = _network(seed, smooth)
    least = _least(program)
    # y0 <= least - 0.02 has no solution (the sample is that fine); y0 <= least + 0.002 has one.
    proof = _search(_problem(program, [[1.0, 0.0]], [-(least - 0.02)], [[0]]))
    assert (proof.witness, proof.proved) == (False, True)
    found = _search(_problem(program, [[1.0, 0.0]], [-(least + 0.002)], [[0]]))
    assert (found.witness, found.proved) == (True, False)


@pytest.mark.parametrize("seed", range(4))
def test_a_refused_witness_is_never_a_proof(seed: int) -> None:
    program = _network(seed)
    problem = _problem(program, [[1.0, 0.0]], [-(_least(program) + 0.01)], [[0]])
    plan = BoxOptions(batch=64, fill=16, max_domains=3000)
    outcome = _search(problem, plan, truthful=False)
    assert (outcome.witness, outcome.proved) == (False, False)
    assert "limit" in outcome.reason or "narrow" in outcome.reason


def test_atoms_that_only_contradict_each_other_are_refuted_together() -> None:
    torch.manual_seed(0)
    program = program_of(torch.nn.Linear(3, 2), 3)
    # y0 <= 0 and y0 >= 0.01: each alone has solutions all over the box, together none.
    problem = _problem(program, [[1.0, 0.0], [-1.0, 0.0]], [0.0, 0.01], [[0, 1]])
    progress = _search(problem)
    assert progress.proved


@pytest.mark.parametrize("plan", [PLAN, SHARED, ODD])
def test_all_cases_have_to_be_refuted(plan: BoxOptions) -> None:
    program = _network(5)
    least = _least(program)
    rows, below, above = [[1.0, 0.0]] * 2, -(least - 0.05), -(least + 0.05)
    assert _search(_problem(program, rows, [below, below], [[0], [1]]), plan).proved
    assert _search(_problem(program, rows, [below, above], [[0], [1]]), plan).witness


@pytest.mark.parametrize("plan", [SHARED, ODD])
@pytest.mark.parametrize("seed", range(6))
def test_cases_that_share_boxes_come_to_the_same(plan: BoxOptions, seed: int) -> None:
    """Each case asks for little of one direction of the outputs; a small or a large part of one has a witness."""
    program = _network(seed)
    angles = torch.arange(6) * torch.pi / 3
    rows = torch.stack([angles.cos(), angles.sin()], 1).double()
    points = torch.rand(60_000, 3, dtype=torch.float64) * 2 - 1
    least = (forward(program, points) @ rows.T).amin(0)
    margins = torch.full((6,), 0.05, dtype=torch.float64)
    cases = [[number] for number in range(6)]
    proof = _problem(program, rows.tolist(), (margins - least).tolist(), cases)
    assert _search(proof, plan, limit=60).proved
    margins[seed] = -0.002
    found = _search(_problem(program, rows.tolist(), (margins - least).tolist(), cases), plan, limit=60)
    assert (found.witness, found.proved) == (True, False)


def test_a_boundary_case_is_left_undecided() -> None:
    # y = x on [-1, 1] is at most -1 in one point only, and that one is refused.
    program = program_of(torch.nn.Linear(1, 1, bias=False), 1)
    program.features.matrices[0].fill_(1.0)  # type: ignore[union-attr]
    outcome = _search(_problem(program, [[1.0]], [1.0], [[0]]), truthful=False)
    assert (outcome.witness, outcome.proved) == (False, False)
    assert "narrow" in outcome.reason


def test_a_query_without_free_inputs_is_left_undecided() -> None:
    linear = torch.nn.Linear(1, 1)
    program = program_of(linear, 1)
    value = float(linear.bias)
    fixed = replace(program, num_inputs=0, features=replace(program.features, matrices=(torch.zeros(1, 0).double(),)))
    outcome = _search(_problem(fixed, [[1.0]], [-value], [[0]]), truthful=False)
    assert (outcome.witness, outcome.proved) == (False, False)


def test_runs_out_of_time() -> None:
    program = _network(1)
    problem = _problem(program, [[1.0, 0.0]], [-(_least(program) + 0.01)], [[0]])
    start = time.perf_counter()
    with pytest.raises(OutOfTime):
        _search(problem, limit=0.3, truthful=False)
    assert time.perf_counter() - start < 3


def test_rounds_are_reported() -> None:
    program = _network(2)
    problem = _problem(program, [[1.0, 0.0]], [-(_least(program) - 0.02)], [[0]])
    events: list[Event] = []
    with torch.no_grad():
        clock = Clock.started(20)
        root = root_bounds(problem, clock, events.append)
        search = boxes_of(problem, root, PLAN)
        branch_and_bound(search, Budget(clock, lambda *_: False, events.append))
    progress = search.progress
    rounds = [event for event in events if isinstance(event, RoundDone)]
    assert rounds[-1].open == 0
    assert rounds[-1].bounded == progress.bounded > 0
    assert rounds[-1].depth == progress.depth > 0


def _boxes(count: int = 6, inputs: int = 3) -> InputBoxes:
    program = _network(0)
    problem = _problem(program, [[1.0, 0.0]], [0.0], [[0]])
    clock = Clock.started(10)
    root = root_bounds(problem, clock, lambda event: None)
    boxes = root_boxes(problem, root, torch.zeros(count, dtype=torch.int64))
    torch.manual_seed(3)
    boxes.bound.copy_(-torch.rand(count, dtype=torch.float64))
    boxes.gain.copy_(torch.rand(count, inputs, dtype=torch.float64))
    boxes.lower.copy_(-torch.rand(count, inputs, dtype=torch.float64))
    return boxes


def test_halves_cover_their_box() -> None:
    boxes = _boxes()
    dimension = boxes.gain.argmax(1)
    below, above = bisect(boxes, dimension).box, bisect(boxes, dimension)
    count = len(boxes)
    for row in range(count):
        for column in range(3):
            low, high = float(boxes.lower[row, column]), float(boxes.upper[row, column])
            assert (float(below.lower[row, column]), float(above.upper[row + count, column])) == (low, high)
            meets = float(below.upper[row, column]) == float(above.lower[row + count, column])
            assert meets == (column == int(dimension[row]))
    assert bool((above.depth == 1).all())


def test_branching_fills_the_batch_with_a_partition() -> None:
    boxes = _boxes(count=2)
    parts = branch(boxes, 16)
    assert len(parts) == 16
    volume = (parts.upper - parts.lower).prod(1).sum()
    torch.testing.assert_close(volume, (boxes.upper - boxes.lower).prod(1).sum())
    assert len(branch(boxes, 1)) == 4


def test_sides_too_narrow_are_not_cut() -> None:
    boxes = _boxes(count=3)
    boxes.lower[0], boxes.upper[0] = 1.0, 1.0
    boxes.lower[1, 0], boxes.upper[1, 0] = 0.5, 0.5
    boxes.gain[1] = torch.tensor([9.0, 1.0, 0.0], dtype=torch.float64)
    found, wide = divisible(boxes)
    assert wide.tolist() == [False, True, True]
    assert int(found.gain[1].argmax()) == 1


def test_broken_bounds_refute_nothing() -> None:
    boxes = _boxes(count=4)
    boxes.bound.copy_(torch.tensor([float("nan"), float("inf"), 0.0, 1e-9]))
    assert len(unrefuted(boxes)) == 3


def test_stack_returns_everything_once_the_weakest_first() -> None:
    boxes = _boxes(count=6)
    stack = BoxStack().with_top(weakest_last(boxes.select(torch.arange(4)), UNGROUPED))
    stack = stack.with_top(weakest_last(boxes.select(torch.arange(4, 6)), UNGROUPED))
    assert len(stack) == 6
    assert stack.weakest() == float(boxes.bound.min())
    first, below = stack.top(3)
    rest, none = below.top(10)
    assert (len(first), len(rest), len(stack), len(none)) == (3, 3, 6, 0)
    found = torch.cat([first.bound, rest.bound]).sort().values
    assert torch.equal(found, boxes.bound.sort().values)
    assert float(first.bound.min()) == min(float(boxes.bound[:4].min()), float(boxes.bound[4:].min()))


def _groups() -> InputBoxes:
    """Six boxes of which the first and the last two, and the second and the fourth, are the same."""
    boxes = _boxes(count=6)
    lower = boxes.lower[torch.tensor([0, 1, 2, 1, 0, 0])]
    return replace(boxes, lower=lower, case=torch.arange(6))


def test_equal_boxes_are_groups() -> None:
    boxes = _groups()
    groups = groups_of(boxes)
    assert groups.first is not None
    assert groups.group is not None
    assert sorted(groups.first.tolist()) == [0, 1, 2]
    assert torch.equal(boxes.lower[groups.first][groups.group], boxes.lower)
    assert groups.each(groups.total(torch.ones(6))).tolist() == [3, 2, 1, 2, 3, 3]
    values = torch.tensor([[3.0], [5.0], [7.0], [4.0], [1.0], [2.0]])
    assert groups.each(groups.least(values)).flatten().tolist() == [1, 4, 7, 4, 1, 1]
    assert groups_of(boxes.select(torch.arange(3))) is UNGROUPED


def test_a_group_knows_only_what_holds_for_all_its_members() -> None:
    """Bounds that were found where one case is violated say nothing of another case."""
    boxes = _groups()
    boxes.rows.fill_(1.0)
    boxes.offset.fill_(-1.0)
    boxes.neuron_lower[4] += 0.5
    boxes.neuron_upper[3] -= 0.5
    groups = groups_of(boxes)
    assert groups.first is not None
    one = groups.one_of_each(boxes)
    for row, member in enumerate(groups.first.tolist()):
        mates = [number for number in range(6) if torch.equal(boxes.lower[number], boxes.lower[member])]
        assert torch.equal(one.neuron_lower[row], boxes.neuron_lower[mates].amin(0))
        assert torch.equal(one.neuron_upper[row], boxes.neuron_upper[mates].amax(0))
        assert bool(one.rows[row].any()) == bool(one.offset[row].any()) == (len(mates) == 1)


def test_groups_stay_together() -> None:
    boxes = _groups()
    groups = groups_of(boxes)
    placed = weakest_last(boxes, groups)
    weakest = {tuple(box): [] for box in placed.lower.tolist()}
    for row, box in enumerate(placed.lower.tolist()):
        weakest[tuple(box)].append(row)
    assert all(rows == list(range(rows[0], rows[-1] + 1)) for rows in weakest.values())
    least = [float(placed.bound[rows].min()) for rows in weakest.values()]
    assert least == sorted(least, reverse=True)
    assert sorted(placed.case.tolist()) == list(range(6))
