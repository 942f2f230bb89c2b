"""The mixed-integer program of a case: its solutions are witnesses where it has any, and it never proves anything."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from toolkit.attack.gradient_attack import case_loss
from toolkit.problem.compile import Problem
from toolkit.problem.program import Program, build_program
from toolkit.problem.trace import trace
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search.mixed_integer import by_mixed_integers, candidate, is_small_relu_network
from toolkit.search.root import root_bounds
from toolkit.search.search_task import SearchTask
from toolkit.search.strategy import turns
from toolkit.settings import Settings
from toolkit.tuning import tuned, using


def formula(seed: int, variables: int, clauses: int) -> tuple[Problem, bool]:
    """A network that counts the violated clauses of a random 3-SAT formula, and how far inputs are from 0 and 1.

    The query asks for a point where both are zero (almost). Whether there is one is found by trying all assignments.
    """
    generator = np.random.default_rng(seed)
    first = [(2 * np.eye(variables)[i], -1.0) for i in range(variables)] + [(row, 0.0) for row in np.eye(variables)]
    assignments = np.array(list(itertools.product((0, 1), repeat=variables)))
    satisfied = np.ones(len(assignments), bool)
    for _ in range(clauses):
        chosen, wanted = generator.choice(variables, 3, replace=False), generator.integers(0, 2, 3)
        satisfied &= (assignments[:, chosen] == wanted).any(1)
        row = np.zeros(variables)
        row[chosen] = 1 - 2 * wanted  # one less the sum of the clause's literals
        first.append((row, 1.0 - (1 - wanted).sum()))
    weight, bias = np.stack([row for row, _ in first]), np.array([shift for _, shift in first])
    last = np.zeros((2, len(first)))
    last[0, 2 * variables :] = 1
    last[1, :variables], last[1, variables : 2 * variables] = -1, 1
    parts = [torch.tensor(part, dtype=torch.float32) for part in (weight, bias, last)]
    program = build_program(trace(lambda x: parts[2] @ torch.relu(parts[0] @ x + parts[1]), [torch.zeros(variables)]))
    one = torch.ones(1, variables, dtype=torch.float64)
    return problem_of(program, 0 * one, one, [[1, 0], [0, 1]], [-1e-4, -1e-4]), bool(satisfied.any())


def problem_of(
    program: Program, lower: Tensor, upper: Tensor, weights: list[list[float]], offsets: list[float]
) -> Problem:
    """One case with all of the atoms."""
    return Problem(
        program=program,
        lower=lower,
        upper=upper,
        region=torch.zeros(1, dtype=torch.int64),
        rows=torch.arange(len(offsets)).unsqueeze(0),
        weights=torch.tensor(weights, dtype=torch.float64),
        offsets=torch.tensor(offsets, dtype=torch.float64),
    )


def task_of(problem: Problem, seconds: float = 60.0) -> SearchTask:
    """A task whose points are judged by the program itself."""
    return SearchTask(
        problem=problem,
        settings=Settings(),
        clock=Clock.started(seconds),
        accept=lambda point, region: bool(
            case_loss(problem, point.unsqueeze(0), torch.zeros(1, dtype=torch.int64)) <= 0
        ),
        observer=lambda event: None,
        note=lambda **facts: None,
        spent=lambda domains, depth: None,
    )


def found(task: SearchTask) -> bool:
    """Whether a witness was accepted."""
    try:
        return by_mixed_integers(task, root_bounds(task.problem, task.clock, task.observer)).witness
    except OutOfTime:
        return False


@pytest.mark.parametrize("seed", range(10))
def test_a_formula_has_a_witness_where_an_assignment_satisfies_it(seed: int) -> None:
    problem, satisfiable = formula(seed, 8, 24 + 3 * seed)
    assert found(task_of(problem)) is satisfiable


@pytest.mark.parametrize("seed", range(6))
def test_a_point_of_a_deeper_network_is_a_witness(seed: int) -> None:
    """Just above the least value of some samples, there is one."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    program = build_program(trace(module.requires_grad_(False), [torch.zeros(4)]))
    upper = torch.full((1, 4), 2.0, dtype=torch.float64)
    least = float(module(torch.rand(500, 4) * 4 - 2).sum(1).min())
    problem = problem_of(program, -upper, upper, [[1, 1]], [-least - 1e-3])
    root = root_bounds(problem, Clock.started(60), lambda event: None)
    point = candidate(problem, root.bounds, 0, Clock.started(20))
    assert point is not None
    assert bool((point >= -upper[0]).all() & (point <= upper[0]).all())
    assert float(case_loss(problem, point.unsqueeze(0), torch.zeros(1, dtype=torch.int64))) <= 0


def test_nothing_is_proved_where_there_is_no_point() -> None:
    problem, satisfiable = formula(9, 8, 70)
    assert not satisfiable
    task = task_of(problem)
    with pytest.raises(OutOfTime):
        by_mixed_integers(task, root_bounds(problem, task.clock, task.observer))


@pytest.mark.parametrize(
    ("atoms", "expected"),
    [
        ([0, 1], ["mixed-integer", "input", "relu"]),
        ([0], ["relu", "mixed-integer", "input", "relu"]),
    ],
)
def test_boxes_come_before_phases_where_several_atoms_have_to_hold(atoms: list[int], expected: list[str]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 2))
    program = build_program(trace(module.requires_grad_(False), [torch.zeros(30)]))
    upper = torch.ones(1, 30, dtype=torch.float64)
    problem = problem_of(program, -upper, upper, torch.eye(2)[atoms].tolist(), [0.0] * len(atoms))
    task = task_of(problem)
    root = root_bounds(problem, task.clock, task.observer)
    assert [strategy for strategy, _ in turns(task, root)] == expected


def test_large_networks_and_smooth_ones_are_left_alone() -> None:
    def smooth(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.relu(x))

    program = build_program(trace(smooth, [torch.zeros(2)]))
    assert not is_small_relu_network(program, 2)
    program = build_program(trace(torch.relu, [torch.zeros(2)]))
    assert is_small_relu_network(program, 2)
    assert not is_small_relu_network(program, 0)
    with using(tuned().changed(mixed_integer={"most_elements": 1})):
        assert not is_small_relu_network(program, 2)
