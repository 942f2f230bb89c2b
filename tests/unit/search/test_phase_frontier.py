"""A search over phases that is stopped and goes on decides what one that runs through decides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
import torch
from distance import unbounded_space
from searches import phases, phases_of, random_problem

from toolkit.bounds.interval import Bounds
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import DomainsBounded, Event, LeafClosed, Observer, RoundDone, SearchBegun
from toolkit.search import batch_size
from toolkit.search.batch_size import most_waiting
from toolkit.search.loop import SearchOutcome, begin, branch_and_bound
from toolkit.search.phase_domains import PhaseDomains, proved, split
from toolkit.search.phase_frontier import PhaseFrontier
from toolkit.tuning import tuned


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


MANY = 1000


def new_search(first: float, second: float, batch: int = 2, most: int = MANY) -> PhaseFrontier:
    return phases(*unbounded_space(first, second), 0, batch, 1000, most)


def decide(search: PhaseFrontier, clock: Clock, observer: Observer = lambda event: None) -> SearchOutcome:
    with torch.no_grad():
        return branch_and_bound(search, Budget(clock, lambda point, region: False, observer))


def resumed(search: PhaseFrontier) -> tuple[SearchOutcome, int]:
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
    assert decide(whole, Clock.started(60)) == SearchOutcome(False, True)
    outcome, stops = resumed(parts)
    assert outcome == SearchOutcome(False, True)
    assert stops > 3
    assert parts.progress.bounded == whole.progress.bounded


def test_a_search_goes_deep_where_memory_is_short() -> None:
    def widest(most: int) -> int:
        rounds: list[Event] = []
        search = replace(wide_search(), most=most)
        assert decide(search, Clock.started(60), rounds.append) == SearchOutcome(False, True)
        return max(event.open for event in rounds if isinstance(event, RoundDone))

    assert 2 * widest(2) < widest(MANY)


def wide_search() -> PhaseFrontier:
    """Whether a random network gets below its least value, which takes dozens of domains to refute."""
    problem = random_problem(2.0, inputs=4, hidden=12)
    return phases_of(problem, 2, 2, MANY, MANY)


def test_as_many_domains_wait_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    _, domains = unbounded_space(-0.1, -0.1)
    each = sum(tensor.element_size() * tensor.numel() for tensor in domains.__dict__.values()) // len(domains)
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: 1000 * each)
    assert domains.bytes_each == each
    waiting = len(domains), each, domains.lower.device
    assert most_waiting(*waiting) == int(1000 * tuned().batches.frontier_memory_share)
    monkeypatch.setattr(batch_size, "free_bytes", lambda device: 0)
    assert most_waiting(*waiting) == len(domains)


def test_a_stopped_search_proves_nothing_false() -> None:
    search = new_search(0.001, 0.999)
    outcome, _ = resumed(search)
    assert not outcome.proved


def test_events_tell_the_tree() -> None:
    """Every domain is split once, into two, or closed once, by a proof."""
    events: list[Event] = []
    assert decide(wide_search(), Clock.started(60), events.append) == SearchOutcome(False, True)
    open_now: set[tuple[int, ...]] = set()
    for event in events:
        if isinstance(event, SearchBegun):
            assert not open_now
            open_now = {name for part in event.bounded for name in names(part.select(~proved(part.lower)))}
        elif isinstance(event, DomainsBounded):
            parents, children, still_open = names(event.parents), names(event.children), names(event.still_open)
            assert set(parents) <= open_now
            assert len(children) == len(set(children)) == 2 * len(parents)
            closed = ~torch.tensor([child in still_open for child in children])
            assert bool(proved(event.children.lower[closed]).all())
            open_now = open_now - set(parents) | set(still_open)
        elif isinstance(event, LeafClosed):
            open_now -= set(names(event.leaf))
            assert event.multipliers is not None
    assert not open_now
    assert sum(isinstance(event, DomainsBounded) for event in events) > 10


def names(domains: PhaseDomains) -> list[tuple[int, ...]]:
    """Case and phases of each domain."""
    return [tuple(row) for row in torch.cat([domains.case.unsqueeze(1), domains.phase.long()], 1).tolist()]


def test_cases_that_were_proved_elsewhere_are_dropped() -> None:
    search = new_search(0.001, 0.999)
    search.inherit(search.space.root, torch.tensor([True, False]), lambda event: None)
    assert search.open.case.tolist() == [1]
    assert decide(search, Clock.started(60)).proved


def test_better_bounds_refute_domains_and_leave_stable_neurons_whole() -> None:
    search = new_search(-0.001, 0.999)
    search.open = split(search.open, torch.tensor([0, 0]))  # x0 >= 0 and x0 <= 0, for both cases
    root = search.space.root
    positive = Bounds(root.lower.clone(), root.upper)
    positive.lower[:, 0] = 0.25
    search.inherit(positive, torch.tensor([False, False]), lambda event: None)
    assert search.open.phase[:, 0].tolist() == [1, 1]
    assert (search.open.neuron_lower[:, 0] >= 0.25).all()
    with torch.no_grad():
        begin(search, Budget(Clock.started(60), lambda point, region: False))
    assert len(search.open)
    assert not (search.open.candidates == 0).any()
    assert decide(search, Clock.started(60)).proved
