"""The state of branch and bound over ReLU phases: one record of batched tensors on the device.

Only neurons that are unstable at the root are stored; `PhaseSpace` knows which they are. Where the search is in single
precision, `in_double` closes the domains whose bounds would be proofs but for its rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from toolkit.bounds.dual_ascent import evaluate, relax
from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Bound, Domain, Multipliers
from toolkit.problem.compile import Problem
from toolkit.problem.sum_rounding import outward
from toolkit.run.cuda_graphs import Recordings
from toolkit.search.loop import DomainBatch

DecideLeaf = Callable[[int, Domain], tuple[bool, Tensor | None]]
"""Whether a case has no solution in a leaf, a domain of one row, else a point to try, if there is one."""


@dataclass(frozen=True)
class PhaseSpace:
    """The problem, its root bounds and the neurons that can be split."""

    problem: Problem
    root: Bounds
    """Root bounds of each region, ``(R, num_neurons)``."""
    unstable: Tensor
    """Neurons that are unstable in some region, ``(U,)``."""
    exact: DecideLeaf | None = field(default=None, kw_only=True, compare=False, repr=False)
    """Decides a leaf in exact arithmetic; None where leaves are only decided by linear programs."""
    double: Problem | None = None
    """The problem in double precision, where it is bounded in single."""
    recordings: Recordings = field(default_factory=Recordings, init=False, compare=False, repr=False)
    """Recordings of functions of this space's program and bounds; another space needs recordings of its own."""

    @property
    def all_unstable(self) -> bool:
        """Whether they are all the neurons there are, as in a reduced network."""
        return len(self.unstable) == self.root.lower.shape[1]

    def of(self, neurons: Tensor) -> Tensor:
        """The columns of the unstable neurons, ``(B, U)``, of a tensor over all neurons, ``(B, num_neurons)``."""
        return neurons if self.all_unstable else neurons[:, self.unstable]

    def over(self, rest: Tensor, part: Tensor) -> Tensor:
        """A tensor over all neurons, ``(B, num_neurons)``: ``part``, ``(B, U)``, over ``rest``, of batch 1 or B."""
        if self.all_unstable:
            return part
        return rest.expand(len(part), -1).index_copy(1, self.unstable, part)


@dataclass(frozen=True)
class PhaseDomains(DomainBatch):
    """Subproblems: a case, the phases of split neurons, and the multipliers that gave the bound."""

    phase: Tensor
    """``(B, U)`` int8: +1 active, -1 inactive, 0 open."""
    alpha: Tensor
    """Lower slopes, ``(B, U)``."""
    beta: Tensor
    """Split multipliers, ``(B, U)``."""
    weight: Tensor
    """Weights of the case's atoms, ``(B, K)``."""
    lower: Tensor
    """Best lower bound known, ``(B,)``; a child's is never below its parent's."""
    candidates: Tensor
    """Neurons that may be split next, as indices into the space's unstable ones, ``(B, k)``; -1 where there is none."""
    neuron_lower: Tensor
    """Bounds of the unstable neurons in the domain, ``(B, U)``, never looser than the root's and the parent's."""
    neuron_upper: Tensor

    def parts(self, size: int) -> list[PhaseDomains]:
        """The domains in parts of at most ``size``."""
        positions = torch.arange(len(self), device=self.lower.device)
        return [self.select(part) for part in positions.split(size)]

    @property
    def deepest(self) -> int:
        """Splits on the longest path."""
        return int((self.phase != 0).sum(1).max()) if len(self) and self.phase.shape[1] else 0


def root_domains(space: PhaseSpace, cases: Tensor, multipliers: Multipliers, lower: Tensor) -> PhaseDomains:
    """One unsplit domain for each of the given cases; it has no candidates before it is bounded."""
    count = len(cases)
    bounds = space.root.select(space.problem.region[cases])
    return PhaseDomains(
        case=cases,
        phase=torch.zeros(count, len(space.unstable), dtype=torch.int8, device=lower.device),
        alpha=space.of(multipliers.alpha),
        beta=space.of(multipliers.beta),
        weight=multipliers.weight,
        lower=lower,
        candidates=torch.full((count, 1), -1, device=lower.device),
        neuron_lower=space.of(bounds.lower),
        neuron_upper=space.of(bounds.upper),
    )


