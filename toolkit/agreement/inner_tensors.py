"""The tensors inside networks: the largest number, and the first that an import does not compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from toolkit.agreement.query_samples import Array
from toolkit.errors import ToolkitError
from toolkit.formats.onnx.element_types import readable_results
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session, close
from toolkit.formats.vnnlib.query import Network, Query

if TYPE_CHECKING:
    from toolkit.problem.compile import Binding


def largest_number(query: Query, models: Mapping[str, OnnxModel], variables: Array) -> Array:
    """Largest finite number among tensors that nodes of the networks make, for assignments ``(B, num_variables)``."""
    found = np.abs(variables[:, query.inputs]).max(1, initial=0.0)
    for network in query.networks:
        model = models[network.name]
        names = readable_results(model)
        session = Session(model, hidden=names, optimise=False)
        for row, assignment in enumerate(variables):
            for value in session.run(_inputs(network, assignment)):
                if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.size:  # no sequence
                    sizes = np.abs(value[np.isfinite(value)], dtype=np.float64)
                    found[row] = max(found[row], sizes.max(initial=0.0))
    return found


def _inputs(network: Network, assignment: Array) -> list[NDArray[np.float64]]:
    return [assignment[tensor.offset : tensor.offset + tensor.size] for tensor in network.inputs]


def first_difference(
    query: Query, models: Mapping[str, OnnxModel], bindings: Mapping[str, Binding], assignment: Array
) -> str:
    """Words for the first tensor of a network's graph whose import differs from onnxruntime's by much, if any does.

    ``assignment`` are the values of all variables, of which the inputs count.
    """
    try:
        found = next(_differences(query, models, bindings, assignment), None)
    except (ToolkitError, RuntimeError, TypeError, ValueError):  # an explanation that fails is none
        found = None
    return "" if found is None else f" (the first tensor that differs is {found!r}, as imported)"


def _differences(
    query: Query, models: Mapping[str, OnnxModel], bindings: Mapping[str, Binding], assignment: Array
) -> Iterator[str]:
    import torch

    for network in query.networks:
        model, binding = models[network.name], bindings[network.name]
        names = readable_results(model)
        inputs = _inputs(network, assignment)
        expected = Session(model, hidden=names, optimise=False).run(inputs)[len(model.outputs) :]
        given = [
            torch.as_tensor(value.reshape(shape)).to(dtype)
            for value, shape, dtype in zip(inputs, binding.input_shapes, binding.input_dtypes, strict=True)
        ]
        with torch.no_grad():
            imported = binding.module.tensors(*given)  # type: ignore[operator]
        for name, reference in zip(names, expected, strict=True):
            own = imported.get(name)
            if isinstance(own, torch.Tensor) and not close(own.double().numpy().reshape(reference.shape), reference):
                yield name
