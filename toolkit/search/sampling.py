"""The first look for a witness: points of the boxes through onnxruntime, judged by numpy. No torch.

Centres, corners and random points; enough for the many queries whose unsafe set is large, in a fraction of the time it
takes to import a deep learning library.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolkit.problem.cases import Cases
from toolkit.search.clock import Clock

POINTS = 64
"""Points tried for each region, as long as time and the number of regions allow."""
SECONDS = 0.3
"""Time after which sampling gives way to stronger means."""
LAST_RESORT = 0.25
"""Share of the time left that sampling gets where no stronger means exist."""

Accept = Callable[[NDArray[np.float64], int], bool]


def sample(
    cases: Cases, seed: int, clock: Clock, accept: Accept, points: int = POINTS, seconds: float = SECONDS
) -> bool:
    """Whether one of up to ``points`` points of each region was accepted as a witness within ``seconds``.

    ``accept`` replays a point of a region, which costs one run of the networks.
    """
    generator = np.random.default_rng(seed)
    start = clock.elapsed
    for attempt in range(points):
        for region in range(len(cases.lower)):
            if clock.elapsed - start > seconds:
                return False
            if accept(_point(cases, region, attempt, generator), region):
                return True
    return False


def sample_longer(cases: Cases, seed: int, clock: Clock, accept: Accept) -> bool:
    """As `sample`, for a share of the time left: the last resort for networks that cannot be bounded."""
    return sample(cases, seed + 1, clock, accept, points=1 << 20, seconds=LAST_RESORT * clock.left)


def _point(cases: Cases, region: int, attempt: int, generator: np.random.Generator) -> NDArray[np.float64]:
    lower, upper = cases.lower[region], cases.upper[region]
    if attempt == 0:
        return (lower + upper) / 2
    share = generator.random(len(lower))
    if attempt % 2:
        share = np.round(share)
    return lower + share * (upper - lower)
