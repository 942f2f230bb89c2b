"""One search in several processes: shares of what is open are searched side by side, and dealt anew in turns.

A turn lasts until one of the processes has nothing left, has a candidate for a witness, or time is up; then all of them
hand in what they have left. So no core is idle for long, however unequal the shares turn out. While there is too little
for all of them, turns are short. A process that is lost leaves its share as it was, and the search goes on in one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import Tensor

from toolkit.run.budget import Budget
from toolkit.run.clock import OutOfTime
from toolkit.run.events import RoundDone, ShareObserver, observer_of_share
from toolkit.run.forked_processes import SharedFlag, side_by_side, worth_starting
from toolkit.search.loop import Frontier, SearchOutcome, SearchProgress, branch_and_bound
from toolkit.tuning import tuned


def search_in_shares(search: Frontier[Any, Any], budget: Budget, processes: int) -> SearchOutcome:
    """Decide all of a search. Raises OutOfTime, after which it goes on from there."""
    clock = budget.clock
    began = clock.elapsed
    while processes > 1:
        try:
            alone = clock.ending(clock.elapsed + tuned().sharing.seconds_before)
            return branch_and_bound(search, budget.within(alone))
        except OutOfTime:
            clock.check()
        # A search that has taken so long is likely to take as long again.
        while (count := min(processes, shares_of(search), worth_starting(clock.elapsed - began))) > 1:
            turn = take_turn(search, count, budget, short=count < processes)
            if turn.witness:
                return SearchOutcome(True, False)
            if turn.lost:
                processes = 1
            if turn.lost or search.progress.bounded >= search.max_domains:
                break
            clock.check()
    return branch_and_bound(search, budget)


def shares_of(search: Frontier[Any, Any]) -> int:
    """The most shares that what is open can be dealt into."""
    return search.divisible // tuned().sharing.least_domains


@dataclass(frozen=True)
class TurnResult:
    """The outcome of a turn: whether a witness was accepted, and whether a process was lost."""

    witness: bool
    lost: bool


@dataclass
class TurnReport:
    """What a process hands in at the end of a turn."""

    state: tuple[Any, SearchProgress]
    """The open domains of its share, with its counters."""
    candidates: list[tuple[Tensor, int]] = field(default_factory=list)
    """Points that may be witnesses, with their regions: only the process that all began with can replay them."""
    told: Any = None
    """The report of the share's observer (`toolkit.run.events.ShareObserver`)."""


class WitnessFound(Exception):  # noqa: N818 - not an error: the search ends
    """A witness was accepted: what the other processes have left does not matter."""


def take_turn(search: Frontier[Any, Any], count: int, budget: Budget, short: bool = False) -> TurnResult:
    """Search shares side by side, this process the first of them, until one of them has no more to do.

    A short turn lasts no longer than turns last at least.
    """
    shares, flag = search.shares(count), SharedFlag()
    if short:
        flag.put_up()
    turn = _TurnRunner(flag, budget)
    observers = [observer_of_share(budget.observer, share) for share in shares[1:]]
    works: list[Callable[[], TurnReport]] = [partial(turn.lead, shares[0])]
    works += [partial(turn.follow, *follower) for follower in zip(shares[1:], observers, strict=True)]
    try:
        reports = side_by_side(works, budget.clock)
    except WitnessFound:
        return TurnResult(True, False)
    # Of a process that is lost, this one still has the share as it was when the turn began.
    pairs = zip(shares, reports, strict=True)
    search.gather([share.state() if report is None else report.state for share, report in pairs])
    for observer, report in zip(observers, reports[1:], strict=True):
        if report is not None:
            observer.gather(report.told)
    budget.observer(
        RoundDone(search.progress.bounded, search.divisible, search.progress.weakest, search.progress.depth)
    )
    back = [report for report in reports if report is not None]
    found = any(budget.accept(*candidate) for report in back for candidate in report.candidates)
    return TurnResult(found, len(back) < len(reports))


@dataclass(frozen=True)
class _TurnRunner:
    flag: SharedFlag
    budget: Budget

    def lead(self, share: Frontier[Any, Any]) -> TurnReport:
        """Search the first share, in the process that all shares began with. Raises WitnessFound."""
        outcome = self._run(share, self.budget)
        if outcome is not None and outcome.witness:
            raise WitnessFound
        return TurnReport(share.state())

    def follow(self, share: Frontier[Any, Any], observer: ShareObserver) -> TurnReport:
        """Search another share, in a forked process, and collect the candidates for a witness."""
        candidates: list[tuple[Tensor, int]] = []

        def collect(point: Tensor, region: int) -> bool:
            candidates.append((point.clone(), region))
            self.flag.put_up()
            return False

        self._run(share, Budget(self.budget.clock, collect, observer))
        return TurnReport(share.state(), candidates, observer.told())

    def _run(self, share: Frontier[Any, Any], budget: Budget) -> SearchOutcome | None:
        """The outcome of searching a share, or None where it is not done when the turn ends."""
        try:
            # From here on, not from when the turn began: each gets at least one round done, however late it started.
            clock = budget.clock
            clock = clock.ending(clock.elapsed + tuned().sharing.least_turn_seconds, lambda: self.flag.is_up)
            return branch_and_bound(share, budget.within(clock))
        except OutOfTime:
            return None
        finally:
            self.flag.put_up()
