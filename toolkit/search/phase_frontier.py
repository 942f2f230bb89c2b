"""Branch and bound over ReLU phases (beta-CROWN, Wang et al., NeurIPS 2021): complete for piecewise-linear networks.

A domain says which of the unstable neurons are active and which are not. Its children are bounded with slopes and split
multipliers optimised together, then once more with those neurons clipped on which the bound hangs. Where no neuron is
left to split, a linear program decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from toolkit.attack.gradient_attack import accept_best, case_loss
from toolkit.bounds.dual_ascent import Schedule, optimise, stated
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.bounds.optimised_bound import Bound, Domain
from toolkit.run.budget import Budget
from toolkit.run.clock import Clock
from toolkit.run.cuda_graphs import RECORDERS
from toolkit.run.events import DomainsRefuted, Observer
from toolkit.search.branching import RULES, BranchingRule, branch, candidates
from toolkit.search.clip_domains import Clipping, narrow
from toolkit.search.loop import BoundedChildren, Frontier, LeafOutcome, PickedDomains, weakest_of_cases
from toolkit.search.lp_leaf import close_leaves
from toolkit.search.phase_domains import (
    PhaseDomains,
    PhaseSpace,
    bounded,
    expand,
    in_double,
    proved,
)
from toolkit.tuning import tuned


@dataclass(frozen=True)
class PhaseBounding:
    """How domains over phases are bounded, and where they are split."""

    schedule: Schedule
    rule: BranchingRule = RULES["chord"]
    clipped: int = 0
    """Neurons of every open domain that are bounded again where it may have violations."""
    in_bytes: bool = False
    """Whether the slopes of domains that are refuted are such that a byte can state them."""
    most_steps: int = field(default_factory=lambda: tuned().phases.most_ascent_steps)
    """Steps beyond which a search that stalls does not go."""


@dataclass(kw_only=True)
class PhaseFrontier(Frontier[PhaseDomains, PhaseDomains]):
    """Open domains over the phases of one problem's neurons."""

    undecided_because: ClassVar[str] = (
        "leaves stay open: nothing is left to split, and rounding or a smooth operator hides the answer"
    )
    space: PhaseSpace
    bounding: PhaseBounding
    most: int
    """Domains that may wait for their turn, as memory allows."""

    def begin(self, clock: Clock) -> list[PhaseDomains]:
        """Bound all open domains, without clipping where it would have to be stated before they are split."""
        bounding = self.bounding_now
        return self.bound_open(replace(bounding, clipped=0) if bounding.in_bytes else bounding, clock)

    def bound_open(self, bounding: PhaseBounding, clock: Clock) -> list[PhaseDomains]:
        """Bound all open domains in this way, and keep those that are not refuted; all are returned, in batches."""
        parts = [bound_domains(self.space, part, bounding, clock)[0] for part in self.open.parts(self.batch)]
        self.open = self.unproved(PhaseDomains.concat(parts))
        return parts

    @property
    def bounding_now(self) -> PhaseBounding:
        """How domains are bounded now: by twice as many ascent steps, up to a limit, for each time the search stalled.

        It helps where splits do not raise the bound: a domain that no input satisfies is only recognised when its split
        multipliers have grown large.
        """
        steps = self.bounding.schedule.iterations
        steps = max(steps, min(steps << self.progress.thoroughness, self.bounding.most_steps))
        return replace(self.bounding, schedule=replace(self.bounding.schedule, iterations=steps))

    def pick(self, count: int) -> PickedDomains[PhaseDomains, PhaseDomains] | None:
        """All leaves, if there are any; else the domains with the weakest bounds, up to so many.

        Where the children might be more than ``most`` with those that wait, it is the strongest: nearer to their
        proofs, these are fewer before long, and the search goes deep instead of wide.
        """
        if not len(self.open):
            return None
        leaves = (self.open.candidates < 0).all(1)
        if bool(leaves.any()):
            return PickedDomains(self.open.select(leaves), self.open.select(~leaves), leaves=True)
        if len(self.open) <= count:
            return PickedDomains(self.open, self.open.select(torch.zeros(0, dtype=torch.int64, device=leaves.device)))
        order = self.open.lower.argsort(descending=len(self.open) + count > self.most)
        return PickedDomains(self.open.select(order[:count]), self.open.select(order[count:]))

    def split(self, domains: PhaseDomains, clock: Clock) -> PhaseDomains:
        """Both children of every domain, at the neuron that the branching rule prefers."""
        return branch(self.space, domains, clock)

    def bound(self, children: PhaseDomains, clock: Clock) -> BoundedChildren[PhaseDomains]:
        """Bound every domain, and choose where each may be split next."""
        children, points, clipping = bound_domains(self.space, children, self.bounding_now, clock)
        return BoundedChildren(children, self.unproved(children), points, clipping)

    def unproved(self, domains: PhaseDomains) -> PhaseDomains:
        """The domains that are not refuted."""
        return domains.select(~proved(domains.lower))

    def find_witness(self, bounded: BoundedChildren[PhaseDomains], budget: Budget) -> bool:
        """Try the minimisers of the bounds, the most promising first."""
        problem, case, points = self.space.problem, bounded.children.case, bounded.points
        return points is not None and accept_best(
            points, case_loss(problem, points, case), problem.region[case], budget.accept
        )

    def decide(self, leaves: PhaseDomains, budget: Budget) -> LeafOutcome:
        """Decide leaves by linear programs, exactly if need be."""
        return close_leaves(self.space, leaves, budget)

    def put(self, rest: PhaseDomains, children: PhaseDomains) -> None:
        """Keep both as one record."""
        self.open = PhaseDomains.concat([rest, children])

    def weakest(self) -> float:
        """The weakest bound of all open domains."""
        return float(self.open.lower.min()) if len(self.open) else float("inf")

    def weakest_by_case(self) -> dict[int, float]:
        """The weakest bound of the open domains of each case."""
        return weakest_of_cases(self.open.case, self.open.lower)

    def __len__(self) -> int:
        return len(self.open)

    @property
    def divisible(self) -> int:
        """Open domains, but none before all are bounded."""
        return len(self.open) if self.begun else 0

    def deal(self, count: int) -> list[PhaseDomains]:
        """Equal parts of the open domains, weak and strong ones in each."""
        order = self.open.lower.argsort()
        return [self.open.select(order[number::count]) for number in range(count)]

    def joined(self, parts: Sequence[PhaseDomains]) -> PhaseDomains:
        """All domains of several records."""
        return PhaseDomains.concat(parts)

    def shares(self, count: int) -> list[PhaseFrontier]:
        """Searches of equal parts of the open domains, and of the memory for those that wait."""
        return [replace(share, most=max(1, self.most // count)) for share in super().shares(count)]

    def inherit(self, root: Bounds, closed: Tensor, observer: Observer) -> None:
        """Go on with better root bounds of all neurons, without the cases ``(C,)`` bool that they prove.

        Both these bounds and a domain's own hold wherever it may have a violation, so where they contradict each other
        it has none.
        """
        self.space = replace(self.space, root=self.space.root.intersect(root))
        domains = self.open.select(~closed[self.open.case])
        region = self.space.problem.region[domains.case]
        lower = torch.fmax(domains.neuron_lower, self.space.of(root.lower)[region])
        upper = torch.fmin(domains.neuron_upper, self.space.of(root.upper)[region])
        refuted = (lower > upper).any(1)
        domains = replace(domains, neuron_lower=lower, neuron_upper=upper)
        observer(DomainsRefuted(domains, refuted))
        self.open = domains.select(~refuted)
        self.begun = False  # what would be split next may be stable now


def bound_domains(
    space: PhaseSpace, domains: PhaseDomains, bounding: PhaseBounding, clock: Clock
) -> tuple[PhaseDomains, Tensor, Clipping | None]:
    """Bound every domain, and choose where each may be split next; with the minimisers of the bounds, ``(B, n)``, and
    what clipping says, where it was done."""
    clock.check()
    domain, _ = expand(space, domains)
    bound = improve(space, domains, bounding.schedule, clock)
    bounds, bound, clipping = narrow(space.problem.program, domain, bound, bounding.clipped, clock, bounding.in_bytes)
    domain = replace(domain, bounds=bounds)
    bound = in_double(space, domains.case, domain, bound)
    bound = proved_in_bytes(space, domains.case, domain, bound) if bounding.in_bytes else bound
    score = bounding.rule.score(space.problem.program, bounds, bound)
    splittable = unstable_neurons(space.problem.program, bounds) & (domain.phase == 0)
    found = candidates(space.of(score), space.of(splittable), bounding.rule.candidates)
    return bounded(space, domains, bounds, bound, found), bound.point, clipping


def proved_in_bytes(space: PhaseSpace, cases: Tensor, domain: Domain, bound: Bound) -> Bound:
    """The bounds of domains of these cases, ``(B,)``; those that are proofs with slopes that a byte can state."""
    done = proved(bound.lower).nonzero().squeeze(1)
    if not len(done):
        return bound
    some = domain.select(done)
    again = in_double(space, cases[done], some, stated(space.problem.program, some, bound.select(done)))
    return bound.put(done, again)


def improve(space: PhaseSpace, domains: PhaseDomains, schedule: Schedule, clock: Clock) -> Bound:
    """The bound of every domain with multipliers improved from its own.

    On a device that records, all domains take all steps: sizes that follow from values cannot be recorded.
    """
    records = space.problem.program.device.type in RECORDERS
    schedule = replace(schedule, until_proved=False) if records else schedule

    def improved(domains: PhaseDomains) -> Bound:
        domain, start = expand(space, domains)
        return optimise(space.problem.program, domain, start, schedule, clock.check)

    return space.recordings.run(schedule, improved, domains) if records else improved(domains)
