"""The first look for a witness: points of the boxes through onnxruntime, judged by numpy. No torch.

Centres, corners and random points; enough for the many queries whose unsafe set is large, in a fraction of the time it
takes to import a deep learning library.
"""

from __future__ import annotations

import numpy as np

from toolkit.attack.case_losses import Accept, CaseLosses, Points
from toolkit.run.clock import Clock, OutOfTime
from toolkit.tuning import tuned


def sample(losses: CaseLosses, seed: int, clock: Clock, accept: Accept, rounds: int = 1) -> bool:
    """Whether one of the points of each region, some a round, was accepted as a witness in time."""
    generator = np.random.default_rng(seed)
    try:
        return any(
            _sample_box(losses, region, number * tuned().points.per_region, generator, clock, accept)
            for number in range(rounds)
            for region in range(len(losses.cases.lower))
        )
    except OutOfTime:
        return False


def sample_longer(losses: CaseLosses, seed: int, clock: Clock, accept: Accept) -> bool:
    """Look for a witness among random points for a share of the time left, where a network cannot be bounded."""
    return sample(losses, seed + 1, clock.part(tuned().points.last_resort_time_share), accept, rounds=1 << 20)


def _sample_box(
    losses: CaseLosses, region: int, before: int, generator: np.random.Generator, clock: Clock, accept: Accept
) -> bool:
    """Points of one box, after so many of them; those that seem to be witnesses are replayed. Raises OutOfTime."""
    inside = losses.cases.region == region
    box = losses.cases.lower[region], losses.cases.upper[region]

    def points_of(start: int, stop: int) -> Points:
        return np.stack([_point(*box, before + number, generator) for number in range(start, stop)])

    for points, loss in losses.parts(tuned().points.per_region, points_of, clock):
        if any(accept(points[index], region) for index in np.flatnonzero((loss[:, inside] <= 0).any(1))):
            return True
    return False


def _point(lower: Points, upper: Points, attempt: int, generator: np.random.Generator) -> Points:
    if attempt == 0:
        return (lower + upper) / 2
    share = generator.random(len(lower))
    if attempt % 2:
        share = np.round(share)
    return lower + share * (upper - lower)
