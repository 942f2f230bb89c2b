"""Which neurons may be split next: score functions, all from quantities the bound already has.

Scores are ``(B, num_neurons)``, larger is better, and only unstable neurons may be chosen.
"""

from __future__ import annotations

import torch
from torch import Tensor

from toolkit.bounds.interval import Bounds
from toolkit.bounds.optimised_bound import Bound
from toolkit.problem.program import Program


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


def chord(program: Program, bounds: Bounds, bound: Bound) -> Tensor:
    """What the chords' offsets cost: ``relu(-A) (-l u) / (u - l)`` (the second score of Bunel et al.), and little else.

    A chord is the relaxation that a split alone can improve on; lower lines have slopes that are optimised. A small
    part of BaBSR ranks the neurons that meet no chord.
    """
    width = (bounds.upper - bounds.lower).clamp(min=1e-30)
    offset = -bound.post.clamp(max=0) * -bounds.lower * bounds.upper / width
    return offset + BABSR_WEIGHT * babsr(program, bounds, bound)


BABSR_WEIGHT = 1e-4
"""What BaBSR counts, next to the chords' offsets."""


def candidates(score: Tensor, splittable: Tensor, count: int) -> Tensor:
    """The best splittable neurons of each domain, ``(B, count)``; -1 where nothing is left to split."""
    masked = torch.where(splittable, score.nan_to_num(0.0, posinf=0.0, neginf=0.0), -torch.inf)
    if not masked.shape[1]:
        return torch.full((len(masked), count), -1, device=score.device)
    best, index = masked.topk(min(count, masked.shape[1]), 1)
    return torch.where(torch.isfinite(best), index, -1)
