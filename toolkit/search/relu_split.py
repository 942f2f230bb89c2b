"""Branch and bound over ReLU phases (beta-CROWN, Wang et al., NeurIPS 2021): complete for piecewise-linear networks.

Pick open domains, split each at its most promising neuron, bound the children with slopes and split multipliers
optimised together, close what is proved, decide exactly what has nothing left to split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from toolkit.attack.gradient_attack import Accept, accept_best, case_loss
from toolkit.bounds.crown import intersect
from toolkit.bounds.dual_ascent import Schedule, optimise
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.bounds.optimised_bound import Bound
from toolkit.run.clock import Clock
from toolkit.run.cuda_graphs import RECORDERS
from toolkit.run.events import Observer, RoundDone
from toolkit.search.batch_size import refusals, smaller_batch
from toolkit.search.branching_scores import candidates, chord
from toolkit.search.clip_domains import narrow
from toolkit.search.double_recheck import in_double
from toolkit.search.lp_leaf import close_leaves
from toolkit.search.parallel_search import SearchRemainder
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, bounded, concat, expand, proved, with_bounds
from toolkit.search.progress import SearchOutcome, SearchProgress
from toolkit.search.relu_split_plan import PhaseSearchPlan
from toolkit.search.split_domains import branch

ROUNDS_WITHOUT_RISE = 6
"""Rounds without a rise of the weakest bound after which domains are bounded more thoroughly."""


@dataclass
class PhaseSearch:
    """A search and how far it has come: one that its clock stopped goes on from there."""

    space: PhaseSpace
    frontier: PhaseDomains
    """What is not decided."""
    plan: PhaseSearchPlan
    batch: int
    most: int
    """Domains that may wait for their turn, as memory allows."""
    progress: SearchProgress = field(default_factory=SearchProgress)
    begun: bool = False
    """Whether the frontier is bounded, with the neurons at which it may be split."""
    undecided: int = 0
    """Leaves that nothing decides."""

    @property
    def max_domains(self) -> int:
        """Domains after which the search gives up."""
        return self.plan.max_domains

    @property
    def open(self) -> int:
        """Open domains that can be dealt out: none before all are bounded."""
        return len(self.frontier) if self.begun else 0

    def run(self, clock: Clock, accept: Accept, observer: Observer) -> SearchOutcome:
        """Decide all domains. Raises OutOfTime."""
        return relu_split(self, clock, accept, observer)

    def shares(self, count: int) -> list[PhaseSearch]:
        """Equal shares of the frontier, weak and strong domains in each, and of the memory for those that wait."""
        order = self.frontier.lower.argsort()
        parts = [self.frontier.select(order[number::count]) for number in range(count)]
        most = max(1, self.most // count)
        return [replace(self, frontier=part, most=most, progress=replace(self.progress), undecided=0) for part in parts]

    def rest(self) -> SearchRemainder[PhaseDomains, PhaseSearchPlan]:
        """What the search has left: its open domains, plan and counters."""
        return SearchRemainder(self.frontier, self.plan, self.progress, self.undecided)

    def gather(self, rests: Sequence[SearchRemainder[PhaseDomains, PhaseSearchPlan]]) -> None:
        """Go on from what is left of the shares."""
        self.frontier = concat([rest.frontier for rest in rests])
        self.plan, self.progress = rests[0].plan, self.progress.with_parts([rest.progress for rest in rests])
        self.undecided += sum(rest.undecided for rest in rests)

    def inherit(self, root: Bounds, closed: Tensor) -> None:
        """Go on with better root bounds of all neurons, without the cases ``(C,)`` bool that they prove.

        Both these bounds and a domain's own hold wherever it may have a violation, so where they contradict each other
        it has none.
        """
        self.space = replace(self.space, root=intersect(self.space.root, root))
        frontier = self.frontier.select(~closed[self.frontier.case])
        region = self.space.problem.region[frontier.case]
        lower = torch.fmax(frontier.neuron_lower, self.space.of(root.lower)[region])
        upper = torch.fmin(frontier.neuron_upper, self.space.of(root.upper)[region])
        refuted = (lower > upper).any(1)
        self.frontier = replace(frontier, neuron_lower=lower, neuron_upper=upper).select(~refuted)
        self.begun = False  # what would be split next may be stable now


def relu_split(search: PhaseSearch, clock: Clock, accept: Accept, observer: Observer) -> SearchOutcome:
    """Decide all domains of a search. Raises OutOfTime when the clock runs out.

    Domains leave the frontier only once it is known what becomes of them.
    """
    _begin(search, clock, observer)
    space, progress = search.space, search.progress
    while len(search.frontier):
        clock.check_round()
        divisible, leaves = set_leaves_apart(search.frontier)
        if len(leaves):
            found = close_leaves(space, leaves, accept, clock)
            if found.witness:
                return SearchOutcome(True, False)
            search.frontier, search.undecided = divisible, search.undecided + found.undecided
            continue
        if progress.bounded >= search.plan.max_domains:
            return SearchOutcome(False, False, f"the limit of {search.plan.max_domains} domains was reached")
        if progress.stalled >= ROUNDS_WITHOUT_RISE:
            search.plan, progress.stalled = search.plan.more_thorough(), 0
        chosen, rest = pick(search.frontier, max(1, search.batch // 2), search.most)
        try:
            with refusals():
                children, bound = bound_domains(space, branch(space, chosen, clock), search.plan, clock)
        except torch.OutOfMemoryError:
            search.batch = smaller_batch(search.batch, observer)
            continue
        progress.count(len(children), children.depth)
        if accept_points(space, children, bound, accept):
            return SearchOutcome(True, False)
        search.frontier = concat([rest, children.select(~proved(children.lower))])
        progress.watch(_weakest(search.frontier))
        observer(RoundDone(progress.bounded, len(search.frontier), progress.weakest, progress.depth))
    if search.undecided:
        why = "nothing is left to split, and rounding or a smooth operator hides the answer"
        return SearchOutcome(False, False, f"{search.undecided} leaves stay open: {why}")
    return SearchOutcome(False, True)


def _begin(search: PhaseSearch, clock: Clock, observer: Observer) -> None:
    """Bound the domains that the search begins or goes on with."""
    while not search.begun and len(search.frontier):
        parts = search.frontier.parts(search.batch)
        try:
            with refusals():
                bounded = concat([bound_domains(search.space, part, search.plan, clock)[0] for part in parts])
        except torch.OutOfMemoryError:
            search.batch = smaller_batch(search.batch, observer)
            continue
        search.frontier, search.begun = bounded.select(~proved(bounded.lower)), True


def set_leaves_apart(frontier: PhaseDomains) -> tuple[PhaseDomains, PhaseDomains]:
    """Domains with something left to split, and those without."""
    leaves = (frontier.candidates < 0).all(1)
    return (frontier.select(~leaves) if bool(leaves.any()) else frontier), frontier.select(leaves)


def _weakest(frontier: PhaseDomains) -> float:
    return float(frontier.lower.min()) if len(frontier) else float("inf")


def pick(frontier: PhaseDomains, count: int, most: int) -> tuple[PhaseDomains, PhaseDomains]:
    """The domains with the weakest bounds, at most ``count``, and the rest.

    Where the children might be more than ``most`` with those that wait, it is the strongest: nearer to their proofs,
    these are fewer before long, and the search goes deep instead of wide.
    """
    if len(frontier) <= count:
        return frontier, frontier.select(torch.zeros(0, dtype=torch.int64, device=frontier.lower.device))
    order = frontier.lower.argsort(descending=len(frontier) + count > most)
    return frontier.select(order[:count]), frontier.select(order[count:])


def bound_domains(
    space: PhaseSpace, domains: PhaseDomains, plan: PhaseSearchPlan, clock: Clock
) -> tuple[PhaseDomains, Bound]:
    """Bound every domain, and choose where each would be split next."""
    clock.check()
    domain, _ = expand(space, domains)
    bound = improve(space, domains, plan.schedule, clock)
    bounds, bound = narrow(space.problem.program, domain, bound, plan.clipped, clock)
    bound = in_double(space, domains.case, replace(domain, bounds=bounds), bound)
    score = chord(space.problem.program, bounds, bound)
    splittable = unstable_neurons(space.problem.program, bounds) & (domain.phase == 0)
    found = candidates(space.of(score), space.of(splittable), plan.candidates)
    return bounded(space, with_bounds(space, domains, bounds), bound, found), bound


def improve(space: PhaseSpace, domains: PhaseDomains, schedule: Schedule, clock: Clock) -> Bound:
    """The bound of every domain with multipliers improved from its own.

    On a device that records, all domains take all steps: sizes that follow from values cannot be recorded.
    """
    if space.problem.program.device.type in RECORDERS:
        schedule = replace(schedule, until_proved=False)

    def improved(domains: PhaseDomains) -> Bound:
        domain, start = expand(space, domains)
        return optimise(space.problem.program, domain, start, schedule, clock.check)

    return space.recordings.run(schedule, improved, domains)


def accept_points(space: PhaseSpace, domains: PhaseDomains, bound: Bound, accept: Accept) -> bool:
    """Try the minimisers of the bounds as witnesses, the most promising first."""
    loss = case_loss(space.problem, bound.point, domains.case)
    return accept_best(bound.point, loss, space.problem.region[domains.case], accept)
