"""A network's compilation looked into: every tensor against onnxruntime, and every layer against its operators.

Outputs alone do not tell of what happens where they are flat, a narrow peak between points for instance. Done once for
a program, at the first query's points, where the tensors are not too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, fx

from toolkit.agreement.against_onnxruntime import ValueComparison, agreeing
from toolkit.agreement.bounded_networks import BoundedNetworks
from toolkit.agreement.query_samples import Array, OnnxReference, QuerySamples
from toolkit.errors import DisagreementError, UnsupportedError
from toolkit.formats.onnx.element_types import readable_results
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.onnx.torch_import import ImportedModel
from toolkit.formats.vnnlib.query import Network
from toolkit.problem.compile import Binding, example_point, shared_program
from toolkit.problem.evaluate_graph import evaluate_operators
from toolkit.problem.evaluate_program import evaluate
from toolkit.problem.program import Program, traced_operators
from toolkit.problem.trace import trace
from toolkit.tuning import tuned


def check_inside(networks: BoundedNetworks, samples: QuerySamples, original: OnnxReference) -> None:
    """Raise DisagreementError naming the first tensor, or the first layer, that is not what it should be."""
    shared = shared_program(networks.query, networks.bindings, networks.cases)
    program = shared.program
    seen = next(iter(networks.bindings.values())).inspected
    if id(program) in seen:
        return
    some = samples.first(tuned().agreement.layerwise_samples)
    with torch.no_grad():
        for network in networks.query.networks:
            binding = networks.bindings[network.name]
            _check_tensors(network, networks.models[network.name], binding, some, original)
        _check_layers(replace(networks, cases=shared.cases), program, some)
    seen.add(id(program))


def _check_tensors(
    network: Network, model: OnnxModel, binding: Binding, samples: QuerySamples, original: OnnxReference
) -> None:
    if not isinstance(binding.module, ImportedModel):
        return
    inputs = np.concatenate([np.arange(t.offset, t.offset + t.size) for t in network.inputs])
    columns = np.searchsorted(original.cases.inputs, inputs)
    expected = _by_onnxruntime(network, model, samples)
    if sum(array.shape[1] for array in expected.values()) > tuned().agreement.most_elements:
        return
    points, error = torch.as_tensor(samples.points[:, columns]), torch.as_tensor(samples.error[:, columns])
    names, graph = _traced_tensors(binding, binding.module, points[0], list(expected))
    if not names:  # the network only moves its inputs
        return
    sizes = [expected[name].shape[1] for name in names]
    reference = np.concatenate([expected[name] for name in names], 1)
    try:
        found = evaluate_operators(graph, points, error, original.unit)[""]
    except UnsupportedError:
        return
    if reference.shape != found.value.shape:
        return  # a name that stands for something else after the import is nothing to compare
    comparison = ValueComparison(found.value.numpy(), found.tolerance.numpy(), reference, found.jumps)
    wrong = ~agreeing(comparison, original.largest, partial(_reach, reference)).all(0)
    if wrong.any():
        first = int(np.searchsorted(np.cumsum(sizes), int(np.argmax(wrong)), side="right"))
        raise DisagreementError(
            f"{model.path}: the tensor {names[first]!r} is compiled to something else than onnxruntime computes; this "
            "is a fault of the verifier, and nothing is concluded"
        )


def _reach(reference: Array) -> Array:
    finite = np.where(np.isfinite(reference), np.abs(reference), 0.0)
    return finite.max(1, initial=0.0)


def _by_onnxruntime(network: Network, model: OnnxModel, samples: QuerySamples) -> Mapping[str, Array]:
    """All readable floating-point tensors that some input reaches, ``(B, size)`` each, in the order of the graph."""
    names = readable_results(model)
    session = Session(model, hidden=names, optimise=False)
    rows = []
    for variables in samples.variables:
        inputs = [variables[tensor.offset : tensor.offset + tensor.size] for tensor in network.inputs]
        rows.append(session.run(inputs)[len(model.outputs) :])
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return {
        name: np.stack([np.asarray(value, dtype=np.float64).reshape(-1) for value in values])
        for name, values in columns.items()
        if isinstance(values[0], np.ndarray) and values[0].dtype.kind == "f"  # sequences have no type
    }


def _traced_tensors(
    binding: Binding, module: ImportedModel, point: Tensor, names: list[str]
) -> tuple[list[str], fx.GraphModule]:
    """The floating-point tensors among ``names`` that the import has, and a graph from the network's inputs ``(n,)`` to
    these tensors side by side, ``(m,)``."""
    kept: list[str] = []
    sizes = [int(np.prod(shape)) for shape in binding.input_shapes]

    def tensors(x: Tensor) -> Tensor:
        pieces = zip(x.split(sizes), binding.input_shapes, binding.input_dtypes, strict=True)
        found = module.tensors(*(piece.reshape(shape).to(dtype) for piece, shape, dtype in pieces))
        kept[:] = [name for name in names if isinstance(found.get(name), Tensor) and found[name].is_floating_point()]
        return torch.cat([x[:0], *(found[name].reshape(-1).to(x.dtype) for name in kept)])

    return kept, trace(tensors, [point])


def _check_layers(networks: BoundedNetworks, program: Program, samples: QuerySamples) -> None:
    """Compare the pre-activations of layers with what the operators before them compute.

    ``networks`` has the boxes that the program was traced for, which decide in what units products are bounded.
    """
    graph = traced_operators(networks.graph(example_point(networks.cases)))
    points, error = torch.as_tensor(samples.points), torch.zeros(samples.points.shape, dtype=torch.float64)
    operators = evaluate_operators(graph, points, error, 0.0, copies=0)
    _, layers = evaluate(program, points, error, 0.0, copies=0)
    before = {
        node.name: node.args[0].name for node in graph.graph.nodes if node.args and isinstance(node.args[0], fx.Node)
    }
    for layer, z in zip(program.layers, layers, strict=True):
        own = operators.get(before.get(layer.name, ""))
        if own is None or own.value[0].numel() != layer.affine.size:
            continue
        value, tolerance = own.value.reshape(len(z.value), -1), own.error.reshape(len(z.value), -1)
        comparison = ValueComparison(z.value.numpy(), (z.error + tolerance).numpy(), value.numpy())
        if not agreeing(comparison, np.inf, partial(_reach, comparison.reference)).all():
            raise DisagreementError(
                f"what feeds the layer {layer.name} is not what its operators compute; this is a fault of the "
                "verifier, and nothing is concluded"
            )
