"""Branching rules: at which neuron a domain over ReLU phases is split.

A rule is a score of neurons, ``(B, num_neurons)``, larger is better, made of what the bound already has; only unstable
neurons may be chosen. It is one function under `rule`, by whose name the settings choose it. Of the best neurons by the
score, both children are bounded once, with multipliers that are not optimised again, and the most promising pair is
taken (filtered smart branching, De Palma et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from toolkit.bounds.dual_ascent import lower_bound
from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Bound
from toolkit.problem.program import Program
from toolkit.registry import Registry
from toolkit.run.clock import Clock
from toolkit.run.cuda_graphs import RECORDERS
from toolkit.search.phase_domains import PhaseDomains, PhaseSpace, expand, split
from toolkit.tuning import tuned

Score = Callable[[Program, Bounds, Bound], Tensor]


@dataclass(frozen=True)
class BranchingRule:
    """How the neuron is chosen at which a domain is split."""

    score: Score
    candidates: int
    """Best neurons by the score of which both children are bounded once; with 1, the score alone decides."""


RULES: Registry[str, BranchingRule] = Registry("branching rule")
"""Branching rules by the name that the settings give them."""


def rule(name: str, candidates: int = 3) -> Callable[[Score], Score]:
    """Register a score as a branching rule."""
    return RULES.register(name, entry=lambda score: BranchingRule(score, candidates))


@rule("babsr")
def babsr(program: Program, bounds: Bounds, bound: Bound) -> Tensor:
    """Estimated gain of the weaker child (BaBSR, Bunel et al., JMLR 2020).

    With A the coefficient on the activation, b the bias, r = u / (u - l) the chord's slope:
    ``| min(b A (r - 1), b A r) + min(A, 0) (-l r) |``.
    """
    if not program.layers:
        return bound.post
    bias = torch.cat([layer.affine.bias for layer in program.layers]).unsqueeze(0)
    chord = bounds.upper / (bounds.upper - bounds.lower).clamp(min=1e-30)
    product = bias * bound.post
    gain = torch.minimum(product * (chord - 1), product * chord)
    return (gain - bound.post.clamp(max=0) * bounds.lower * chord).abs()


@rule("chord")
def chord(program: Program, bounds: Bounds, bound: Bound) -> Tensor:
    """What the chords' offsets cost: ``relu(-A) (-l u) / (u - l)`` (the second score of Bunel et al.), and little else.

    A chord is the relaxation that a split alone can improve on; lower lines have slopes that are optimised. A small
    part of BaBSR ranks the neurons that meet no chord.
    """
    width = (bounds.upper - bounds.lower).clamp(min=1e-30)
    offset = -bound.post.clamp(max=0) * -bounds.lower * bounds.upper / width
    return offset + tuned().phases.babsr_weight * babsr(program, bounds, bound)


def candidates(score: Tensor, splittable: Tensor, count: int) -> Tensor:
    """The best splittable neurons of each domain, ``(B, count)``; -1 where nothing is left to split."""
    masked = torch.where(splittable, score.nan_to_num(0.0, posinf=0.0, neginf=0.0), -torch.inf)
    if not masked.shape[1]:
        return torch.full((len(masked), count), -1, device=score.device)
    best, index = masked.topk(min(count, masked.shape[1]), 1)
    return torch.where(torch.isfinite(best), index, -1)


def branch(space: PhaseSpace, domains: PhaseDomains, clock: Clock) -> PhaseDomains:
    """Both children of every domain, ``(2 B,)``, at the candidate that promises most. It has at least one.

    Both children of every candidate are bounded once, with the parent's multipliers. In filtered smart branching the
    weaker child decides. Here it is rather the stronger one: a child that is nearly proved is a branch less, and with
    multipliers not yet optimised the weaker bound tells little about what it will be.
    """
    if domains.candidates.shape[1] == 1:
        return split(domains, domains.candidates.squeeze(1))

    def most_promising(domains: PhaseDomains) -> Tensor:
        promise = torch.stack([_promise(space, domains, column, clock) for column in domains.candidates.unbind(1)], 1)
        return domains.candidates.gather(1, promise.argmax(1, keepdim=True)).squeeze(1)

    records = space.problem.program.device.type in RECORDERS
    return split(
        domains,
        space.recordings.run("most promising", most_promising, domains) if records else most_promising(domains),
    )


def _promise(space: PhaseSpace, domains: PhaseDomains, neuron: Tensor, clock: Clock) -> Tensor:
    """How good a split is, ``(B,)``: minus infinity where there is no neuron (-1)."""
    clock.check()
    domain, multipliers = expand(space, split(domains, neuron.clamp(min=0)))
    active, inactive = lower_bound(space.problem.program, domain, multipliers).clamp(max=0).chunk(2)
    promise = torch.maximum(active, inactive) + tuned().phases.weaker_child_weight * torch.minimum(active, inactive)
    return torch.where(neuron >= 0, promise, -torch.inf)
