"""Whether neuron bounds are worth computing anew in every domain.

Beta-CROWN keeps the root's bounds of all neurons (Wang et al. 2021). On a reduced network a full set of new ones costs
little, and a split early in the network tightens everything behind it; whether that helps differs from query to
query. So it is tried from time to time on a few domains, and kept where it brings their bounds visibly nearer to zero.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from toolkit.bounds.ascent import optimise
from toolkit.bounds.crown import crown_bounds
from toolkit.bounds.reduce import cost
from toolkit.search.clock import Clock
from toolkit.search.domains import Domains, Space, expand
from toolkit.search.plan import SearchPlan

TRIAL = 32
"""Domains a trial looks at."""
FIRST = 4
"""Rounds before the first trial."""
EVERY = 16
"""Rounds between two trials."""
AFFORDABLE = 40.0
"""Largest price of new bounds, in units of bounding a domain without them."""
GAIN = 0.15
"""Share of the distance to zero that new bounds must make up."""


def due(round_number: int, domains: Domains) -> bool:
    """Whether it is time for a trial."""
    return round_number % EVERY == FIRST and len(domains) >= 8


def worth_rebounding(space: Space, domains: Domains, plan: SearchPlan, clock: Clock) -> bool:
    """Compare both ways of bounding on a few open domains."""
    program = space.problem.program
    rows = 2 * space.unstable.numel()
    if not domains.depth or rows * cost(program) / 2 > AFFORDABLE * plan.price * cost(program):
        return False
    some = domains.select(torch.arange(min(TRIAL, len(domains)), device=domains.lower.device))
    domain, start = expand(space, some)
    plain = optimise(program, domain, start, plan.schedule, clock.check).lower
    anew = replace(domain, bounds=crown_bounds(program, domain.boxes(), domain.bounds, clock.check))
    better = optimise(program, anew, start, plan.schedule, clock.check).lower
    return bool(_distance(better) < (1 - GAIN) * _distance(plain))


def _distance(lower: Tensor) -> Tensor:
    """Mean distance of the bounds from a proof."""
    return (-lower).clamp(min=0).mean()
