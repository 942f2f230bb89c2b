"""Which neuron to split next: one score function a strategy, all from quantities the bound already has.

Scores are ``(B, num_neurons)``, larger is better, and only unstable neurons may be chosen.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from toolkit.bounds.ascent import Bound
from toolkit.bounds.interval import Bounds
from toolkit.problem.program import Program

Score = Callable[[Program, Bounds, Bound], Tensor]


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


def gap(program: Program, bounds: Bounds, bound: Bound) -> Tensor:
    """How much each neuron's relaxation gives away at the bound's own minimiser: |A| times its distance from ReLU."""
    chord = bounds.upper / (bounds.upper - bounds.lower).clamp(min=1e-30)
    above = chord * (bound.pre - bounds.lower) - torch.relu(bound.pre)
    below = torch.relu(bound.pre) - bound.multipliers.alpha * bound.pre
    return bound.post.abs() * torch.where(bound.post < 0, above, below).clamp(min=0)


def intercept(program: Program, bounds: Bounds, bound: Bound) -> Tensor:
    """What the chords' offsets cost: ``relu(-A) (-l u) / (u - l)``, the filter's second opinion (Bunel et al.)."""
    width = (bounds.upper - bounds.lower).clamp(min=1e-30)
    return -bound.post.clamp(max=0) * -bounds.lower * bounds.upper / width


SCORES: dict[str, Score] = {"babsr": babsr, "gap": gap, "intercept": intercept}


def candidates(score: Tensor, splittable: Tensor, count: int) -> Tensor:
    """The best splittable neurons of each domain, ``(B, count)``; -1 where nothing is left to split."""
    masked = torch.where(splittable, score.nan_to_num(0.0, posinf=0.0, neginf=0.0), -torch.inf)
    if not masked.shape[1]:
        return torch.full((len(masked), count), -1, device=score.device)
    best, index = masked.topk(min(count, masked.shape[1]), 1)
    return torch.where(torch.isfinite(best), index, -1)
