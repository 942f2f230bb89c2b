"""Branch and bound, written once, whatever is split: ReLU phases, input boxes, or the trees of single neurons.

Pick open domains, split each, bound the children, close what is refuted, look for witnesses among the rest, and decide
by themselves those that have nothing left to split (Bunel et al., JMLR 2020). A `Frontier` says what a domain is and
how each of these steps is done; time, memory, limits, counters and what observers are told are here, for all of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from torch import Tensor

from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.run.events import DomainsBounded, RoundDone, SearchBegun
from toolkit.search.batch_size import refusals, smaller_batch
from toolkit.tuning import tuned


@dataclass(frozen=True)
class DomainBatch(ABC):
    """Domains as one record of tensors, each of which has a row for every domain."""

    case: Tensor
    """The case that each domain belongs to, ``(B,)`` int64."""

    def __len__(self) -> int:
        return len(self.case)

    @property
    @abstractmethod
    def deepest(self) -> int:
        """Splits on the longest path to one of the domains."""

    @property
    def bytes_each(self) -> int:
        """Memory that one domain takes, in bytes."""
        tensors = [getattr(self, field.name) for field in fields(self)]
        return sum(tensor.element_size() * math.prod(tensor.shape[1:]) for tensor in tensors)

    def select(self, index: Tensor) -> Self:
        """Some of the domains, by position or mask."""
        # A mask's positions are found once, not once for every tensor: each time, the host waits for the device.
        at = index.nonzero().squeeze(1) if index.dtype == torch.bool else index
        return type(self)(*(getattr(self, field.name).index_select(0, at) for field in fields(self)))

    @classmethod
    def concat(cls, parts: Sequence[Self]) -> Self:
        """All domains of several records."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))


D = TypeVar("D", bound=DomainBatch)
"""Domains of one kind."""
C = TypeVar("C")
"""The container of the open domains."""


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found: a witness was accepted, everything is proved, or neither, with the reason."""

    witness: bool
    proved: bool
    reason: str = ""


@dataclass
class SearchProgress:
    """Counters of one search."""

    rounds: int = 0
    bounded: int = 0
    """Domains that were bounded."""
    depth: int = 0
    """Splits on the longest path."""
    undecided: int = 0
    """Domains with nothing left to split that nothing decides."""
    weakest: float = -float("inf")
    """Weakest bound of all open domains."""
    stalled: int = 0
    """Rounds since the weakest bound last rose, or since domains were last bounded more thoroughly."""
    thoroughness: int = 0
    """How often it was decided to bound domains more thoroughly."""

    def count(self, bounded: int, depth: int) -> None:
        """Count one more round, which bounded so many domains, the deepest of this depth."""
        self.rounds += 1
        self.bounded += bounded
        self.depth = max(self.depth, depth)

    def watch(self, weakest: float) -> None:
        """Take note of the weakest bound after a round, and see whether the search stalls."""
        self.stalled = 0 if weakest > self.weakest else self.stalled + 1
        self.weakest = max(weakest, self.weakest)
        if self.stalled >= tuned().phases.rounds_without_rise:
            self.stalled, self.thoroughness = 0, self.thoroughness + 1

    def with_parts(self, parts: Sequence[SearchProgress]) -> SearchProgress:
        """The counters after parts of the search went on from these in processes of their own."""
        return SearchProgress(
            rounds=max(part.rounds for part in parts),
            bounded=self.bounded + sum(part.bounded - self.bounded for part in parts),
            depth=max(part.depth for part in parts),
            undecided=self.undecided + sum(part.undecided - self.undecided for part in parts),
            weakest=min(part.weakest for part in parts),
            stalled=min(part.stalled for part in parts),
            thoroughness=parts[0].thoroughness,
        )


@dataclass(frozen=True)
class PickedDomains(Generic[D, C]):
    """The domains that are split or decided next, and the other open ones."""

    domains: D
    rest: C
    leaves: bool = False
    """Whether they have nothing left to split."""


@dataclass(frozen=True)
class BoundedChildren(Generic[D]):
    """The children of some domains, with what bounding them gave."""

    children: D
    still_open: D
    """The children that are not refuted by their bounds."""
    points: Tensor | None = None
    """Where the atoms are smallest by each child's bound, ``(B, n)``, if the bound says so."""
    clipping: Any = None
    """Half-spaces and neuron bounds by clipping (`toolkit.search.clip_domains.Clipping`); None without it."""


@dataclass(frozen=True)
class LeafOutcome:
    """The outcome of deciding some leaves: whether a witness was accepted, and how many stay undecided."""

    witness: bool
    undecided: int


