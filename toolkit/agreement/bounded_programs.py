"""Programs that were bounded, and modules that a second backend bounded, compared with onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from toolkit.agreement.against_onnxruntime import ValueComparison
from toolkit.agreement.bounded_networks import BoundedNetworks
from toolkit.agreement.layerwise_check import check_inside
from toolkit.agreement.query_samples import Array, OnnxReference, QuerySamples
from toolkit.errors import DisagreementError
from toolkit.problem.affine import in_numpy
from toolkit.problem.cases import Cases
from toolkit.problem.compile import Problem
from toolkit.problem.evaluate_program import evaluate, transposed_wrongly
from toolkit.problem.sum_rounding import ROUNDINGS_BESIDE_SUM, gamma_at, unit_roundoff
from toolkit.tuning import tuned


@dataclass(frozen=True)
class BoundedProgram:
    """A problem in the precision and on the device that it was bounded in, about some regions of the query."""

    networks: BoundedNetworks
    problem: Problem
    regions: NDArray[np.int64]
    """Number of each of its regions in the query, ``(R',)``."""

    @property
    def work(self) -> int:
        return self.problem.program.cost

    def compare(self, samples: QuerySamples, original: OnnxReference) -> ValueComparison:
        """The features. Raises DisagreementError where the question was changed, or a transpose is of another map."""
        check_question(self.networks, self.problem, self.regions, samples)
        check_inside(self.networks, samples, original)
        program = self.problem.program
        with torch.no_grad():
            points, error = torch.as_tensor(samples.points), torch.as_tensor(samples.error)
            # What a point loses where it is rounded to the program's precision.
            error = error + unit_roundoff(program.dtype) * points.abs()
            try:
                features, _ = evaluate(program, points, error, original.unit)
                wrong = transposed_wrongly(program)
            except torch.OutOfMemoryError:
                raise MemoryError("the device's memory, for comparing what was bounded with onnxruntime") from None
        if wrong is not None:
            names = [*(layer.name for layer in program.layers), "the features"]
            raise DisagreementError(f"the map of {names[wrong]} and its transpose differ: bounds would be of another "
                                    "network; this is a fault of the verifier")  # fmt: skip
        value, tolerance = in_numpy(features.value), in_numpy(features.tolerance)
        return ValueComparison(value, tolerance, self.networks.features(samples), features.jumps)

    def looked_into(self, samples: QuerySamples, original: OnnxReference) -> Array:
        return self.networks.looked_into(samples, original.unit + unit_roundoff(self.problem.program.dtype))

    def reach(self, samples: QuerySamples) -> Array:
        return self.networks.reach(samples)

    def explain(self, samples: QuerySamples, row: int, column: int) -> str:
        return self.networks.explain(samples, row, column)


@dataclass(frozen=True)
class BoundedModule:
    """The features as a torch module in double precision, which a second backend bounded."""

    networks: BoundedNetworks
    features: torch.nn.Module
    regions: NDArray[np.int64]

    @property
    def work(self) -> int:
        """About one multiplication for each parameter, as nothing better is known."""
        return sum(tensor.numel() for tensor in (*self.features.parameters(), *self.features.buffers()))

    def compare(self, samples: QuerySamples, original: OnnxReference) -> ValueComparison:
        """The features, with a tolerance by the operators."""
        device = next(self.features.buffers()).device
        with torch.no_grad():
            points = torch.as_tensor(samples.points, device=device)
            value = torch.cat([self.features(point.unsqueeze(0)) for point in points])
        return ValueComparison(in_numpy(value), self.looked_into(samples, original), self.networks.features(samples))

    def looked_into(self, samples: QuerySamples, original: OnnxReference) -> Array:
        return self.networks.looked_into(samples, original.unit)

    def reach(self, samples: QuerySamples) -> Array:
        return self.networks.reach(samples)

    def explain(self, samples: QuerySamples, row: int, column: int) -> str:
        return self.networks.explain(samples, row, column)


def check_question(
    networks: BoundedNetworks, problem: Problem, regions: NDArray[np.int64], samples: QuerySamples
) -> None:
    """Raise DisagreementError unless boxes hold those of the query, and cases ask what its cases do."""
    cases = networks.cases
    lower, upper = in_numpy(problem.lower), in_numpy(problem.upper)
    if not ((lower <= cases.lower[regions]).all() and (upper >= cases.upper[regions]).all()):
        raise DisagreementError("the boxes that were bounded do not hold those of the specification")
    mine = np.flatnonzero(np.isin(cases.region, regions))
    # Where there are fewer, the others were refuted before, by other means that are judged on their own.
    if len(mine) == problem.num_cases and not _same_cases(problem, regions, cases, mine):
        raise DisagreementError("the cases that were refuted are not those of the specification")
    features, weights, offsets = networks.features(samples), in_numpy(problem.weights), in_numpy(problem.offsets)
    with np.errstate(invalid="ignore", over="ignore"):
        asked = (features @ weights.T + offsets)[:, :-1]
        size = (np.abs(features) @ np.abs(weights).T + np.abs(offsets))[:, :-1]
        expected = cases.atoms.values(networks.query.monomials(samples.variables))
        # Atoms may be asked to exceed more than zero: what is at most zero less something is at most zero.
        wrong = (
            asked - expected
            > gamma_at(features.shape[1] + ROUNDINGS_BESIDE_SUM, unit_roundoff(problem.weights.dtype)) * size
        )
    if wrong.any():
        raise DisagreementError("the atoms that were bounded are not those of the specification")


def _same_cases(problem: Problem, regions: NDArray[np.int64], cases: Cases, numbers: NDArray[np.int64]) -> bool:
    """Whether the cases of a problem are, in order, those with these numbers."""
    if not np.array_equal(regions[problem.region.cpu().numpy()], cases.region[numbers]):
        return False
    rows, always = problem.rows.cpu().numpy(), len(cases.atoms)
    return all(
        set(rows[case].tolist()) == set(cases.rows_of(numbers[case]).tolist() or [always])
        for case in np.unique(np.linspace(0, len(numbers) - 1, tuned().agreement.most_cases).astype(np.int64)).tolist()
    )
