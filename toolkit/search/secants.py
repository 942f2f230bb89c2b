"""The second look for a witness, before a library that knows gradients is imported: along secants, by onnxruntime.

Boxes of queries are small or networks have few inputs; then a secant across half of the box says more of the way down
than a derivative does. So each input is moved by itself, all outputs are read, and for each case that is near all
inputs go at once to the side to which their secants fall: the sign step of Goodfellow et al. (2015) with finite
differences. One set of runs serves all cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.query import Query
from toolkit.formats.runtime import Session
from toolkit.problem.cases import Cases
from toolkit.search.clock import Clock, OutOfTime
from toolkit.search.sampling import Accept

Points = NDArray[np.float64]
PointsOf = Callable[[int, int], Points]
"""The points ``start : stop`` of many, made when they are needed."""

NEAREST = 16
"""Cases of a box that are followed: those whose loss is least where the walk starts."""
STEPS = 8
"""Steps of one walk."""
BETWEEN_LOOKS = 0.02
"""Seconds of runs between two looks at the clock."""
MOST_NUMBERS = 1 << 22
"""Numbers of points and atoms that are held at once."""


@dataclass(frozen=True)
class Losses:
    """The loss of a case at a point is the largest of its atoms: at most zero exactly where the case is satisfied."""

    query: Query
    cases: Cases
    sessions: Mapping[str, Session]
    """By name of the network."""

    def of(self, count: int, points_of: PointsOf, clock: Clock) -> NDArray[np.float64]:
        """Losses ``(count, C)`` of many points, computed some at a time. Raises OutOfTime."""
        parts: list[NDArray[np.float64]] = []
        start, size = 0, 1
        while start < count:
            clock.check()
            stop, began = min(start + size, count), time.perf_counter()
            parts.append(self.at(points_of(start, stop)))
            size = self._at_once((time.perf_counter() - began) / (stop - start))
            start = stop
        return np.concatenate(parts)

    def _at_once(self, seconds: float) -> int:
        """Points between two looks, where one takes so long."""
        held = self.query.num_variables + len(self.cases.atoms.monomial) + len(self.cases.rows)
        return max(1, min(MOST_NUMBERS // held, int(BETWEEN_LOOKS / max(seconds, 1e-9))))

    def at(self, points: Points) -> NDArray[np.float64]:
        """Losses ``(B, C)`` of points ``(B, n)``; infinite where something is not a number."""
        monomials = self.query.monomials(self._variables(points))
        values = self.cases.atoms.values(monomials)[:, self.cases.rows]
        padded = np.concatenate([values, np.full((len(points), 1), -np.inf)], 1)
        largest = np.maximum.reduceat(padded, self.cases.starts[:-1], 1)
        return np.where(np.diff(self.cases.starts) > 0, np.nan_to_num(largest, nan=np.inf), -np.inf)

    def _variables(self, points: Points) -> NDArray[np.float64]:
        """All variables of the query, ``(B, num_variables)``: inputs, and what the networks make of them."""
        variables = np.empty((len(points), self.query.num_variables))
        variables[:, self.cases.inputs] = points
        for network in self.query.networks:
            fed = [variables[:, tensor.offset : tensor.offset + tensor.size] for tensor in network.inputs]
            computed = self.sessions[network.name].run_batch(fed)
            outputs, hidden = computed[: len(network.outputs)], computed[len(network.outputs) :]
            for tensor, value in zip((*network.hidden, *network.outputs), (*hidden, *outputs), strict=True):
                variables[:, tensor.offset : tensor.offset + tensor.size] = value
        return variables


def follow_secants(losses: Losses, walks: int, seed: int, clock: Clock, accept: Accept) -> bool:
    """Whether one of so many walks through each box came to a point that was accepted as a witness in time.

    The first walk of a box starts at its centre, the others at random points.
    """
    generator = np.random.default_rng(seed)
    cases = losses.cases
    try:
        for walk in range(walks):
            for region, (lower, upper) in enumerate(zip(cases.lower, cases.upper, strict=True)):
                share = generator.random(len(lower)) if walk else 0.5
                if _walk(losses, region, lower + share * (upper - lower), clock, accept):
                    return True
    except OutOfTime:
        pass
    return False


def _walk(losses: Losses, region: int, point: Points, clock: Clock, accept: Accept) -> bool:
    """Walk from a point ``(n,)`` of a box towards the satisfaction of the cases that are near. Raises OutOfTime."""
    lower, upper = losses.cases.lower[region], losses.cases.upper[region]
    width, middle = upper - lower, (lower + upper) / 2
    near = _nearest(losses, region, point, clock)
    length, least = 0.5, np.inf
    for step in range(STEPS):
        slopes = _secants(losses, near, point, length * width, middle, clock)
        reach = width if step == 0 else length * width
        ends = np.clip(point - reach * np.sign(slopes), lower, upper)
        loss = np.diagonal(losses.of(len(near), _parts_of(ends), clock)[:, near])
        best = int(loss.argmin())
        if loss[best] <= 0 and accept(ends[best], region):
            return True
        if loss[best] < least:
            least, point = loss[best], ends[best]
        else:
            length /= 2
    return False


def _parts_of(points: Points) -> PointsOf:
    return lambda start, stop: points[start:stop]


def _nearest(losses: Losses, region: int, point: Points, clock: Clock) -> NDArray[np.int64]:
    """The cases of a box that have the least losses at a point."""
    inside = np.flatnonzero(losses.cases.region == region)
    [here] = losses.of(1, _parts_of(point[None]), clock)
    return inside[here[inside].argsort()[:NEAREST]]


def _secants(
    losses: Losses, near: NDArray[np.int64], point: Points, width: Points, middle: Points, clock: Clock
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

    every = losses.of(len(moving) + 1, moved, clock)[:, near]
    slopes = np.zeros((len(near), len(point)))
    with np.errstate(invalid="ignore"):
        slopes[:, moving] = np.nan_to_num((every[1:] - every[0]) / moves[:, None]).T
    return slopes
