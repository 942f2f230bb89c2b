"""The networks that were bounded for a query, as functions to evaluate and to look into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx

from toolkit.agreement.inner_tensors import first_difference, largest_number
from toolkit.agreement.query_samples import Array, QuerySamples
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.vnnlib.query import Query
from toolkit.problem.affine import in_numpy
from toolkit.problem.cases import Cases
from toolkit.problem.compile import Binding, FeatureNetwork, in_double
from toolkit.problem.evaluate_graph import evaluate_graph
from toolkit.problem.trace import trace


@dataclass(frozen=True)
class BoundedNetworks:
    """A query with the networks that were bounded for it, by name: models and what was imported from them."""

    query: Query
    cases: Cases
    models: Mapping[str, OnnxModel]
    bindings: Mapping[str, Binding]

    def features(self, samples: QuerySamples) -> Array:
        """What the atoms are about, by onnxruntime, ``(B, F)``."""
        return self.query.monomials(samples.variables)[:, self.cases.used]

    def evaluated(self, point: Array) -> tuple[NDArray[np.int64], Array, Array]:
        """The variables that the atoms use, their values over the reals at a point ``(n,)``, and bounds on the errors.

        Raises UnsupportedError for what has no bounding rule.
        """
        points = torch.as_tensor(point).unsqueeze(0)
        with torch.no_grad():
            features = evaluate_graph(self.graph(point), points, torch.zeros_like(points), 0.0)
        return self.cases.used, in_numpy(features.value[0]), in_numpy(features.error[0])

    def graph(self, point: Array) -> fx.GraphModule:
        """The features traced at a point anew, operator by operator."""
        features = FeatureNetwork(self.query, in_double(self.bindings), self.cases)
        return trace(lambda x: features(x.unsqueeze(0)).squeeze(0), [torch.as_tensor(point).double()])

    def looked_into(self, samples: QuerySamples, unit: float) -> Array:
        """How far rounding may put the features apart, operator by operator, ``(B, F)``."""
        points, error = torch.as_tensor(samples.points), torch.as_tensor(samples.error)
        return in_numpy(evaluate_graph(self.graph(samples.points[0]), points, error, unit).tolerance)

    def reach(self, samples: QuerySamples) -> Array:
        """Largest number of any tensor of the networks at each sample, ``(B,)``."""
        return largest_number(self.query, self.models, samples.variables)

    def explain(self, samples: QuerySamples, row: int, column: int) -> str:
        """Where a feature comes from, the point, and the first tensor of a network that was imported wrongly."""
        where = self.name(int(self.cases.used[column]))
        point = np.array2string(samples.points[row], precision=9, threshold=8)
        tensor = first_difference(self.query, self.models, self.bindings, samples.variables[row])
        return f"{where} at the input {point}{tensor}"

    def name(self, variable: int) -> str:
        """A variable of the query in words."""
        for tensor in self.query.tensors:
            if tensor.offset <= variable < tensor.offset + tensor.size:
                return f"element {variable - tensor.offset} of {tensor.name}"
        return f"product {variable - self.query.num_variables} of variables"
