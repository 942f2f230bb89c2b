"""Bounds of neurons by branch and bound: sound, tighter than slopes alone, and near what sampling finds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from programs import ResidualNetwork, boxes, mlp, points_in, program_of
from torch import Tensor

from toolkit.bounds.bounder import NeuronQuestion
from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.dual_ascent import Adam, Schedule
from toolkit.bounds.intermediate_bounds import refine_layer
from toolkit.bounds.interval import Bounds
from toolkit.ops import RELAXATIONS
from toolkit.problem.compile import Problem
from toolkit.problem.program import INPUT, Program
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.neuron_branching import TreeFrontier, branch_neurons, plant, weakest_leaves


def problem_on(program: Program, box: Bounds) -> Problem:
    """A problem with this box; what it asks of the features does not matter here."""
    size, dtype = program.features.size, program.dtype
    first = torch.zeros(1, dtype=torch.int64)
    return Problem(
        program=program,
        lower=box.lower,
        upper=box.upper,
        region=first,
        rows=first.unsqueeze(1),
        weights=torch.ones(1, size, dtype=dtype),
        offsets=torch.zeros(1, dtype=dtype),
    )


def pre_activations(program: Program, points: Tensor) -> Tensor:
    values = {INPUT: points}
    found = []
    for number, layer in enumerate(program.layers):
        found.append(layer.affine.apply([values[source] for source in layer.affine.sources]))
        values[number] = RELAXATIONS[layer.op].function(found[-1])
    return torch.cat(found, 1)


def width(bounds: Bounds) -> float:
    return float((bounds.upper - bounds.lower).sum())


def branched(
    program: Program, radius: float, seconds: float = 20.0, processes: int = 1, stated: bool = False
) -> tuple[Problem, Bounds, Bounds]:
    """The problem, the bounds that slopes give, and those of branch and bound."""
    problem = problem_on(program, boxes(program, radius))
    box = Bounds(problem.lower, problem.upper)
    slopes = start = crown_bounds(program, box)
    for number in range(len(program.layers)):
        slopes = refine_layer(program, number, box, slopes, Schedule(40, Adam(rate_alpha=0.3)))
    clock = Clock.started(seconds)
    question = NeuronQuestion(problem.program, box, start, turn=clock, batch=256, processes=processes, stated=stated)
    return problem, slopes, branch_neurons(question)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_contains_sampled_values(seed: int, processes: int, tune: Callable[..., None]) -> None:
    tune(sharing={"least_domains": 1})
    torch.manual_seed(seed)
    for program in (program_of(mlp(4, 12, 12, 12, 2), 4), program_of(ResidualNetwork(), 1, 6, 6)):
        problem, _, found = branched(program, 0.3, seconds=2.0, processes=processes)
        z = pre_activations(program, points_in(Bounds(problem.lower, problem.upper), 2000))
        assert bool((z >= found.lower - 1e-9).all())
        assert bool((z <= found.upper + 1e-9).all())


def test_is_tighter_than_slopes_and_nearly_exact() -> None:
    torch.manual_seed(5)
    program = program_of(mlp(2, 8, 8, 8, 2), 2)
    problem, slopes, found = branched(program, 1.0)
    z = pre_activations(program, points_in(Bounds(problem.lower, problem.upper), 40_000))
    # Neurons that turn out stable are left with any bound of the right sign.
    unstable = (found.lower < 0) & (found.upper > 0)
    reached = Bounds(z.amin(0, keepdim=True)[unstable], z.amax(0, keepdim=True)[unstable])
    inside = Bounds(found.lower[unstable], found.upper[unstable])
    assert width(found) < 0.95 * width(slopes)
    assert width(inside) < 1.1 * width(reached)


def test_several_processes_gain_about_as_much(tune: Callable[..., None]) -> None:
    """Not the same: trees grow while those of their process gain something."""
    tune(sharing={"least_domains": 8})
    torch.manual_seed(5)
    program = program_of(mlp(3, 24, 24, 2), 3)
    _, slopes, alone = branched(program, 0.5)
    _, _, shared = branched(program, 0.5, processes=2)
    gain = width(slopes) - width(alone)
    assert gain > 0
    assert width(slopes) - width(shared) > 0.7 * gain


def test_ends_that_are_stated_prove_as_many_phases() -> None:
    """A tree is done where its neuron has a phase: that must not be lost to the margin of what is stated."""
    counts = []
    for stated in (False, True):
        torch.manual_seed(8)
        found = [branched(program_of(mlp(3, 24, 24, 2), 3), 0.4, stated=stated)[2] for _ in range(6)]
        counts.append(sum(int(((bounds.lower < 0) & (bounds.upper > 0)).sum()) for bounds in found))
    assert counts[1] <= 1.03 * counts[0]


def test_no_time_means_no_change() -> None:
    torch.manual_seed(6)
    program = program_of(mlp(4, 12, 12, 2), 4)
    problem = problem_on(program, boxes(program, 0.5))
    box = Bounds(problem.lower, problem.upper)
    start = crown_bounds(program, box)
    found = branch_neurons(NeuronQuestion(problem.program, box, start, turn=Clock.started(-1.0), batch=256))
    assert torch.equal(found.lower, start.lower)
    assert torch.equal(found.upper, start.upper)


def planted(program: Program, box: Bounds, rows: Tensor) -> TreeFrontier:
    """Trees of the second layer, their roots bounded."""
    trees = plant(program, 1, box, crown_bounds(program, box), rows, 64)
    trees.begin(Clock.started(10.0))
    return trees


def test_each_open_tree_splits_its_weakest_leaf() -> None:
    torch.manual_seed(7)
    program = program_of(mlp(4, 12, 12, 2), 4)
    box = boxes(program, 0.5)
    rows = torch.arange(3)
    trees = planted(program, box, rows)
    leaves = trees.open
    twice = replace(
        trees,
        open=leaves.select(torch.arange(6).repeat(2)),
    )
    lower = torch.tensor([-1.0, -1, -1, 2, -1, -1, -3, -1, -1, 3, -1, -2], dtype=torch.float64)
    twice = replace(twice, open=replace(twice.open, lower=lower))
    chosen = set(weakest_leaves(twice, 100).tolist())
    assert {6, 11} <= chosen  # the weaker leaf of the first tree and of the last
    assert not {0, 5, 3, 9} & chosen  # and none of a tree that is proved
    assert len(chosen) == 5
    assert len(weakest_leaves(twice, 2)) == 2


def test_large_trees_split_several_leaves() -> None:
    torch.manual_seed(7)
    program = program_of(mlp(4, 12, 12, 2), 4)
    box = boxes(program, 0.5)
    trees = planted(program, box, torch.arange(2))
    many = trees.open.select(torch.tensor([0] * 12 + [1] * 4 + [2] * 3 + [3] * 8))
    lower = torch.tensor(
        [-5.0, *range(-12, -1), -4, -3, -2, 1, -1, -2, -3, 9, 8, 7, 6, 5, 4, 3, 2], dtype=torch.float64
    )
    chosen = weakest_leaves(replace(trees, open=replace(many, lower=lower)), 100).tolist()
    # A quarter of a tree's leaves, at least one, of the smallest tree first; none of one that is proved.
    assert chosen[:2] == [18, 12]
    assert set(chosen[2:]) == {1, 2, 3}


def test_the_check_stops_what_a_layer_begins_with() -> None:
    program = program_of(mlp(4, 12, 12, 2), 4)
    problem = problem_on(program, boxes(program, 0.3))
    box = Bounds(problem.lower, problem.upper)
    start, check = crown_bounds(program, box), Clock.started(0).check
    with pytest.raises(OutOfTime):
        branch_neurons(NeuronQuestion(problem.program, box, start, check, turn=Clock.started(60), batch=256))
