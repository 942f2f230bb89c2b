"""What a model computes at its concrete shapes, learnt by running it once with every tensor as an output.

One run of onnxruntime gives the shape of every tensor, the value of every tensor that does not depend on the inputs
(shape arithmetic, folded weights), and the outputs that an importer can be compared with. It replaces symbolic shape
inference, which does not know every operator and every exporter's habits.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import (
    constant_names,
    describe,
    live_nodes,
    operands,
    refusal,
)
from toolkit.formats.onnx.element_types import (
    BFLOAT16,
    FEW_BITS,
    NARROWEST,
    as_float32,
    bfloat16_tensors,
    mentioned_types,
    tensors_of,
)
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session


@dataclass(frozen=True)
class TensorFacts:
    """Shapes and values of the tensors of a graph, from one run at its concrete shapes."""

    path: Path
    opset: int
    values: Mapping[str, NDArray[Any]]
    """Value of every tensor at the sample input, by name."""
    constants: frozenset[str]
    """Tensors that do not depend on the inputs: their value in ``values`` is their value always."""
    nodes: tuple[onnx.NodeProto, ...]
    """The nodes that the outputs of the model depend on, in order."""
    used: frozenset[str]
    """Tensors that one of these nodes or the caller reads."""

    @cached_property
    def names(self) -> frozenset[str]:
        """Names of all tensors of the graph."""
        return frozenset(self.values) | self.used

    def shape(self, name: str) -> tuple[int, ...]:
        """Concrete shape of a tensor."""
        return tuple(self.values[name].shape)

    def size(self, name: str) -> int:
        """Number of elements of a tensor, or of all tensors of a sequence; 0 for one that is not in the file."""
        if name not in self.values:
            return 0
        value = self.values[name]
        return sum(part.size for part in value) if isinstance(value, list) else int(np.size(value))

    def constant(self, name: str, node: onnx.NodeProto) -> NDArray[Any]:
        """Value of a constant tensor; UnsupportedError when it depends on the inputs of the network."""
        if name not in self.constants:
            raise UnsupportedError(f"{self.where(node)}: its operand {name!r} depends on the input of the network")
        return self.values[name]

    def where(self, node: onnx.NodeProto) -> str:
        """File, operator, version and node, for messages."""
        return describe(self.path, self.opset, node)


def sample_inputs(model: OnnxModel, seed: int = 0) -> list[NDArray[Any]]:
    """Inputs between 0 and 1 (0 or 1 for integers) in the model's shapes and element types."""
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.random(info.shape).round(3), dtype=info.dtype) for info in model.inputs]


class _Arrays(Mapping[str, NDArray[Any]]):
    """Initializers as arrays, made when they are asked for: most weights never are."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._tensors: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = {
            tensor.name: tensor for tensor in graph.initializer
        }
        self._tensors.update({tensor.values.name: tensor for tensor in graph.sparse_initializer})
        self._tensors.update(sparse_constants(graph))
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._arrays:
            tensor = self._tensors[name]
            dense = isinstance(tensor, onnx.TensorProto)
            self._arrays[name] = onnx.numpy_helper.to_array(tensor) if dense else _densified(tensor)
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def sparse_constants(graph: onnx.GraphProto) -> dict[str, onnx.SparseTensorProto]:
    """Results of Constant nodes with few elements that are not zero; onnxruntime returns them in a form of its own."""
    return {
        node.output[0]: entry.sparse_tensor
        for node in graph.node
        if node.op_type == "Constant"
        for entry in node.attribute
        if entry.name == "sparse_value"
    }


def _densified(tensor: onnx.SparseTensorProto) -> NDArray[Any]:
    """A sparse initializer with its zeros; its indices are positions in the flat tensor, or rows of coordinates."""
    values, indices = onnx.numpy_helper.to_array(tensor.values), onnx.numpy_helper.to_array(tensor.indices)
    dense = np.zeros(tuple(tensor.dims), dtype=values.dtype)
    places = np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)
    dense[places] = values
    return dense


def probe(model: OnnxModel) -> TensorFacts:
    """Run ``model`` once on `sample_inputs` and keep every tensor.

    Raises UnsupportedError, before anything is run, for graphs that are random or whose shapes are not fixed.
    """
    graph = model.proto.graph
    nodes, initializers = live_nodes(graph.node, [info.name for info in model.outputs]), _Arrays(graph)
    constants = constant_names(nodes, initializers)
    for node in nodes:
        if reason := refusal(node, constants):
            raise UnsupportedError(f"{describe(model.path, model.opset, node)}: {reason}")
    types = mentioned_types(model.proto)
    unread = _few_bits(model, constants) if types & FEW_BITS else frozenset()
    unread |= sparse_constants(graph).keys()
    names = [name for node in nodes for name in node.output if name and name not in unread]
    inputs = sample_inputs(model)
    computed = {info.name: array for info, array in zip(model.inputs, inputs, strict=True)}
    computed.update(_run(model, names, inputs, types))
    # The type asks for mutable mappings; nothing is ever written to it.
    values = ChainMap(computed, initializers)  # type: ignore[arg-type]
    used = frozenset(name for node in nodes for name in operands(node)) | {info.name for info in model.outputs}
    return TensorFacts(model.path, model.opset, values, constants, nodes, used)


def _few_bits(model: OnnxModel, constants: frozenset[str]) -> frozenset[str]:
    """Constants of less than a byte, whose values are not asked for. Raises UnsupportedError where others are so."""
    found = tensors_of(model, FEW_BITS)
    if varying := sorted(found - constants):
        raise UnsupportedError(f"{model.path}: the tensor {varying[0]!r} is quantised to less than 8 bits, which is "
                               "supported for constants only; quantise activations to 8 or 16 bits")  # fmt: skip
    return found


def _run(
    model: OnnxModel, names: list[str], inputs: list[NDArray[Any]], types: set[int]
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Values of the outputs and of all other tensors, by name; ``types`` are the element types that the model names."""
    outputs = [info.name for info in model.outputs]
    if narrow := sorted(NARROWEST[kind] for kind in types if kind in NARROWEST):
        raise UnsupportedError(f"{model.path}: the element type {narrow[0]} is not supported")
    unreadable = bfloat16_tensors(model)
    refused = sorted(unreadable & {*outputs, *(info.name for info in model.inputs)})
    if refused:
        raise UnsupportedError(f"{model.path}: the tensor {refused[0]!r} has element type bfloat16, which onnxruntime "
                               "neither takes nor returns as an array; convert it to float32")  # fmt: skip
    read: dict[str, str] = {}
    if unreadable:
        model, read = as_float32(model, [name for name in names if name in unreadable])
    hidden = [read.get(name, name) for name in names]
    for name, value in zip(
        outputs + names, Session(model, hidden=hidden, optimise=False).run_undeclared(inputs), strict=True
    ):
        yield name, value.astype(BFLOAT16) if name in read else value
