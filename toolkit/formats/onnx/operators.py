"""Which operators of ONNX the verifier can bound, told without torch, so that what it cannot is said at once.

`toolkit.problem.operator_survey` finds out what it really makes of a network. A test runs it on examples of every
operator of the standard, and compares.
"""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import STANDARD, constant_names, describe, live_nodes, refusal
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.ops import ONNX, OperatorKind

BOUNDED = frozenset(name for name, operator in ONNX.items() if operator.kind is not OperatorKind.REFUSED)
"""Operators that are bounded, or vanish when shapes are concrete."""

FLOATS = frozenset({"float16", "float32", "float64"})
"""Element types that an input may have."""


def check_inputs(model: OnnxModel) -> None:
    """Raise UnsupportedError for inputs that are not floating-point numbers."""
    for info in model.inputs:
        if info.dtype not in FLOATS:
            raise UnsupportedError(f"{model.path}: input {info.name!r} has element type {info.dtype}; only floating "
                                   "point inputs can be bounded")  # fmt: skip


def check_operators(model: OnnxModel, outputs: Iterable[str] | None = None) -> None:
    """Raise UnsupportedError for the first node that is known to have no bounds and that the (given) outputs need.

    Told from the graph alone, at once. That none is found does not say that the model can be bounded.
    """
    graph = model.proto.graph
    nodes = live_nodes(graph, outputs)
    initializers = [tensor.name for tensor in graph.initializer]
    constants = constant_names(nodes, [*initializers, *(tensor.values.name for tensor in graph.sparse_initializer)])
    functions = {(function.domain, function.name) for function in model.proto.functions}
    for node in nodes:
        if all(name in constants for name in node.output if name) or (node.domain, node.op_type) in functions:
            continue
        reason = refusal(node, constants)
        if not reason and (node.domain not in STANDARD or node.op_type not in BOUNDED):
            reason = "not supported: no bounding rule"
        if reason:
            raise UnsupportedError(f"{describe(model.path, model.opset, node)}: {reason}")


def onnx_operators() -> list[str]:
    """Names in ONNX of the operators that can be bounded or evaluated, sorted."""
    return sorted(BOUNDED)
