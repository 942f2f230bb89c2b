"""The loop of branch and bound on a search of its own: halves of an interval, of which some stay open as leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from toolkit.run.budget import Budget
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import DomainsBounded, RoundDone, SearchBegun
from toolkit.search.loop import (
    BoundedChildren,
    DomainBatch,
    Frontier,
    LeafOutcome,
    PickedDomains,
    SearchProgress,
    branch_and_bound,
)

DEPTH = 4
"""Halvings after which an interval is a leaf: there are 16."""


@dataclass(frozen=True)
class LeafRanges(DomainBatch):
    """Ranges of leaves, by their first one and the number of halvings, ``(B,)`` each."""

    first: Tensor
    depth: Tensor

    @property
    def deepest(self) -> int:
        return int(self.depth.max()) if len(self) else 0


def whole() -> LeafRanges:
    """The range of all leaves."""
    return LeafRanges(*(torch.zeros(1, dtype=torch.int64) for _ in range(3)))


@dataclass(kw_only=True)
class RangeSearch(Frontier[LeafRanges, LeafRanges]):
    """Bounds refute intervals without any of the leaves that are hard; one leaf may be a witness."""

    hard: frozenset[int]
    witness: int = -1
    undecided_because = "leaves are hard"

    def begin(self, clock: Clock) -> list[LeafRanges]:
        return [self.open]

    def _hard(self, domains: LeafRanges) -> Tensor:
        """Which intervals have a leaf that bounds do not refute, ``(B,)``."""
        stops = domains.first + 2 ** (DEPTH - domains.depth)
        spans = list(zip(domains.first.tolist(), stops.tolist(), strict=True))
        wanted = self.hard | {self.witness}
        return torch.tensor([any(start <= leaf < stop for leaf in wanted) for start, stop in spans], dtype=torch.bool)

    def pick(self, count: int) -> PickedDomains[LeafRanges, LeafRanges] | None:
        if not len(self.open):
            return None
        leaves = self.open.depth >= DEPTH
        chosen = torch.zeros(len(self.open), dtype=torch.bool)
        chosen[(leaves if leaves.any() else ~leaves).nonzero().squeeze(1)[:count]] = True
        return PickedDomains(self.open.select(chosen), self.open.select(~chosen), bool(leaves.any()))

    def split(self, domains: LeafRanges, clock: Clock) -> LeafRanges:
        clock.check()
        half = 2 ** (DEPTH - domains.depth - 1)
        return LeafRanges(domains.case.repeat(2), torch.cat([domains.first, domains.first + half]),
                         (domains.depth + 1).repeat(2))  # fmt: skip

    def bound(self, children: LeafRanges, clock: Clock) -> BoundedChildren[LeafRanges]:
        return BoundedChildren(children, children.select(self._hard(children)))

    def find_witness(self, bounded: BoundedChildren[LeafRanges], budget: Budget) -> bool:
        return False

    def decide(self, leaves: LeafRanges, budget: Budget) -> LeafOutcome:
        found = leaves.first.tolist()
        return LeafOutcome(self.witness in found, sum(leaf in self.hard for leaf in found))

    def put(self, rest: LeafRanges, children: LeafRanges) -> None:
        self.open = LeafRanges.concat([rest, children])

    def weakest(self) -> float:
        return -float(len(self.open)) if len(self.open) else math.inf

    def __len__(self) -> int:
        return len(self.open)

    @property
    def divisible(self) -> int:
        return len(self.open)

    def deal(self, count: int) -> list[LeafRanges]:
        return [self.open.select(torch.arange(number, len(self.open), count)) for number in range(count)]

    def joined(self, parts: Sequence[LeafRanges]) -> LeafRanges:
        return LeafRanges.concat(parts)


def search(*hard: int, batch: int = 4, limit: int = 1000, witness: int = -1) -> RangeSearch:
    """A search over all leaves, of which some are hard."""
    return RangeSearch(open=whole(), batch=batch, max_domains=limit, hard=frozenset(hard), witness=witness)


def budget(seconds: float = 60.0, events: list[object] | None = None) -> Budget:
    """Some time, and where to put what is told."""
    told = [] if events is None else events
    return Budget(Clock.started(seconds), lambda point, region: False, told.append)


@pytest.mark.parametrize("batch", [1, 2, 4, 64])
@pytest.mark.parametrize("hard", [(), (3,), (0, 15), (1, 2, 3, 8, 13)])
def test_what_stays_undecided_is_counted_and_nothing_is_proved_then(hard: tuple[int, ...], batch: int) -> None:
    frontier = search(*hard, batch=batch)
    outcome = branch_and_bound(frontier, budget())
    assert (outcome.proved, outcome.witness) == (not hard, False)
    assert frontier.progress.undecided == len(hard)
    assert outcome.reason == (f"{len(hard)} leaves are hard" if hard else "")
    assert not len(frontier)


def test_a_witness_ends_the_search() -> None:
    outcome = branch_and_bound(search(1, 2, witness=9), budget())
    assert (outcome.witness, outcome.proved) == (True, False)


class LuckySearch(RangeSearch):
    """A search that finds a witness at the first points it looks at."""

    def find_witness(self, bounded: BoundedChildren[LeafRanges], budget: Budget) -> bool:
        return True


def test_a_witness_between_children_ends_the_search() -> None:
    frontier = LuckySearch(open=whole(), batch=4, max_domains=1000, hard=frozenset({1}))
    outcome = branch_and_bound(frontier, budget())
    assert (outcome.witness, outcome.proved, frontier.progress.bounded) == (True, False, 2)


def test_the_memory_of_a_domain_is_that_of_a_row_of_each_tensor() -> None:
    @dataclass(frozen=True)
    class Wide(LeafRanges):
        bounds: Tensor

    assert Wide(torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int32),
                torch.zeros(5, dtype=torch.int8), torch.zeros(5, 3, 2)).bytes_each == 8 + 4 + 1 + 6 * 4  # fmt: skip


def test_rounds_and_domains_are_counted_and_told() -> None:
    """One hard leaf: each round halves one interval, so that two are bounded; the tree is in the events."""
    events: list[object] = []
    frontier = search(5)
    branch_and_bound(frontier, budget(events=events))
    progress = frontier.progress
    assert (progress.rounds, progress.bounded, progress.depth) == (DEPTH, 2 * DEPTH, DEPTH)
    rounds = [event for event in events if isinstance(event, RoundDone)]
    assert [event.bounded for event in rounds] == [2, 4, 6, 8]
    assert [event.lower for event in rounds] == [-1.0] * DEPTH
    assert isinstance(events[0], SearchBegun)
    told = [event for event in events if isinstance(event, DomainsBounded)]
    tree = [(event.parents.first.tolist(), event.children.first.tolist(), event.still_open.first.tolist())
            for event in told]  # fmt: skip
    assert tree == [([0], [0, 8], [0]), ([0], [0, 4], [4]), ([4], [4, 6], [4]), ([4], [4, 5], [5])]


def test_the_limit_of_domains_ends_the_search_undecided() -> None:
    outcome = branch_and_bound(search(*range(16), limit=6), budget())
    assert not outcome.proved and not outcome.witness and "limit of 6 domains" in outcome.reason


def test_no_domain_is_lost_where_time_runs_out() -> None:
    """The search goes on from there with more time, and comes to what it would have come to at once."""
    frontier = search(1, 2, 3)
    with pytest.raises(OutOfTime):
        branch_and_bound(frontier, budget(seconds=0.0))
    assert len(frontier) == 1
    outcome = branch_and_bound(frontier, budget())
    assert not outcome.proved and frontier.progress.undecided == 3


class ShortOfMemory(RangeSearch):
    """A search whose device holds two children at a time."""

    def bound(self, children: LeafRanges, clock: Clock) -> BoundedChildren[LeafRanges]:
        if len(children) > 2:
            raise torch.OutOfMemoryError("no room")
        return super().bound(children, clock)


def test_batches_that_do_not_fit_are_bounded_again_smaller() -> None:
    frontier = ShortOfMemory(open=whole(), batch=16, max_domains=1000, hard=frozenset(range(16)))
    outcome = branch_and_bound(frontier, budget())
    assert frontier.progress.undecided == 16 and not outcome.proved
    assert frontier.progress.bounded == 30 and frontier.batch < 16


@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_a_search_are_the_search(count: int) -> None:
    """Leaves that stay undecided in any share, or were before, stay so in the whole; each domain is counted once."""
    frontier, alone = search(0, 1, 7, 12, batch=2), search(0, 1, 7, 12, batch=2)
    for one in (frontier, alone):
        one.max_domains = 8
        branch_and_bound(one, budget())
        one.max_domains = 1000
        one.progress.undecided += 2  # as of leaves that were decided before
    parts = frontier.shares(count)
    for part in parts:
        branch_and_bound(part, budget())
    frontier.gather([part.state() for part in parts])
    outcome, expected = branch_and_bound(frontier, budget()), branch_and_bound(alone, budget())
    assert frontier.progress.undecided == alone.progress.undecided == 6
    assert frontier.progress.bounded == alone.progress.bounded
    assert frontier.progress.depth == alone.progress.depth == DEPTH
    assert not outcome.proved and outcome == expected


def test_domains_are_bounded_more_thoroughly_where_bounds_do_not_rise(tune: Callable[..., None]) -> None:
    tune(phases={"rounds_without_rise": 3})
    progress = SearchProgress()
    for weakest, thoroughness in ((-5, 0), (-5, 0), (-4, 0), (-4, 0), (-4, 0), (-6, 1), (-4, 1), (-3, 1), (-3, 1)):
        progress.watch(float(weakest))
        assert progress.thoroughness == thoroughness, weakest
    assert progress.weakest == -3
