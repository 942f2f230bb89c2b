"""Populations find what gradients miss, inside their boxes, and report accepted points only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from toolkit.attack.evolution_attack import evolve
from toolkit.attack.gradient_attack import attack, case_loss
from toolkit.formats.vnnlib.read import parse_query
from toolkit.problem.compile import Binding, Problem, compile_problem
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.tuning import tuned

TEXT = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const X_2 Real) (declare-const Y_0 Real)
(assert (>= X_0 -1.0)) (assert (<= X_0 1.0)) (assert (>= X_1 -1.0)) (assert (<= X_1 1.0))
(assert (>= X_2 0.0)) (assert (<= X_2 2.0)) (assert {})"""
ALL = torch.arange(1)


class Cone(nn.Module):
    """A small cone on a plane whose slope leads away from it: below 0 only next to (0.5, -0.5, 0.3)."""

    def forward(self, x: Tensor) -> Tensor:
        distance = (x - torch.tensor([0.5, -0.5, 0.3])).abs().sum(1, keepdim=True)
        return 1 + 0.1 * x[:, :1] - 4 * torch.relu(0.3 - distance)


def problem_of(condition: str) -> Problem:
    query = parse_query(TEXT.format(condition))
    return compile_problem(query, {query.networks[0].name: Binding(Cone(), ((1, 3),), (torch.float32,))})


def test_populations_find_what_gradients_miss() -> None:
    problem, clock = problem_of("(<= Y_0 0.0)"), Clock.started(60)
    tries = [(search(problem, seed, clock), gradients(problem, seed, clock)) for seed in range(8)]
    evolved, descended = map(sum, zip(*tries, strict=True))
    assert evolved >= descended + 4


def search(problem: Problem, seed: int, clock: Clock) -> bool:
    return evolve(problem, ALL, 256, Budget(clock, lambda point, region: True, seed=seed))


def gradients(problem: Problem, seed: int, clock: Clock) -> bool:
    return attack(problem, ALL, 30, 50, Budget(clock, lambda point, region: True, seed=seed))


def test_candidates_satisfy_their_case_in_its_box() -> None:
    problem = problem_of("(or (and (<= Y_0 0.2) (<= X_0 0.6)) (and (>= Y_0 1.05) (>= X_2 1.5)))")
    tried: list[tuple[Tensor, int]] = []
    for seed in range(4):
        refuse = lambda point, region: bool(tried.append((point, region)))  # noqa: E731
        assert not evolve(problem, torch.arange(problem.num_cases), 256, Budget(Clock.started(60), refuse, seed=seed))
    assert {region for _, region in tried} == set(range(problem.num_cases))
    for point, region in tried:
        assert bool((point >= problem.lower[region]).all() and (point <= problem.upper[region]).all())
        losses = [case_loss(problem, point.unsqueeze(0), case.unsqueeze(0)) for case in cases_of(problem, region)]
        assert min(map(float, losses)) <= 0


def cases_of(problem: Problem, region: int) -> Tensor:
    """The cases of a region."""
    return (problem.region == region).nonzero().squeeze(1)


def test_nothing_is_found_where_nothing_is() -> None:
    assert not evolve(problem_of("(<= Y_0 -1.0)"), ALL, 512, Budget(Clock.started(60), lambda point, region: True))


def test_populations_too_small_are_left_out() -> None:
    problem = problem_of("(<= Y_0 2.0)")
    budget = Budget(Clock.started(60), lambda point, region: True)
    assert evolve(problem, ALL, tuned().evolution.least_population, budget)
    assert not evolve(problem, ALL, tuned().evolution.least_population - 1, budget)
    assert not evolve(problem, ALL[:0], 512, budget)


def test_large_networks_are_left_to_gradients(tune: Callable[..., None]) -> None:
    problem = problem_of("(<= Y_0 2.0)")
    tune(evolution={"most_multiplications": 0})
    assert not evolve(problem, ALL, 512, Budget(Clock.started(60), lambda point, region: True))


def test_out_of_time() -> None:
    assert tuned().evolution.generations > 1
    with pytest.raises(OutOfTime):
        evolve(problem_of("(<= Y_0 -1.0)"), ALL, 512, Budget(Clock.started(0), lambda point, region: True))
