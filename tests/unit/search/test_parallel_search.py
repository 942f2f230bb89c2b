"""A search in shares decides what one process decides, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from searches import box_search, phase_search
from torch import Tensor

from toolkit.attack.gradient_attack import Accept
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Event, RoundDone
from toolkit.search import parallel_search
from toolkit.search.loop import Frontier, SearchOutcome, branch_and_bound
from toolkit.search.parallel_search import search_in_shares

Search = Frontier[Any, Any]
Make = Callable[..., Search]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
SEARCHES = pytest.mark.parametrize("make", [phase_search, box_search])
PROVED = SearchOutcome(False, True)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]) -> None:
    """Shares from the first round on, however small, and short turns of any number of processes."""
    tune(processes={"seconds_to_fork": 1e-9})
    tune(sharing={"seconds_before": 0.01, "least_turn_seconds": 0.01, "least_domains": 1})


def nobody(point: Tensor, region: int) -> bool:
    return False


def decide(search: Search, processes: int, accept: Accept = nobody, limit: float = 60.0) -> SearchOutcome:
    with torch.no_grad():
        return search_in_shares(search, Budget(Clock.started(limit), accept), processes)


def watched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of shares of the turns that are taken."""
    turns: list[int] = []
    take = parallel_search.take_turn

    def counted(search: Search, count: int, *rest: object, **options: bool) -> parallel_search.TurnResult:
        turns.append(count)
        return take(search, count, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(parallel_search, "take_turn", counted)
    return turns


@SEARCHES
@pytest.mark.parametrize("processes", [2, 3])
def test_shares_prove_what_one_process_proves(make: Make, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = watched(monkeypatch)
    alone, shared = make(), make()
    assert decide(alone, 1) == PROVED
    assert not turns
    assert decide(shared, processes) == PROVED
    assert max(turns) > 1
    assert shared.progress.bounded > 0
    assert shared.progress.depth > 0
    assert shared.divisible == 0


@SEARCHES
def test_all_processes_get_a_share_as_soon_as_there_is_enough(
    make: Make, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    """How many domains the first process opens before others join it depends on the machine; so does what is enough."""
    turns = watched(monkeypatch)
    for least in (4, 6, 8, 10, 12, 14, 16):
        turns.clear()
        tune(sharing={"least_domains": least})
        assert decide(make(), 6) == PROVED
        few = turns[: turns.index(6)] if 6 in turns else []
        assert few == sorted(few)
        if few:
            return
    raise AssertionError("all processes began at once, or never")


@SEARCHES
def test_a_witness_is_replayed_in_the_first_process_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that a fork finds comes back: here the first process refuses what it finds itself."""
    turns, here = watched(monkeypatch), os.getpid()
    replayed: list[int] = []

    def accept(point: Tensor, region: int) -> bool:
        replayed.append(os.getpid())
        return bool(turns) and len(replayed) > 3

    search = make(satisfiable=True)
    assert decide(search, 2, accept) == SearchOutcome(True, False)
    assert turns
    assert set(replayed) == {here}


@SEARCHES
def test_refused_witnesses_are_never_a_proof(make: Make) -> None:
    outcome = decide(make(satisfiable=True, max_domains=300), 2)
    assert not outcome.witness
    assert not outcome.proved
    assert outcome.reason


@SEARCHES
def test_a_lost_process_loses_no_domain(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, here = watched(monkeypatch), os.getpid()

    def lost_elsewhere(search: Search, budget: Budget) -> SearchOutcome:
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return branch_and_bound(search, budget)

    monkeypatch.setattr(parallel_search, "branch_and_bound", lost_elsewhere)
    assert decide(make(), 2) == PROVED
    assert turns == [2]  # and then one process


@SEARCHES
def test_a_search_goes_on_where_no_process_can_be_started(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    turns = watched(monkeypatch)
    monkeypatch.setattr(os, "fork", refuse)
    assert decide(make(), 3) == PROVED
    assert len(turns) == 1  # and then one process


@SEARCHES
def test_a_stopped_search_goes_on(make: Make) -> None:
    search, stops = make(), 0
    while (outcome := stopped(search, 0.1)) is None:
        stops += 1
    assert outcome == PROVED
    assert stops > 0


def stopped(search: Search, limit: float) -> SearchOutcome | None:
    """The outcome of so many seconds, or None where they are too few."""
    try:
        return decide(search, 2, limit=limit)
    except OutOfTime:
        return None


@SEARCHES
def test_all_domains_are_dealt(make: Make) -> None:
    search, rounds = make(), iter(range(9))
    clock = Clock.started(60).ending(0.0, lambda: next(rounds) == 8)
    with torch.no_grad(), pytest.raises(OutOfTime):
        branch_and_bound(search, Budget(clock, nobody))
    count = search.divisible
    assert count > 3
    dealt = search.shares(3)
    sizes = [share.divisible for share in dealt]
    assert sum(sizes) == count
    assert max(sizes) - min(sizes) <= 1
    search.gather([share.state() for share in dealt])
    assert search.divisible == count


def test_turns_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    search = phase_search()
    with torch.no_grad():
        search_in_shares(search, Budget(Clock.started(60), nobody, events.append), 2)
    last = [event for event in events if isinstance(event, RoundDone)][-1]
    assert last.open == 0
    assert last.bounded == search.progress.bounded
