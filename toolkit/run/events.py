"""What happens during a search, for those who watch: progress, logs, statistics, certificates.

The search itself prints nothing; it tells its observers. What events carry exists anyway: nothing is computed for them,
so that they cost nothing where nobody looks into them. Of a search that several processes share, observers hear what
the first process does; who wants to hear of all domains is a `SharedObserver`, which has one for each of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class ProblemBegun:
    """Some cases of the query are looked at as a problem of their own (`toolkit.problem.compile.Problem`): all that
    follows is about this problem, or one that it is reduced to.

    Its boxes are the ``regions`` of the query's ``cases`` (`toolkit.problem.cases.Cases`), its atoms are theirs.
    """

    problem: Any
    regions: Any
    cases: Any


@dataclass(frozen=True)
class RootBounded:
    """The root bounds of a method are known; ``lower`` is the weakest case's bound.

    ``root`` has the bounds of all cases of ``problem``, with their multipliers (`toolkit.search.root.RootBounds`),
    where there are any.
    """

    method: str
    unstable: int
    lower: float
    open_cases: int
    root: Any = None
    problem: Any = None


@dataclass(frozen=True)
class NeuronsBounded:
    """Some neurons of a problem's program have better bounds in its only box, by slopes of their own
    (`toolkit.bounds.bounder.TightenedRows`), or by trees (`toolkit.bounds.bounder.NeuronTrees`)."""

    problem: Any
    rows: Any


@dataclass(frozen=True)
class CaseRefuted:
    """A case of the network as it was compiled was refuted without bounds: by the images of the last layer, one of its
    strict atoms is nowhere below zero."""

    case: int
    atom: int


@dataclass(frozen=True)
class NetworkReduced:
    """What follows is about the network that is left on the boxes, in whose neurons and inputs all else is told."""

    reduction: Any


@dataclass(frozen=True)
class SearchBegun:
    """A search began, or goes on with better bounds of all neurons.

    The frontier (`toolkit.search.loop.Frontier`) has what its domains refer to; all that it began with is in the
    records of ``bounded``, what their bounds refute, too.
    """

    frontier: Any
    bounded: Any


@dataclass(frozen=True)
class DomainsBounded:
    """A round split domains and bounded their children: records of what is split (`toolkit.search.phase_domains`,
    `toolkit.search.input_domains`), with what each domain is, its bound and the multipliers or lines that gave it.

    A child that is not open any more was refuted by its bound. One that is not there was refuted before it was bounded,
    by what its parent's record knows of it. ``clipping`` has the half-spaces and ends of neurons that bounding the
    children relied on, if it did (`toolkit.search.clip_domains.Clipping`).
    """

    parents: Any
    children: Any
    still_open: Any
    clipping: Any = None


@dataclass(frozen=True)
class LeafClosed:
    """A domain with nothing left to split, a record of one, was refuted: by multipliers, or exactly without any."""

    leaf: Any
    by: str
    multipliers: Any = None


@dataclass(frozen=True)
class DomainsRefuted:
    """Open domains, by a mask, were refuted without a bound of their own: by better bounds of all neurons."""

    domains: Any
    refuted: Any


@dataclass(frozen=True)
class RoundDone:
    """One round of branch and bound: domains bounded in all, domains still open, the weakest bound, deepest path."""

    bounded: int
    open: int
    lower: float
    depth: int


@dataclass(frozen=True)
class MemoryShort:
    """The device ran out of memory; the batch is smaller from now on."""

    batch: int


@dataclass(frozen=True)
class NoBounds:
    """Nothing can be proved, for this reason; all that is left is to try points."""

    reason: str


@dataclass(frozen=True)
class PhaseBegun:
    """The query goes on in another way: a word or two that people understand."""

    phase: str
    search: bool = False
    """Whether it is a search, which goes on after other phases in between."""


@dataclass(frozen=True)
class AttackTried:
    """Points were moved towards witnesses, and none is one: the case of each, and its loss at the end of the way."""

    cases: Any
    losses: Any


Event = (
    ProblemBegun
    | RootBounded
    | NeuronsBounded
    | CaseRefuted
    | NetworkReduced
    | SearchBegun
    | DomainsBounded
    | LeafClosed
    | DomainsRefuted
    | RoundDone
    | MemoryShort
    | NoBounds
    | PhaseBegun
    | AttackTried
)


class Observer(Protocol):
    """Anything that wants to know."""

    def __call__(self, event: Event) -> None:
        """Called once for every event, in order."""


def silent(event: Event) -> None:
    """The observer that does not care."""


class ShareObserver(Protocol):
    """An observer of one share of a search, the open domains that are dealt to a forked process. It is made in the
    first process; its copy in the forked one hears the events, and its report is given to the original."""

    def __call__(self, event: Event) -> None:
        """Called in the forked process once for every event of the share, in order."""

    def told(self) -> Any:
        """In the forked process, after the last event: the report for the first process, which can be pickled."""

    def gather(self, told: Any) -> None:
        """In the first process: take in the report of the forked process."""


@runtime_checkable
class SharedObserver(Protocol):
    """An observer that wants to hear of all domains of a search that several processes share."""

    def __call__(self, event: Event) -> None:
        """Called once for every event of the first process, in order."""

    def of_share(self, share: Any) -> ShareObserver:
        """The observer of the share of another process, a frontier with some of the open domains."""


@dataclass(frozen=True)
class ObserverGroup:
    """Several observers as one; each hears of every event, in their order."""

    observers: Sequence[Observer]

    def __call__(self, event: Event) -> None:
        """Tell all of them."""
        for observer in self.observers:
            observer(event)

    def of_share(self, share: Any) -> ShareObserver:
        """An observer of a share for all `SharedObserver` of the group."""
        shared = (observer for observer in self.observers if isinstance(observer, SharedObserver))
        return ShareObserverGroup([observer.of_share(share) for observer in shared])


@dataclass(frozen=True)
class ShareObserverGroup:
    """Several observers of one share as one; each hears of every event. Without any, nobody hears of the share."""

    observers: Sequence[ShareObserver] = ()

    def __call__(self, event: Event) -> None:
        """Tell all of them."""
        for observer in self.observers:
            observer(event)

    def told(self) -> list[Any]:
        """The report of each observer, in their order."""
        return [observer.told() for observer in self.observers]

    def gather(self, told: list[Any]) -> None:
        """Give each observer the report of its copy, in their order."""
        for observer, part in zip(self.observers, told, strict=True):
            observer.gather(part)


def observer_of_share(observer: Observer, share: Any) -> ShareObserver:
    """The observer of the share of another process: that of a `SharedObserver`, or one that nobody hears through."""
    return observer.of_share(share) if isinstance(observer, SharedObserver) else ShareObserverGroup()