def unsplit_domains(problem: Problem, root: Bounds, case: Tensor) -> Domain:
    """Unsplit domains of some cases ``(B,)``, with root bounds of the neurons in each region, ``(R, num_neurons)``."""
    region = problem.region[case]
    return domains_of_cases(problem, root if len(root.lower) == 1 else root.select(region), case)


def domains_of_cases(problem: Problem, bounds: Bounds, case: Tensor) -> Domain:
    """Unsplit domains of some cases ``(B,)``, with bounds of the neurons in each, ``(B or 1, num_neurons)``."""
    region, rows = problem.region[case], problem.rows[case]
    box = Bounds(problem.lower, problem.upper)
    phase = torch.zeros(1, 1, dtype=torch.int8, device=bounds.lower.device)
    return Domain(
        box=box if len(box.lower) == 1 else box.select(region),
        bounds=bounds,
        phase=phase.expand(len(case), bounds.lower.shape[1]),
        atoms=problem.weights[rows],
        constants=problem.offsets[rows],
    )


def expand(space: PhaseSpace, domains: PhaseDomains) -> tuple[Domain, Multipliers]:
    """The domains and their multipliers over all neurons, ready to be bounded."""
    plain = unsplit_domains(space.problem, space.root, domains.case)
    lower = space.over(plain.bounds.lower, domains.neuron_lower)
    upper = space.over(plain.bounds.upper, domains.neuron_upper)
    domain = replace(plain, bounds=Bounds(lower, upper), phase=space.over(plain.phase, domains.phase))
    none = torch.zeros_like(lower[:1])
    return domain, Multipliers(space.over(none, domains.alpha), space.over(none, domains.beta), domains.weight)


def split(domains: PhaseDomains, neuron: Tensor) -> PhaseDomains:
    """Both children of every domain at its neuron, ``(B,)``: first all with it active, then all with it inactive."""
    neuron = neuron.unsqueeze(1)
    active = domains.phase.scatter(1, neuron, 1)
    inactive = domains.phase.scatter(1, neuron, -1)
    twice = PhaseDomains.concat([domains, domains])
    phase = torch.cat([active, inactive])
    return replace(
        twice,
        phase=phase,
        neuron_lower=torch.where(phase > 0, twice.neuron_lower.clamp(min=0), twice.neuron_lower),
        neuron_upper=torch.where(phase < 0, twice.neuron_upper.clamp(max=0), twice.neuron_upper),
    )


def bounded(
    space: PhaseSpace, domains: PhaseDomains, neurons: Bounds, bound: Bound, candidates: Tensor
) -> PhaseDomains:
    """The domains with new bounds of all neurons, ``(B, num_neurons)``, and a new one of their own, its multipliers and
    the neurons that may be split next."""
    return replace(
        domains,
        alpha=space.of(bound.multipliers.alpha),
        beta=space.of(bound.multipliers.beta),
        weight=bound.multipliers.weight,
        lower=torch.fmax(domains.lower, bound.lower),
        candidates=candidates,
        neuron_lower=space.of(neurons.lower),
        neuron_upper=space.of(neurons.upper),
    )


LEAST_NORMAL_NUMBERS = 2.0**30
"""Smallest normal numbers that a bound must exceed: below these, numbers have no relative precision to allow for."""


def proved(lower: Tensor) -> Tensor:
    """Where a bound is a proof: positive and finite, ``(B,)``. NaN, infinity and what underflows prove nothing."""
    return torch.isfinite(lower) & (lower > LEAST_NORMAL_NUMBERS * torch.finfo(lower.dtype).tiny)


def in_double(space: PhaseSpace, cases: Tensor, domain: Domain, bound: Bound) -> Bound:
    """The bounds ``(B,)`` of domains of these cases, ``(B,)``, those raised that single precision alone keeps open."""
    if space.double is None:
        return bound
    hidden = (~proved(bound.lower) & (bound.lower + 2 * bound.error > 0)).nonzero().squeeze(1)
    if not len(hidden):
        return bound
    some, multipliers = domain.select(hidden), bound.multipliers.select(hidden).map(torch.Tensor.double)
    neurons = some.bounds.to(torch.float64)
    wide = replace(domains_of_cases(space.double, neurons, cases[hidden]), phase=some.phase)
    found = evaluate(space.double.program, relax(space.double.program, wide), multipliers).bound.lower
    lower, _ = outward(found, found, bound.lower.dtype)
    return bound.put(hidden, replace(bound.select(hidden), lower=torch.fmax(bound.lower[hidden], lower)))
