"""Atoms that were bounded in numpy (`toolkit.quick_proof`), compared with onnxruntime. No torch, unless they differ.

Values of the steps at points come with the errors of an evaluation in floating point, by the two estimates of
`toolkit.problem.evaluate_program`: bounds by absolute coefficients, and disturbed copies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.agreement.against_onnxruntime import ValueComparison
from toolkit.agreement.query_samples import Array, OnnxReference, QuerySamples
from toolkit.errors import UnsupportedError
from toolkit.problem.cases import Cases
from toolkit.proof.linear_maps import LinearMap
from toolkit.proof.network import Activation, AffineStep, MaxStep, ProofNetwork
from toolkit.quick_proof import StepQuestion
from toolkit.tuning import tuned

if TYPE_CHECKING:
    from toolkit.agreement.bounded_networks import BoundedNetworks

ROUNDINGS_BESIDE_SUM = 64
"""Roundings of a value besides those of its sum: a step's coefficients may be what a few operators made."""


@dataclass(frozen=True)
class StepValues:
    """Values ``(B, N)``, a bound on the distance of another evaluation, and disturbed copies ``(COPIES, B, N)``."""

    value: Array
    error: Array
    copies: Array
    summed: float = 0.0
    """Total magnitude of the terms of a sum, at most."""

    @property
    def tolerance(self) -> Array:
        """How far the value of another evaluation may be away, ``(B, N)``: the smaller of both estimates."""
        spread = np.abs(self.copies - self.value).max((0, 1), initial=0.0)
        return np.fmin(self.error, tuned().agreement.spread_factor * spread)


@dataclass
class StepEvaluation:
    """Values of the steps of a network at points ``(B, n)``, given up to an error; operations round to ``unit``."""

    network: ProofNetwork
    points: Array
    error: Array
    unit: float
    values: dict[int, StepValues] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(0)
        copies = np.broadcast_to(self.points, (tuned().agreement.disturbed_copies, *self.points.shape))
        self.values[0] = StepValues(self.points, self.error, copies + self.error * self._signs(copies.shape))
        with np.errstate(over="ignore", invalid="ignore"):
            for step in self.network.steps:
                self.values[step.value] = self._affine(step) if isinstance(step, AffineStep) else self._elements(step)

    @property
    def reach(self) -> Array:
        """Largest number at each point, and of all terms of sums, ``(B,)``."""
        summed = max(found.summed for found in self.values.values())
        sizes = [np.abs(found.value).max(1, initial=0.0) for found in self.values.values()]
        return np.maximum(np.max(sizes, 0), summed)

    def _signs(self, shape: tuple[int, ...]) -> Array:
        return self.generator.integers(0, 2, shape).astype(np.float64) * 2 - 1

    def _affine(self, step: AffineStep) -> StepValues:
        bias = np.zeros(self.network.sizes[step.value]) if step.bias is None else step.bias
        sources = [(self.values[source], linear) for source, linear in step.terms]
        count = sum(linear.terms[0] + 1 for _, linear in step.terms) + ROUNDINGS_BESIDE_SUM
        factor = count * self.unit / (1 - count * self.unit) if count * self.unit < 1 else math.inf
        usual = min(factor, ROUNDINGS_BESIDE_SUM * math.ceil(math.sqrt(count)) * self.unit)
        sizes = [(linear.magnitude, np.abs(source.value), source.error) for source, linear in sources]
        size = sum((by.forward(value) for by, value, _ in sizes), np.abs(bias))
        distance = sum((by.forward(error) for by, _, error in sizes), factor * size)
        value = sum((linear.forward(source.value) for source, linear in sources), bias)
        copies = sum((_of_copies(linear, source.copies) for source, linear in sources), bias)
        summed = float(size.max(initial=0.0))
        return StepValues(value, distance, copies + usual * size * self._signs(copies.shape), summed)

    def _elements(self, step: Activation | MaxStep) -> StepValues:
        """The values of a nonlinear step. No piecewise linear function rounds, but by a factor."""
        z = self.values[step.source]
        value, copies = applied(step, z.value), applied(step, z.copies)
        ends = applied(step, z.value - z.error), applied(step, z.value + z.error)
        error = np.maximum(*(np.abs(end - value) for end in ends))
        rounded: Array | float = 0.0
        if isinstance(step, Activation) and step.name == "bend":
            error = max(1.0, abs(step.parameters[0])) * z.error
            rounded = 2 * self.unit * np.abs(value)
        elif isinstance(step, Activation) and step.name == "tanh":
            rounded = ROUNDINGS_BESIDE_SUM * self.unit * (np.abs(value) + 1.0)
        return StepValues(value, error + rounded, copies + rounded * self._signs(copies.shape))


def applied(step: Activation | MaxStep, z: Array) -> Array:
    """The function of a nonlinear step of values ``(..., n)``."""
    if isinstance(step, MaxStep):
        taps = [np.where(tap >= 0, z[..., np.maximum(tap, 0)], -np.inf) for tap in step.windows.T]
        return np.maximum.reduce(taps)
    if step.name == "bend":
        return np.where(z < 0, step.parameters[0] * z, z)
    if step.name == "clip":
        low, high = step.parameters
        return np.clip(z, low, high)
    scale, height, shift = step.parameters
    return shift + height * np.tanh(scale * z)


def _of_copies(linear: LinearMap, copies: Array) -> Array:
    """A linear map of copies ``(COPIES, B, n)``."""
    return linear.forward(copies.reshape(-1, copies.shape[-1])).reshape(*copies.shape[:-1], -1)


@dataclass(frozen=True)
class BoundedSteps:
    """The steps of a network, the last of which gives the atoms, that were bounded on all boxes of a query."""

    question: StepQuestion
    cases: Cases
    networks: Callable[[], BoundedNetworks]
    """The query with its networks imported, which takes torch."""

    @property
    def regions(self) -> NDArray[np.int64]:
        return np.arange(len(self.cases.lower))

    @property
    def work(self) -> int:
        """Multiplications of one evaluation."""
        return self.question.costs[self.question.atoms]

    def compare(self, samples: QuerySamples, original: OnnxReference) -> ValueComparison:
        """Compare the values of the atoms by the bounded steps with those by the networks in their files."""
        unit = original.unit + np.finfo(np.float64).eps
        found = StepEvaluation(self.question.network, samples.points, samples.error, unit).values[self.question.atoms]
        reference = self.cases.atoms.values(original.query.monomials(samples.variables))
        return ValueComparison(found.value, found.tolerance, reference)

    def looked_into(self, samples: QuerySamples, original: OnnxReference) -> Array:
        """How far rounding may put atoms apart, ``(B, m)``: that of the features, through the atoms' coefficients.

        Zero where the networks cannot be imported.
        """
        try:
            features = self.networks().looked_into(samples, original.unit)
        except UnsupportedError:
            return np.zeros((len(samples), len(self.cases.atoms)))
        matrix, _ = self.cases.dense(self.cases.used)
        return features @ np.abs(matrix).T

    def reach(self, samples: QuerySamples) -> Array:
        """Largest number of any step's value, and of all terms of its sums, at each sample, ``(B,)``.

        Importing torch for the tensors themselves would take longer than the proof.
        """
        return StepEvaluation(self.question.network, samples.points, samples.error, 0.0).reach

    def explain(self, samples: QuerySamples, row: int, column: int) -> str:
        point = np.array2string(samples.points[row], precision=9, threshold=8)
        return f"the left-hand side of atom {column}, as read without torch, at the input {point}"
