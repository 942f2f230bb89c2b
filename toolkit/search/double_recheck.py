"""Closing steps in double precision: for domains whose bound would be a proof but for the rounding of single precision.

A search in single precision finds the multipliers; where rounding alone hides that they prove a domain, one more pass
with the same multipliers in double precision, where it hides next to nothing, decides.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from toolkit.bounds.dual_ascent import evaluate, relax
from toolkit.bounds.optimised_bound import Bound, Domain
from toolkit.problem.sum_rounding import outward
from toolkit.search.phase_domains import PhaseSpace, of_cases, proved


def in_double(space: PhaseSpace, cases: Tensor, domain: Domain, bound: Bound) -> Bound:
    """The bounds ``(B,)`` of domains of these cases, ``(B,)``, those raised that single precision alone keeps open."""
    if space.double is None:
        return bound
    hidden = (~proved(bound.lower) & (bound.lower + 2 * bound.error > 0)).nonzero().squeeze(1)
    if not len(hidden):
        return bound
    some, multipliers = domain.select(hidden), bound.multipliers.select(hidden).map(torch.Tensor.double)
    neurons = some.bounds.to(torch.float64)
    wide = replace(of_cases(space.double, neurons, cases[hidden]), phase=some.phase)
    found = evaluate(space.double.program, relax(space.double.program, wide), multipliers).bound.lower
    lower, _ = outward(found, found, bound.lower.dtype)
    return bound.put(hidden, replace(bound.select(hidden), lower=torch.fmax(bound.lower[hidden], lower)))