@dataclass(kw_only=True)
class Frontier(ABC, Generic[D, C]):
    """The open domains of one search with its counters, and how its domains are picked, split, bounded and decided."""

    open: C
    """Domains that are not decided. They leave it only once it is known what becomes of them."""
    batch: int
    """Most domains bounded at once; it shrinks where memory is short."""
    max_domains: int
    """Domains after which the search gives up."""
    progress: SearchProgress = field(default_factory=SearchProgress)
    begun: bool = False
    """Whether the open domains are bounded, and where each may be split is known."""
    undecided_because: ClassVar[str] = "domains stay open"
    """How the reason for giving up goes on after the number of leaves that stay undecided."""

    @abstractmethod
    def begin(self, clock: Clock) -> list[D]:
        """Bound the open domains, in batches, and drop what is refuted; all that was bounded. Raises OutOfTime."""

    @abstractmethod
    def pick(self, count: int) -> PickedDomains[D, C] | None:
        """Up to so many domains to split next, or some that have nothing left to split; None where all is done."""

    @abstractmethod
    def split(self, domains: D, clock: Clock) -> D:
        """The children of some domains. Raises OutOfTime."""

    @abstractmethod
    def bound(self, children: D, clock: Clock) -> BoundedChildren[D]:
        """Bound children, and see which of them stay open. Raises OutOfTime."""

    @abstractmethod
    def find_witness(self, bounded: BoundedChildren[D], budget: Budget) -> bool:
        """Try the most promising points of some domains. Raises OutOfTime."""

    @abstractmethod
    def decide(self, leaves: D, budget: Budget) -> LeafOutcome:
        """Decide domains that have nothing left to split, as far as that can be done. Raises OutOfTime."""

    @abstractmethod
    def put(self, rest: C, children: D) -> None:
        """Keep the other open domains together with the children that stay open."""

    @abstractmethod
    def weakest(self) -> float:
        """The weakest bound of all open domains."""

    def weakest_by_case(self) -> dict[int, float]:
        """The weakest bound of the open domains of each case of the problem; empty of searches about something else."""
        return {}

    @abstractmethod
    def __len__(self) -> int:
        """Number of open domains."""

    @property
    @abstractmethod
    def divisible(self) -> int:
        """Open domains that can be dealt out among processes."""

    @abstractmethod
    def deal(self, count: int) -> list[C]:
        """Equal parts of what is open."""

    @abstractmethod
    def joined(self, parts: Sequence[C]) -> C:
        """The open domains of several parts together."""

    def shares(self, count: int) -> list[Self]:
        """Searches of equal parts of what is open."""
        return [replace(self, open=part, progress=replace(self.progress)) for part in self.deal(count)]

    def state(self) -> tuple[C, SearchProgress]:
        """The open domains and counters of a share: what its process hands in, as the first one knows all else."""
        return self.open, self.progress

    def gather(self, states: Sequence[tuple[C, SearchProgress]]) -> None:
        """Take over the open domains and counters that the processes of all shares handed in."""
        self.open = self.joined([part for part, _ in states])
        self.progress = self.progress.with_parts([progress for _, progress in states])


def weakest_of_cases(case: Tensor, lower: Tensor) -> dict[int, float]:
    """The weakest of the bounds ``(B,)`` of domains with the same ``case``, ``(B,)``, by that."""
    cases, number = case.unique(return_inverse=True)
    weakest = torch.full((len(cases),), torch.inf, dtype=lower.dtype, device=lower.device)
    weakest = weakest.scatter_reduce(0, number, lower, "amin")
    return dict(zip(cases.cpu().numpy().tolist(), weakest.cpu().numpy().tolist(), strict=True))


def branch_and_bound(frontier: Frontier[Any, Any], budget: Budget) -> SearchOutcome:
    """Decide all open domains. Raises OutOfTime; called again with more time, the search goes on from there."""
    begin(frontier, budget)
    progress, clock = frontier.progress, budget.clock
    while picked := frontier.pick(max(1, frontier.batch // 2)):
        clock.check_round()
        if picked.leaves:
            found = frontier.decide(picked.domains, budget)
            if found.witness:
                return SearchOutcome(True, False)
            frontier.open, progress.undecided = picked.rest, progress.undecided + found.undecided
            continue
        if progress.bounded >= frontier.max_domains:
            return SearchOutcome(False, False, f"the limit of {frontier.max_domains} domains was reached")
        try:
            with refusals():
                bounded = frontier.bound(frontier.split(picked.domains, clock), clock)
                witness = frontier.find_witness(bounded, budget)
        except torch.OutOfMemoryError:
            frontier.batch = smaller_batch(frontier.batch, budget.observer)
            continue
        progress.count(len(bounded.children), bounded.children.deepest)
        if witness:
            return SearchOutcome(True, False)
        frontier.put(picked.rest, bounded.still_open)
        progress.watch(frontier.weakest())
        budget.observer(DomainsBounded(picked.domains, bounded.children, bounded.still_open, bounded.clipping))
        budget.observer(RoundDone(progress.bounded, len(frontier), progress.weakest, progress.depth))
    if progress.undecided:
        return SearchOutcome(False, False, f"{progress.undecided} {frontier.undecided_because}")
    return SearchOutcome(False, True)


def begin(frontier: Frontier[Any, Any], budget: Budget) -> None:
    """Bound the open domains of a search that begins, or goes on with better neuron bounds, in batches that fit."""
    while len(frontier) and not frontier.begun:
        try:
            with refusals():
                bounded = frontier.begin(budget.clock)
        except torch.OutOfMemoryError:
            frontier.batch = smaller_batch(frontier.batch, budget.observer)
            continue
        frontier.begun = True
        budget.observer(SearchBegun(frontier, bounded))
