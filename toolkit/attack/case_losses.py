"""How far points are from making a query true, by onnxruntime and numpy. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnnlib.query import Network, Query, reduce_rows
from toolkit.problem.cases import Cases
from toolkit.run.clock import Clock
from toolkit.tuning import tuned

Points = NDArray[np.float64]
PointsOf = Callable[[int, int], Points]
"""The points ``start : stop`` of many, made when they are needed, in this order."""
Accept = Callable[[Points, int], bool]
"""Replays a point ``(n,)`` of a box, which costs a run of the networks; true when it is a witness."""


@dataclass(frozen=True)
class CaseLosses:
    """The loss of a case at a point is the largest of its atoms: at most zero exactly where the case is satisfied."""

    query: Query
    cases: Cases
    sessions: Mapping[str, Session]
    """onnxruntime's sessions, by name of the network."""
    least: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    """The least loss of each case at the points so far, ``(C,)``; infinite where there were none."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "least", np.full(len(self.cases), np.inf))

    def of(self, points: Points, clock: Clock) -> NDArray[np.float64]:
        """Losses ``(B, C)`` of many points, computed some at a time. Raises OutOfTime."""
        return np.concatenate([part for _, part in self.parts(len(points), lambda i, j: points[i:j], clock)])

    def parts(self, count: int, points_of: PointsOf, clock: Clock) -> Iterator[tuple[Points, NDArray[np.float64]]]:
        """Losses of ``count`` points, in parts ``(B, n)`` and ``(B, C)``. Raises OutOfTime.

        A part has as many points as can be evaluated between two looks at the clock, or a fixed number of them where
        passes are counted in place of time.
        """
        start, size = 0, 1
        while start < count:
            clock.check()
            stop, began = min(start + size, count), clock.seconds
            points = points_of(start, stop)
            yield points, self.at(points)
            seconds = (clock.seconds - began) / (stop - start)
            size = tuned().points.per_region if clock.counts_passes else self._at_once(seconds)
            start = stop

    def _at_once(self, seconds: float) -> int:
        """Points between two looks, where one takes so long."""
        held = self.query.num_variables + len(self.cases.atoms.monomial) + len(self.cases.rows)
        limits = tuned().points
        return max(1, min(limits.most_numbers // held, int(limits.seconds_between_clock_checks / max(seconds, 1e-9))))

    def at(self, points: Points) -> NDArray[np.float64]:
        """Losses ``(B, C)`` of points ``(B, n)``; infinite where something is not a number."""
        values = np.nan_to_num(self.atoms(points)[:, self.cases.rows], nan=np.inf, posinf=np.inf, neginf=-np.inf)
        losses = reduce_rows(np.maximum, values, self.cases.starts, -np.inf)
        np.minimum(self.least, losses.min(0, initial=np.inf), out=self.least)
        return losses

    def atoms(self, points: Points) -> NDArray[np.float64]:
        """Left-hand sides of all atoms, ``(B, m)``, at points ``(B, n)``."""
        return self.cases.atoms.values(self.query.monomials(self.query.assignments(points, self._run)))

    def _run(self, network: Network, inputs: Sequence[Points]) -> list[NDArray[Any]]:
        """The hidden tensors of a network, then its outputs, ``(B, size)`` each."""
        computed = self.sessions[network.name].run_batch(inputs)
        return [*computed[len(network.outputs) :], *computed[: len(network.outputs)]]
