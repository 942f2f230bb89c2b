"""One search in several processes: shares of what is open are searched side by side, and dealt anew in turns.

A turn lasts until one of the processes has nothing left, has a candidate for a witness, or time is up; then all of them
hand in what they have left. So no core is idle for long, however unequal the shares turn out. While there is too little
for all of them, turns are short. A process that is lost leaves its share as it was, and the search goes on in one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, Protocol, Self, TypeVar

from torch import Tensor

from toolkit.attack.gradient_attack import Accept
from toolkit.run.clock import Clock, OutOfTime
from toolkit.run.events import Observer, RoundDone
from toolkit.run.forked_processes import SharedFlag, side_by_side, worth_starting
from toolkit.search.progress import SearchOutcome, SearchProgress

SECONDS_BEFORE_SHARING = 0.3
"""Seconds that a search takes in one process before others are worth their start, and each time it is too narrow."""
LEAST_TURN_SECONDS = 0.3
"""Seconds that a turn takes at least before a flag ends it."""
LEAST_SHARE_DOMAINS = 16
"""Fewest open domains, or neurons with trees, of a share."""


F = TypeVar("F")
P = TypeVar("P")


@dataclass(frozen=True)
class SearchRemainder(Generic[F, P]):
    """What a search, or a share of one, has left: its frontier, and what it counted and learnt on the way there."""

    frontier: F
    plan: P
    progress: SearchProgress
    undecided: int
    """Domains that nothing decides."""


class DivisibleSearch(Protocol):
    """A search that can be stopped, shared and gone on with."""

    progress: SearchProgress

    @property
    def max_domains(self) -> int:
        """Domains after which the search gives up."""

    @property
    def open(self) -> int:
        """Open domains that can be dealt out."""

    def run(self, clock: Clock, accept: Accept, observer: Observer) -> SearchOutcome:
        """Decide all of it. Raises OutOfTime, after which it goes on from there."""

    def shares(self, count: int) -> list[Self]:
        """Equal shares of what is open."""

    def rest(self) -> SearchRemainder[Any, Any]:
        """What the search has left: its frontier, plan and counters."""

    def gather(self, rests: Sequence[SearchRemainder[Any, Any]]) -> None:
        """Go on from what is left of the shares."""


def search_in_shares(
    search: DivisibleSearch, clock: Clock, accept: Accept, observer: Observer, processes: int
) -> SearchOutcome:
    """Decide all of a search. Raises OutOfTime, after which it goes on from there."""
    began = clock.elapsed
    while processes > 1:
        try:
            return search.run(clock.ending(clock.elapsed + SECONDS_BEFORE_SHARING), accept, observer)
        except OutOfTime:
            clock.check()
        # A search that has taken so long is likely to take as long again.
        while (count := min(processes, search.open // LEAST_SHARE_DOMAINS, worth_starting(clock.elapsed - began))) > 1:
            turn = take_turn(search, count, clock, accept, observer, short=count < processes)
            if turn.witness:
                return SearchOutcome(True, False)
            if turn.lost:
                processes = 1
            if turn.lost or search.progress.bounded >= search.max_domains:
                break
            clock.check()
    return search.run(clock, accept, observer)


@dataclass(frozen=True)
class TurnResult:
    """What came of a turn: whether a witness was accepted, and whether a process was lost."""

    witness: bool
    lost: bool


@dataclass
class TurnReport:
    """What a process comes to in its turn."""

    rest: SearchRemainder[Any, Any]
    candidates: list[tuple[Tensor, int]] = field(default_factory=list)
    """Points that may be witnesses, with their regions: only the process that all began with can replay them."""


class WitnessFound(Exception):  # noqa: N818 - not an error: the search ends
    """A witness was accepted: what the other processes have left does not matter."""


def take_turn(
    search: DivisibleSearch, count: int, clock: Clock, accept: Accept, observer: Observer, short: bool = False
) -> TurnResult:
    """Search shares side by side, this process the first of them, until one of them has no more to do.

    A short turn lasts no longer than turns last at least.
    """
    shares, flag = search.shares(count), SharedFlag()
    if short:
        flag.put_up()
    turn = _TurnRunner(flag, clock)
    works: list[Callable[[], TurnReport]] = [partial(turn.lead, shares[0], accept, observer)]
    works += [partial(turn.follow, share) for share in shares[1:]]
    try:
        reports = side_by_side(works, clock)
    except WitnessFound:
        return TurnResult(True, False)
    # Of a process that is lost, this one still has the share as it was when the turn began.
    pairs = zip(shares, reports, strict=True)
    search.gather([share.rest() if report is None else report.rest for share, report in pairs])
    observer(RoundDone(search.progress.bounded, search.open, search.progress.weakest, search.progress.depth))
    back = [report for report in reports if report is not None]
    found = any(accept(*candidate) for report in back for candidate in report.candidates)
    return TurnResult(found, len(back) < len(reports))


@dataclass(frozen=True)
class _TurnRunner:
    flag: SharedFlag
    clock: Clock

    def lead(self, share: DivisibleSearch, accept: Accept, observer: Observer) -> TurnReport:
        """What the process that all began with does with its share."""
        outcome = self._run(share, accept, observer)
        if outcome is not None and outcome.witness:
            raise WitnessFound
        return TurnReport(share.rest())

    def follow(self, share: DivisibleSearch) -> TurnReport:
        """What a forked one does."""
        candidates: list[tuple[Tensor, int]] = []

        def collect(point: Tensor, region: int) -> bool:
            candidates.append((point.clone(), region))
            self.flag.put_up()
            return False

        self._run(share, collect, lambda event: None)
        return TurnReport(share.rest(), candidates=candidates)

    def _run(self, share: DivisibleSearch, accept: Accept, observer: Observer) -> SearchOutcome | None:
        """What a share comes to, or None where it is not done when the turn ends."""
        try:
            # From here on, not from when the turn began: each gets at least one round done, however late it started.
            clock = self.clock.ending(self.clock.elapsed + LEAST_TURN_SECONDS, lambda: self.flag.is_up)
            return share.run(clock, accept, observer)
        except OutOfTime:
            return None
        finally:
            self.flag.put_up()
