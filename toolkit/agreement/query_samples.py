"""Points of a query's boxes, and what onnxruntime makes of them with the networks in their files. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import DisagreementError
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.witness import round_into
from toolkit.formats.vnnlib.query import Network, Query
from toolkit.problem.cases import Cases
from toolkit.tuning import tuned

Array = NDArray[np.float64]
Candidate = tuple[Array, int]
"""A point ``(n,)`` and its region."""

UNITS = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
"""Relative error of one operation by element type."""
LARGEST = {"float16": 65504.0, "bfloat16": 3.38e38, "float32": 3.4028234e38, "float64": 1.7976931e308}
"""Largest finite number by element type."""


@dataclass(frozen=True)
class QuerySamples:
    """Points of boxes with the values of all variables there."""

    points: Array
    """``(B, n)``, inside their boxes."""
    error: Array
    """How far the numbers that the networks got are from the points: some boxes hold none of them. ``(B, n)``."""
    region: NDArray[np.int64]
    """Box of each point, by its number in the query, ``(B,)``."""
    variables: Array
    """All variables of the query, ``(B, num_variables)``, inputs as the points say."""

    def __len__(self) -> int:
        return len(self.points)

    def first(self, count: int) -> QuerySamples:
        """The first ``count`` samples."""
        return QuerySamples(self.points[:count], self.error[:count], self.region[:count], self.variables[:count])


@dataclass(frozen=True)
class OnnxReference:
    """A query's networks, run by onnxruntime from their files, and which of their tensors are looked at."""

    query: Query
    cases: Cases
    sessions: Mapping[str, Session]
    """By name of the network; with the tensor that goes into a last softmax where `scores` has the network."""
    scores: frozenset[str] = frozenset()
    """Networks whose scores stand for their outputs, which are only compared."""

    @property
    def unit(self) -> float:
        """Relative error of one operation in the coarsest element type of the networks."""
        return max(UNITS.get(name, UNITS["float32"]) for name in self._types())

    @property
    def largest(self) -> float:
        """Number beyond which some value of the networks overflows."""
        return min(LARGEST.get(name, LARGEST["float32"]) for name in self._types())

    @property
    def rounded_boxes(self) -> tuple[Array, Array]:
        """The boxes, ``(R, n)`` each, with what their bounds are rounded to in the networks' types."""
        sides, start = (self.cases.lower.copy(), self.cases.upper.copy()), 0
        for network in self.query.networks:
            for tensor, info in zip(network.inputs, self.sessions[network.name].inputs, strict=True):
                part = slice(start, start + tensor.size)
                start += tensor.size
                for side, pick in zip(sides, (np.minimum, np.maximum), strict=True):
                    side[:, part] = pick(side[:, part], side[:, part].astype(info.dtype).astype(np.float64))
        return sides

    def _types(self) -> set[str]:
        return {info.dtype for session in self.sessions.values() for info in (*session.inputs, *session.outputs)}

    def sample(self, regions: NDArray[np.int64], count: int, candidates: Sequence[Candidate] = ()) -> QuerySamples:
        """About so many points of some regions, at least one of each that is looked at."""
        limits = tuned().agreement
        spread = np.linspace(0, len(regions) - 1, min(limits.most_regions, len(regions)))
        chosen = regions[np.unique(spread.astype(np.int64))]
        inside = [(point, region) for point, region in candidates if region in regions]
        liked = inside[-min(limits.kept_candidates, count) :]
        found = [*liked, *_spread(self.cases, chosen, max(1, -(-count // len(chosen))))]
        points, fed = zip(*(self._rounded(point, region) for point, region in found), strict=True)
        wanted, given = np.stack(points), np.stack(fed)
        variables = self.query.assignments(given, self._run)
        variables[:, self.cases.inputs] = wanted
        return QuerySamples(wanted, np.abs(wanted - given), np.array([region for _, region in found]), variables)

    def fused_difference(self) -> float:
        """How far results are from these, at samples of the boxes, where onnxruntime runs quantised networks as it does
        by itself, with operators of integers in place of the standard's; 0 where only rounding tells them apart."""
        fused = {name: session.fused for name, session in self.sessions.items()}
        if all(fused[name] is session for name, session in self.sessions.items()):
            return 0.0
        limits = tuned().agreement
        points = self.sample(np.unique(self.cases.region), limits.points_of_fused).variables
        largest = 0.0
        for network in self.query.networks:
            given = [points[:, tensor.offset : tensor.offset + tensor.size] for tensor in network.inputs]
            plain, other = (sessions[network.name].run_batch(given) for sessions in (self.sessions, fused))
            for mine, theirs in zip(plain, other, strict=True):
                apart = np.abs(mine.astype(np.float64) - theirs)
                steps = ~(apart <= limits.large_tolerance * np.maximum(1.0, np.abs(mine)))
                largest = max(largest, float(np.nan_to_num(apart[steps], nan=np.inf).max(initial=0.0)))
        return largest

    def _rounded(self, point: Array, region: int) -> tuple[Array, Array]:
        """The point of the box nearest to numbers that the networks take, and these numbers, ``(n,)`` each."""
        lower, upper = self.cases.lower[region], self.cases.upper[region]
        real, fed, start = [], [], 0
        for network in self.query.networks:
            for tensor, info in zip(network.inputs, self.sessions[network.name].inputs, strict=True):
                part = slice(start, start + tensor.size)
                start += tensor.size
                given, stands = round_into(point[part], lower[part], upper[part], np.dtype(info.dtype))
                real.append(stands)
                fed.append(given.astype(np.float64))
        return np.concatenate(real), np.concatenate(fed)

    def _run(self, network: Network, inputs: Sequence[Array]) -> Sequence[Array]:
        """The hidden tensors of a network, then its outputs, or the scores that stand for them, ``(B, size)`` each."""
        computed = self.sessions[network.name].run_batch(inputs)
        outputs, inside = computed[: len(network.outputs)], computed[len(network.outputs) :]
        if network.name not in self.scores:
            return [*inside, *outputs]
        _check_scores(network, inside[0], outputs[0], self.unit)
        return inside[:1]


def _check_scores(network: Network, scores: Array, outputs: Array, unit: float) -> None:
    """Raise DisagreementError unless the outputs ``(B, m)`` are the softmax of the scores, or its logarithm."""
    with np.errstate(invalid="ignore", under="ignore"):
        shifted = scores - scores.max(1, keepdims=True)
        logarithms = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        shares = np.exp(logarithms)
        slack = unit * (64 + scores.shape[1] + 16 * np.abs(scores).max(1, keepdims=True))
        plain = (np.abs(outputs - shares) <= slack * shares + unit**4).all()
        logarithmic = (np.abs(outputs - logarithms) <= slack * (1 + np.abs(logarithms))).all()
    if not (plain or logarithmic):
        raise DisagreementError(
            f"network {network.name}: its outputs are not the softmax of the scores that the proof is about; this is a "
            "fault of the verifier, and nothing is concluded"
        )


def _spread(cases: Cases, regions: NDArray[np.int64], each: int) -> Iterator[Candidate]:
    """Points of regions with their numbers: the centre, two corners, then random corners and points in turn."""
    generator = np.random.default_rng(0)
    for region in regions.tolist():
        lower, upper = cases.lower[region], cases.upper[region]
        for number in range(each):
            share = generator.random(len(lower))
            fixed = {0: np.full(len(lower), 0.5), 1: np.zeros(len(lower)), 2: np.ones(len(lower))}
            share = fixed.get(number, np.round(share) if number % 2 else share)
            yield lower + share * (upper - lower), region
