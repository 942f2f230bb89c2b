"""Splitting domains: at which of its candidates each is split."""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.bounds.dual_ascent import lower_bound
from toolkit.run.clock import Clock
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, expand, split

WEAKER_CHILD_WEIGHT = 0.3
"""What the weaker child counts, next to the stronger: many small trees were smallest about here (measured)."""


def branch(space: PhaseSpace, domains: PhaseDomains, clock: Clock) -> PhaseDomains:
    """Both children of every domain, ``(2 B,)``, at the candidate that promises most. It has at least one.

    Both children of every candidate are bounded once, with the parent's multipliers (filtered smart branching, De
    Palma et al. 2021). There the weaker child decides. Here it is rather the stronger one: a child that is nearly
    proved is a branch less, and with multipliers not yet optimised the weaker bound tells little about what it will be.
    """
    if domains.candidates.shape[1] == 1:
        return split(domains, domains.candidates.squeeze(1))

    def most_promising(domains: PhaseDomains) -> Tensor:
        promise = torch.stack([_promise(space, domains, column, clock) for column in domains.candidates.unbind(1)], 1)
        return domains.candidates.gather(1, promise.argmax(1, keepdim=True)).squeeze(1)

    return split(domains, space.recordings.run("most promising", most_promising, domains))


def _promise(space: PhaseSpace, domains: PhaseDomains, neuron: Tensor, clock: Clock) -> Tensor:
    """How good a split is, ``(B,)``: minus infinity where there is no neuron (-1)."""
    clock.check()
    domain, multipliers = expand(space, split(domains, neuron.clamp(min=0)))
    active, inactive = lower_bound(space.problem.program, domain, multipliers).clamp(max=0).chunk(2)
    promise = torch.maximum(active, inactive) + WEAKER_CHILD_WEIGHT * torch.minimum(active, inactive)
    return torch.where(neuron >= 0, promise, -torch.inf)
