"""Narrowing open domains: better bounds of the neurons that their bounds hang on, from these bounds themselves."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from toolkit.bounds.clip_boxes import HalfSpaces
from toolkit.bounds.clip_neurons import clip_neurons
from toolkit.bounds.dual_ascent import Schedule, evaluate, optimise, relax
from toolkit.bounds.interval import Bounds, unstable_neurons
from toolkit.bounds.optimised_bound import Bound, Domain
from toolkit.bounds.step_rules import Polyak
from toolkit.problem.program import Program
from toolkit.run.clock import Clock
from toolkit.search.branching import chord
from toolkit.search.phase_domains import proved
from toolkit.tuning import tuned

RECLIPPED_SCHEDULE = Schedule(1, Polyak())
"""How domains are bounded with their narrower neurons."""


def narrow(program: Program, domain: Domain, bound: Bound, count: int, clock: Clock) -> tuple[Bounds, Bound]:
    """The neurons' bounds and the domains' with ``count`` neurons clipped in every open domain whose bound cuts enough.

    Raises OutOfTime.

    What is stored for a domain holds where it may have violations, as its children need it. A domain whose neurons
    have contradicting bounds has none: its bound is the contradiction.
    """
    if not count:
        return domain.bounds, bound
    promising, spaces = _cutting(program, domain, bound)
    if not len(promising):
        return domain.bounds, bound
    some, at = domain.select(promising), bound.select(promising)
    found = clip_neurons(program, some, spaces, _costliest(program, some, at, count), clock.check)
    again = optimise(program, replace(some, bounds=found.bounds), at.multipliers, RECLIPPED_SCHEDULE, clock.check)
    lower = torch.where(found.contradiction > 0, found.contradiction, again.lower)
    return (
        _put(domain.bounds, promising, found.bounds),
        bound.put(promising, replace(again, lower=torch.fmax(at.lower, lower))),
    )


def _cutting(program: Program, domain: Domain, bound: Bound) -> tuple[Tensor, HalfSpaces]:
    """The open domains whose bounds cut enough of their boxes off, by position, with their half-spaces."""
    still_open = (~proved(bound.lower)).nonzero().squeeze(1)
    some = domain.select(still_open)
    linear = evaluate(program, relax(program, some), bound.multipliers.select(still_open)).linear
    wide = (some.box.upper - some.box.lower).unsqueeze(1)
    span = (linear.coefficients.abs() * wide).sum(2)
    cutting = -bound.lower[still_open] <= tuned().phases.most_depth_to_clip * span.squeeze(1)
    return still_open[cutting], HalfSpaces(linear.coefficients[cutting], linear.offset[cutting])


def _costliest(program: Program, domain: Domain, bound: Bound, count: int) -> Tensor:
    """The open neurons whose chords cost a domain's bound most, ``(B, num_neurons)`` bool."""
    splittable = unstable_neurons(program, domain.bounds) & (domain.phase == 0)
    score = chord(program, domain.bounds, bound).nan_to_num(0.0, posinf=0.0, neginf=0.0).masked_fill(~splittable, -1.0)
    best, index = score.topk(min(count, score.shape[1]), 1)
    return torch.zeros_like(splittable).scatter(1, index, best > 0)


def _put(bounds: Bounds, rows: Tensor, new: Bounds) -> Bounds:
    return Bounds(bounds.lower.index_copy(0, rows, new.lower), bounds.upper.index_copy(0, rows, new.upper))
