"""The second look for a witness, before a library that knows gradients is imported: along secants, by onnxruntime.

Boxes of queries are small or networks have few inputs; then a secant across half of the box says more of the way down
than a derivative does. So each input is moved by itself, all outputs are read, and for each case that is near all
inputs go at once to the side to which their secants fall: the sign step of Goodfellow et al. (2015) with finite
differences. One set of runs serves all cases.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from toolkit.attack.case_losses import Accept, CaseLosses, Points
from toolkit.run.clock import Clock, OutOfTime
from toolkit.tuning import tuned


def follow_secants(losses: CaseLosses, clock: Clock, seed: int, accept: Accept, walks: int | None = None) -> bool:
    """Whether one of so many walks (None: the most) through each box came to an accepted witness in time.

    The first walk of a box starts at its centre, the others at random points.
    """
    generator = np.random.default_rng(seed)
    cases = losses.cases
    try:
        for walk in range(tuned().secants.most_walks_per_box if walks is None else walks):
            for region, (lower, upper) in enumerate(zip(cases.lower, cases.upper, strict=True)):
                share = generator.random(len(lower)) if walk else 0.5
                if _walk(losses, region, lower + share * (upper - lower), clock, accept):
                    return True
    except OutOfTime:
        pass
    return False


def _walk(losses: CaseLosses, region: int, point: Points, clock: Clock, accept: Accept) -> bool:
    """Walk from a point ``(n,)`` of a box towards the satisfaction of the cases that are near. Raises OutOfTime."""
    lower, upper = losses.cases.lower[region], losses.cases.upper[region]
    width, middle = upper - lower, (lower + upper) / 2
    near = _nearest(losses, region, point, clock)
    length, least = 0.5, np.inf
    for step in range(tuned().secants.steps_per_walk):
        slopes = _secants(losses, near, point, length * width, middle, clock)
        reach = width if step == 0 else length * width
        ends = np.clip(point - reach * np.sign(slopes), lower, upper)
        loss = np.diagonal(losses.of(ends, clock)[:, near])
        best = int(loss.argmin())
        if loss[best] <= 0 and accept(ends[best], region):
            return True
        if loss[best] < least:
            least, point = loss[best], ends[best]
        else:
            length /= 2
    return False


def _nearest(losses: CaseLosses, region: int, point: Points, clock: Clock) -> NDArray[np.int64]:
    """The cases of a box that have the least losses at a point."""
    inside = np.flatnonzero(losses.cases.region == region)
    [here] = losses.of(point[None], clock)
    return inside[here[inside].argsort()[: tuned().secants.followed_cases]]


def _secants(
    losses: CaseLosses, near: NDArray[np.int64], point: Points, width: Points, middle: Points, clock: Clock
) -> NDArray[np.float64]:
    """How the losses of some cases change from a point along each input, ``(C, n)``.

    An input moves by its entry of ``width``, towards the middle of its box and beyond.
    """
    moving = np.flatnonzero(width)
    moves = np.where(point > middle, -width, width)[moving]

    def moved(start: int, stop: int) -> Points:
        """The point itself, then one for each input that moves."""
        points = np.repeat(point[None], stop - start, 0)
        numbers = np.arange(max(start, 1), stop)
        points[numbers - start, moving[numbers - 1]] += moves[numbers - 1]
        return points

    every = np.concatenate([part[:, near] for _, part in losses.parts(len(moving) + 1, moved, clock)])
    slopes = np.zeros((len(near), len(point)))
    with np.errstate(invalid="ignore"):
        slopes[:, moving] = np.nan_to_num((every[1:] - every[0]) / moves[:, None]).T
    return slopes
