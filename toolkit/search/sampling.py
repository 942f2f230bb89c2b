"""The first look for a witness: points of the boxes through onnxruntime, judged by numpy. No torch.

Centres, corners and random points; enough for the many queries whose unsafe set is large, in a fraction of the time it
takes to import a deep learning library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.query import Query
from toolkit.formats.runtime import Session
from toolkit.problem.cases import Cases
from toolkit.search.clock import Clock

POINTS = 64
"""Points tried for each region, as long as time and the number of regions allow."""
SECONDS = 0.3
"""Time after which sampling gives way to stronger means."""

Accept = Callable[[NDArray[np.float64], int], bool]


def sample(
    cases: Cases, sessions: Mapping[str, Session], query: Query, seed: int, clock: Clock, accept: Accept
) -> bool:
    """Whether some sampled point was accepted as a witness.

    ``accept`` replays a point of a region; the first look at a point costs one run of the network.
    """
    generator = np.random.default_rng(seed)
    start = clock.elapsed
    regions = len(cases.lower)
    for attempt in range(POINTS):
        for region in range(regions):
            if clock.elapsed - start > SECONDS:
                return False
            if accept(_point(cases, region, attempt, generator), region):
                return True
    return False


def _point(cases: Cases, region: int, attempt: int, generator: np.random.Generator) -> NDArray[np.float64]:
    lower, upper = cases.lower[region], cases.upper[region]
    if attempt == 0:
        return (lower + upper) / 2
    share = generator.random(len(lower))
    if attempt % 2:
        share = np.round(share)
    return lower + share * (upper - lower)
