"""Which strategy comes first, in which precision, and how hard many cases are attacked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import nn

from toolkit.bounds.bounder import Bounder
from toolkit.problem.compile import Problem
from toolkit.problem.program import build_program
from toolkit.problem.trace import trace
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.search import attack_budget, strategy, techniques
from toolkit.search.attack_budget import attack_on
from toolkit.search.phase_frontier import PhaseFrontier
from toolkit.search.root import RootBounds, root_bounds
from toolkit.search.search_task import SearchResult, SearchTask
from toolkit.search.strategy import prove, turns
from toolkit.search.techniques import by_relu_phases, gap_closed
from toolkit.settings import Settings
from toolkit.tuning import tuned
from toolkit.verify import precision


def problem_of(inputs: int, widths: list[int], varying: int, cases: int = 1) -> Problem:
    """Whether a random network is at most 100 in some box: many unstable neurons, and no case refuted at the root."""
    torch.manual_seed(0)
    sizes = [inputs, *widths]
    parts = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    program = build_program(trace(nn.Sequential(*parts, nn.Linear(sizes[-1], 1)), [torch.zeros(inputs)]))
    upper = torch.zeros(cases, inputs, dtype=torch.float64)
    upper[:, :varying] = 10.0
    return Problem(
        program=program,
        lower=-upper,
        upper=upper,
        region=torch.arange(cases),
        rows=torch.zeros(cases, 1, dtype=torch.int64),
        weights=torch.ones(1, 1, dtype=torch.float64),
        offsets=torch.full((1,), -100.0, dtype=torch.float64),
    )


def task_of(problem: Problem) -> SearchTask:
    return SearchTask(
        problem=problem,
        settings=Settings(),
        clock=Clock.started(60),
        accept=lambda point, region: False,
        observer=lambda event: None,
        note=lambda **facts: None,
        spent=lambda domains, depth: None,
    )


def first(problem: Problem) -> str:
    task = task_of(problem)
    return turns(task, root_bounds(problem, task.clock, task.observer))[0][0]


@pytest.mark.parametrize(
    ("widths", "varying", "expected"),
    [
        ([40], 30, "relu"),  # one hidden layer
        ([40, 40], 30, "relu"),  # deeper, with more inputs than are split at once
        ([40, 40], 5, "input"),  # few inputs
        ([40], 80, "relu"),  # too many inputs for boxes
    ],
)
def test_boxes_come_first_for_few_inputs(widths: list[int], varying: int, expected: str) -> None:
    assert first(problem_of(80, widths, varying)) == expected


def test_phases_of_one_hidden_layer_are_searched_for_longer() -> None:
    shares = []
    for widths in ([40], [40, 40]):
        problem = problem_of(30, widths, 30)
        task = task_of(problem)
        shares.append(turns(task, root_bounds(problem, task.clock, task.observer))[0][1])
    assert shares[0] > shares[1]


def test_dear_networks_are_attacked_before_they_are_bounded(
    monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    bounded: list[int] = []
    monkeypatch.setattr(strategy, "root_bounds", lambda *arguments: bounded.append(1) or root_bounds(*arguments))
    monkeypatch.setattr(attack_budget, "attack", lambda *arguments: not bounded)
    task = task_of(problem_of(30, [40], 30))
    tune(attack={"first_cost": 1})
    assert prove(task).witness
    assert not bounded
    tune(attack={"first_cost": 1 << 40})
    monkeypatch.setattr(strategy, "in_turn", lambda *arguments: SearchResult(False, True, "turns"))
    assert prove(task).by == "turns"
    assert bounded


@pytest.mark.parametrize(("widths", "tightens"), [([40], False), ([40, 40], True)])
def test_bounds_that_are_exact_already_are_not_tightened(
    widths: list[int], tightens: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    tries: list[float] = []

    def search(task: SearchTask, name: str, frontier: PhaseFrontier) -> SearchResult:
        tries.append(task.clock.left)
        if len(tries) > 1:
            return SearchResult(False, True, "search")
        raise OutOfTime

    monkeypatch.setattr(
        techniques, "tightened", lambda task, root, search, tightener, seconds: asked.append(seconds) or root
    )
    monkeypatch.setattr(techniques, "run_search", search)
    problem = problem_of(30, widths, 30)
    task = task_of(problem)
    assert by_relu_phases(task, root_bounds(problem, task.clock, task.observer)).proved
    assert bool(asked) is tightens


def test_boxes_have_a_turn_where_one_hidden_layer_has_more_inputs() -> None:
    for inputs, has_turn in ((100, True), (300, False)):
        problem = problem_of(inputs, [40], inputs)
        task = task_of(problem)
        order = [turn for turn, _ in turns(task, root_bounds(problem, task.clock, task.observer))]
        assert ("input" in order) is has_turn


def test_wider_networks_without_phases_are_left_to_linear_programs() -> None:
    problem = problem_of(100, [], 100)
    assert first(problem) == "relu"


@pytest.mark.parametrize(
    ("inputs", "width", "varying", "expected"),
    [
        (30, 100, 30, torch.float64),  # narrow
        (30, 300, 5, torch.float64),  # wide, but cheap and with few inputs that vary
        (30, 300, 30, torch.float32),
        (30, 1500, 5, torch.float32),  # too expensive
    ],
)
def test_small_problems_are_bounded_in_double_precision(
    inputs: int, width: int, varying: int, expected: torch.dtype
) -> None:
    assert precision(problem_of(inputs, [width, width], varying)) is expected


def efforts_of(monkeypatch: pytest.MonkeyPatch, succeeds: Callable[[int], bool]) -> list[tuple[int, int]]:
    """Records restarts and steps of every attack; the one with such a number is reported to succeed."""
    efforts: list[tuple[int, int]] = []

    def record(problem: Problem, cases: torch.Tensor, restarts: int, steps: int, *rest: object) -> bool:
        efforts.append((restarts, steps))
        return succeeds(len(efforts))

    monkeypatch.setattr(attack_budget, "attack", record)
    return efforts


def test_many_cases_are_attacked_less_each(monkeypatch: pytest.MonkeyPatch) -> None:
    efforts = efforts_of(monkeypatch, lambda number: True)
    for cases in (1, 64, 128, 10_000):
        assert prove(task_of(problem_of(4, [8, 8], 4, cases))) == SearchResult(True, False, "attack")
    full, steps = tuned().attack.first_restarts_share * Settings().attack_restarts, Settings().attack_steps
    assert efforts == [(full, steps), (full, steps), (math.ceil(full / 4), math.ceil(steps / 2)), (1, 1)]


def test_parts_of_a_query_share_the_time_of_its_attack(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed: list[float] = []

    def record(problem: Problem, cases: torch.Tensor, restarts: int, steps: int, budget: Budget) -> bool:
        allowed.append(budget.clock.left)
        return True

    monkeypatch.setattr(attack_budget, "attack", record)
    task = task_of(problem_of(4, [8, 8], 4))
    assert prove(task).witness
    assert prove(replace(task, share=0.25)).witness
    assert allowed[0] == pytest.approx(4 * allowed[1], rel=0.05)


@pytest.mark.parametrize("name", ["relu", "input"])
def test_most_restarts_come_after_better_bounds(
    monkeypatch: pytest.MonkeyPatch, name: Literal["relu", "input"]
) -> None:
    efforts = efforts_of(monkeypatch, lambda number: number == 2)
    task = task_of(problem_of(4, [8, 8], 4))
    task = replace(task, settings=Settings(strategy=name))
    assert prove(task) == SearchResult(True, False, "attack")
    assert sum(restarts for restarts, _ in efforts) == Settings().attack_restarts
    assert efforts[0][0] < efforts[1][0]


@pytest.mark.parametrize(
    ("left", "longer", "look"),
    [(0.5, 2, tuned().strategy.restarted_turn_share), (0.9, 2, 1.0), (0.99, 4, 1.0), (1.0, 4, 1.0)],
)
def test_searches_and_better_bounds_take_turns(
    monkeypatch: pytest.MonkeyPatch, left: float, longer: int, look: float
) -> None:
    turns: list[tuple[str, float]] = []
    searches: list[PhaseFrontier] = []

    def search(task: SearchTask, name: str, search: PhaseFrontier) -> SearchResult:
        searches.append(search)
        turns.append(("search", task.clock.left))
        if len(turns) > 4:
            return SearchResult(False, True, "search")
        raise OutOfTime

    def tighten(
        task: SearchTask, root: RootBounds, search: PhaseFrontier, tightener: Bounder, seconds: float
    ) -> RootBounds:
        turns.append(("tighten", seconds))
        return replace(root, lower=left * root.lower)

    monkeypatch.setattr(techniques, "run_search", search)
    monkeypatch.setattr(techniques, "tightened", tighten)
    task = task_of(problem_of(4, [8, 8], 4))
    assert by_relu_phases(task, root_bounds(task.problem, task.clock, task.observer)).proved
    assert [name for name, _ in turns] == ["search", "tighten", "search", "tighten", "search"]
    first = turns[0][1]
    expected = [1, 1, look * longer, 2, look * longer**2]
    assert [seconds for _, seconds in turns] == pytest.approx([first * factor for factor in expected], rel=0.01)
    assert [one is two for one, two in itertools.pairwise(searches)] == [left > 0.8] * 2


def test_bounds_that_bring_nothing_nearer_are_told_apart() -> None:
    task = task_of(problem_of(4, [8, 8], 4))
    root = root_bounds(task.problem, task.clock, task.observer)
    assert gap_closed(root, replace(root, lower=root.lower / 4)) == pytest.approx(0.75)
    at_zero = replace(root, lower=0 * root.lower)
    assert gap_closed(at_zero, at_zero) == 0
    unknown = replace(root, lower=-torch.inf * root.lower.abs())
    assert math.isnan(gap_closed(unknown, unknown))


@pytest.mark.parametrize(("left", "searches"), [(1.0, 1), (0.9, 2), (0.5, 2)])
def test_a_search_that_gave_up_is_repeated_only_from_better_bounds(
    monkeypatch: pytest.MonkeyPatch, left: float, searches: int
) -> None:
    begun: list[PhaseFrontier] = []

    def search(task: SearchTask, name: str, search: PhaseFrontier) -> SearchResult:
        begun.append(search)
        return (
            SearchResult(False, False, "search", "too many domains")
            if len(begun) == 1
            else SearchResult(False, True, "search")
        )

    def tighten(
        task: SearchTask, root: RootBounds, search: PhaseFrontier, tightener: Bounder, seconds: float
    ) -> RootBounds:
        return replace(root, lower=left * root.lower)

    monkeypatch.setattr(techniques, "run_search", search)
    monkeypatch.setattr(techniques, "tightened", tighten)
    task = task_of(problem_of(4, [8, 8], 4))
    found = by_relu_phases(task, root_bounds(task.problem, task.clock, task.observer))
    assert found.proved == (searches == 2)
    assert len(begun) == searches
    assert begun[0] is not begun[-1] or searches == 1


def test_ever_more_restarts_until_one_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    efforts = efforts_of(monkeypatch, lambda number: number == 3)
    task = task_of(problem_of(4, [8, 8], 4))
    spent = replace(task, clock=Clock.started(60, spent=20))
    assert attack_on(spent, torch.tensor([0]), 1)
    full = Settings().attack_restarts
    assert [restarts for restarts, _ in efforts] == [2 * full, 4 * full, 8 * full]
    assert not attack_on(replace(spent, settings=Settings(attack_restarts=0)), torch.tensor([0]), 1)
    assert len(efforts) == 3


def test_restarts_end_with_their_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    efforts = efforts_of(monkeypatch, lambda number: False)
    task = replace(task_of(problem_of(4, [8, 8], 4)), clock=Clock.started(60, spent=0.5))
    assert not attack_on(task, torch.tensor([0]), 1)
    assert efforts
    assert task.clock.elapsed < 5
