"""Atoms bounded in numpy (`toolkit.numpy_prover`), as a thing to judge. No torch, unless something differs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.agreement.against_onnxruntime import ValueComparison
from toolkit.agreement.query_samples import Array, OnnxReference, QuerySamples
from toolkit.errors import UnsupportedError
from toolkit.numpy_prover.crown_proof import LayerQuestion
from toolkit.numpy_prover.evaluate_expressions import evaluate
from toolkit.numpy_prover.neuron_layers import values

if TYPE_CHECKING:
    from toolkit.agreement.bounded_networks import BoundedNetworks


@dataclass(frozen=True)
class BoundedLayers:
    """Expressions over layers that were bounded on all boxes of a query."""

    question: LayerQuestion
    networks: Callable[[], BoundedNetworks]
    """The query with its networks imported, which takes torch."""

    @property
    def regions(self) -> NDArray[np.int64]:
        return np.arange(len(self.question.cases.lower))

    @property
    def work(self) -> int:
        """Multiplications of one evaluation."""
        return self.question.size

    def compare(self, samples: QuerySamples, original: OnnxReference) -> ValueComparison:
        """Compare the values of the atoms by the bounded layers with those by the networks in their files."""
        question, varying = self.question, self.question.varying
        unit = original.unit + np.finfo(np.float64).eps
        found = evaluate(question.atoms, question.layers, samples.points[:, varying], samples.error[:, varying], unit)
        reference = question.cases.atoms.values(original.query.monomials(samples.variables))
        return ValueComparison(found.value, found.tolerance, reference)

    def looked_into(self, samples: QuerySamples, original: OnnxReference) -> Array:
        """That of the features, through the atoms' coefficients; zero where the networks cannot be imported."""
        try:
            features = self.networks().looked_into(samples, original.unit)
        except UnsupportedError:
            return np.zeros((len(samples), len(self.question.cases.atoms)))
        matrix, _ = self.question.cases.dense(self.question.cases.used)
        return features @ np.abs(matrix).T

    def reach(self, samples: QuerySamples) -> Array:
        """That of the neurons as they were read, and of all terms of their sums.

        Importing torch for the tensors themselves would take longer than the proof.
        """
        question = self.question
        found = values(question.layers, samples.points[:, question.varying])
        terms = [rows.magnitude for rows in (*(layer.rows for layer in question.layers), question.atoms)]
        summed = max(float(part.max(initial=0.0)) for part in terms)
        return np.maximum(np.max([np.abs(part).max(1, initial=0.0) for part in found], 0), summed)

    def explain(self, samples: QuerySamples, row: int, column: int) -> str:
        point = np.array2string(samples.points[row], precision=9, threshold=8)
        return f"the left-hand side of atom {column}, as read without torch, at the input {point}"
