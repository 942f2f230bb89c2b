"""A search over phases that is stopped and goes on decides what one that runs through decides."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from distance import unbounded_space

from toolkit.bounds.ascent import Schedule
from toolkit.bounds.interval import Bounds
from toolkit.search.clock import Clock, OutOfTime
from toolkit.search.domains import split
from toolkit.search.plan import SearchPlan
from toolkit.search.relu_split import Outcome, Search, _begin, relu_split

STEPS = Schedule(0)


@dataclass(frozen=True)
class Stopping(Clock):
    """Lets so many checks pass."""

    limit: float
    start: float = 0.0
    passed: list[None] = field(default_factory=list)

    def check(self) -> None:
        self.passed.append(None)
        if len(self.passed) > self.limit:
            raise OutOfTime


def new_search(first: float, second: float, batch: int = 2) -> Search:
    space, domains = unbounded_space(first, second)
    return Search(space, domains, SearchPlan(STEPS, batch, 1000, candidates=1), batch)


def decide(search: Search, clock: Clock) -> Outcome:
    with torch.no_grad():
        return relu_split(search, clock, lambda point, region: False, lambda event: None)


def resumed(search: Search) -> tuple[Outcome, int]:
    """The outcome of a search that is stopped after ever more checks, and how often it was."""
    for checks in range(1000):
        try:
            return decide(search, Stopping(checks)), checks
        except OutOfTime:
            continue
    raise AssertionError("the search does not get anywhere")


@pytest.mark.parametrize("batch", [2, 64])
def test_a_stopped_search_loses_no_domain(batch: int) -> None:
    whole, parts = new_search(-0.001, 0.999, batch), new_search(-0.001, 0.999, batch)
    assert decide(whole, Clock.started(60)) == Outcome(False, True)
    outcome, stops = resumed(parts)
    assert outcome == Outcome(False, True)
    assert stops > 3
    assert parts.progress.bounded == whole.progress.bounded


def test_a_stopped_search_proves_nothing_false() -> None:
    search = new_search(0.001, 0.999)
    outcome, _ = resumed(search)
    assert not outcome.proved


def test_cases_that_were_proved_elsewhere_are_dropped() -> None:
    search = new_search(0.001, 0.999)
    search.inherit(search.space.root, torch.tensor([True, False]))
    assert search.frontier.case.tolist() == [1]
    assert decide(search, Clock.started(60)).proved


def test_better_bounds_refute_domains_and_leave_stable_neurons_whole() -> None:
    search = new_search(-0.001, 0.999)
    search.frontier = split(search.frontier, torch.tensor([0, 0]))  # x0 >= 0 and x0 <= 0, for both cases
    root = search.space.root
    positive = Bounds(root.lower.clone(), root.upper)
    positive.lower[:, 0] = 0.25
    search.inherit(positive, torch.tensor([False, False]))
    assert search.frontier.phase[:, 0].tolist() == [1, 1]
    assert (search.frontier.neuron_lower[:, 0] >= 0.25).all()
    with torch.no_grad():
        _begin(search, Clock.started(60))
    assert len(search.frontier)
    assert not (search.frontier.candidates == 0).any()
    assert decide(search, Clock.started(60)).proved
