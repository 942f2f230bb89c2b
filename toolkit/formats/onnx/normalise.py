"""A model as an equivalent one of few operators: what the importer reads.

At concrete shapes (`toolkit.formats.onnx.probe`) everything that does not depend on the inputs becomes an initializer,
and operators that only move values get their parameters as attributes, in a domain of our own (``STATIC``); what they
mean no longer depends on the operator set version. All other operators are emitted unchanged at one version of the
default operator set, at which their meaning is that of the version the file was written for
(`toolkit.formats.onnx.node_rewrites` sees to the exceptions).
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import onnx
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError, one_line
from toolkit.formats.onnx.branches import with_known_branches
from toolkit.formats.onnx.dependence import STANDARD, live_nodes, record
from toolkit.formats.onnx.functions import BY_BODY, expanded
from toolkit.formats.onnx.graph_builder import REWRITES, STATIC, GraphBuilder
from toolkit.formats.onnx.ml_operators import ML_DOMAIN, without_ml_operators
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.probe import TensorFacts, probe
from toolkit.formats.onnx.refused_types import check_precision, check_quantised
from toolkit.formats.onnx.runtime import Session

OPSET = 17
OLDEST_OPSET = 7
"""Before it, binary operators broadcast in another way."""


@dataclass(frozen=True, eq=False)
class Normalised:
    """An equivalent model, with what the original computes for the sample inputs."""

    proto: onnx.ModelProto
    facts: TensorFacts
    source_nodes: dict[str, onnx.NodeProto]
    """Node of the source graph by the name of the emitted node that came from it."""
    outputs: list[NDArray[Any]]
    """What onnxruntime makes of the file as it is, functions not expanded, of the sample inputs."""


def normalise(model: OnnxModel) -> Normalised:
    """Write ``model`` with few operators at its concrete shapes.

    Raises UnsupportedError, naming file, operator and node, for control flow, randomness and shapes or parameters
    that depend on the values of the inputs.
    """
    original, model = model, _plain(model)
    if model.opset < OLDEST_OPSET:
        raise UnsupportedError(
            f"{model.path}: operator set {model.opset} is too old; convert it with onnx.version_converter to 13"
        )
    facts = probe(model)
    check_precision(facts)
    if _uses(model, {"QuantizeLinear"}):
        check_quantised(model, facts)
    builder = GraphBuilder(facts)
    origins: list[onnx.NodeProto] = []
    for node in facts.nodes:
        if not all(name in facts.constants for name in node.output if name):
            _emit(node, facts, builder)
            origins.extend([node] * (len(builder.nodes) - len(origins)))
    names = [f"{node.op_type}_{index}" for index, node in enumerate(builder.nodes)]
    for name, node in zip(names, builder.nodes, strict=True):
        node.name = name
    outputs = [builder.static("Output", [info.name]) for info in model.outputs]
    for index, node in enumerate(builder.nodes[len(names) :]):
        node.name = f"Output_{index}"
    expected = [facts.values[info.name] for info in model.outputs]
    if model is not original:
        expected = Session(original, optimise=False).run_undeclared([facts.values[info.name] for info in model.inputs])
    proto = _assemble(model, facts, builder, outputs)
    return Normalised(proto, facts, dict(zip(names, origins, strict=True)), expected)


def _emit(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    if node.domain not in STANDARD:
        raise UnsupportedError(f"{facts.where(node)}: operators of the domain {node.domain!r} are not supported")
    if not record(node).reads_sequences and any(isinstance(facts.values.get(name), list) for name in node.input):
        raise UnsupportedError(f"{facts.where(node)}: not supported for sequences of tensors")
    emit = REWRITES.loaded().get(node.op_type, _copy)
    try:
        emit(node, facts, builder)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # rules are short, and forms of nodes many
        reason = one_line(error, 160)
        raise UnsupportedError(f"{facts.where(node)}: this form of it is not supported ({reason})") from error


def _copy(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Emit a node unchanged, if it can be said at version ``OPSET``."""
    try:
        known = onnx.defs.get_schema(node.op_type, max_inclusive_version=OPSET).attributes
    except onnx.defs.SchemaError:
        raise UnsupportedError(f"{facts.where(node)}: not supported") from None
    for attribute in node.attribute:
        if attribute.name not in known:
            raise UnsupportedError(f"{facts.where(node)}: its attribute {attribute.name!r} is not supported")
    builder.copy(node, facts.used)


def _plain(model: OnnxModel) -> OnnxModel:
    """The model without functions and scikit-learn's operators, and without choices among branches that are known."""
    while True:
        if model.proto.functions or _uses(model, BY_BODY):
            model = expanded(model)
        if any(node.domain == ML_DOMAIN for node in model.proto.graph.node):
            model = without_ml_operators(model)
        chosen = with_known_branches(model) if _uses(model, {"If"}) else model
        if chosen is model:
            return model
        model = chosen


def _uses(model: OnnxModel, operators: Container[str]) -> bool:
    """Whether a model has one of some operators of the standard."""
    return any(node.op_type in operators and node.domain in STANDARD for node in model.proto.graph.node)


def _assemble(model: OnnxModel, facts: TensorFacts, builder: GraphBuilder, outputs: list[str]) -> onnx.ModelProto:
    """The model made of the emitted nodes that the outputs need and the constants that these need."""
    nodes = live_nodes(builder.nodes, outputs)
    used = {name for node in nodes for name in node.input if name}
    originals = {tensor.name: tensor for tensor in model.proto.graph.initializer}
    produced = {name for node in nodes for name in node.output}
    free = sorted(used - produced - {info.name for info in model.inputs})
    initializers = [_initializer(name, originals, builder, facts) for name in free]
    graph = onnx.helper.make_graph(
        nodes,
        "normalised",
        [_value_info(info.name, facts.values[info.name]) for info in model.inputs],
        [_value_info(name, facts.values[info.name]) for name, info in zip(outputs, model.outputs, strict=True)],
        initializers,
        value_info=[_value_info(name, facts.values[name]) for name in sorted(produced) if name in facts.values],
    )
    opsets = [onnx.helper.make_opsetid("", OPSET), onnx.helper.make_opsetid(STATIC, 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)


def _initializer(
    name: str, originals: dict[str, onnx.TensorProto], builder: GraphBuilder, facts: TensorFacts
) -> onnx.TensorProto:
    if name in builder.initializers:
        return builder.initializers[name]
    if name in originals:
        return originals[name]
    if name not in facts.constants:
        raise UnsupportedError(f"{facts.path}: the tensor {name!r} is an output of its node that is not supported")
    return onnx.numpy_helper.from_array(facts.values[name], name)


def _value_info(name: str, value: NDArray[Any]) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
