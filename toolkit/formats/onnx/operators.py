"""Which operators of ONNX the verifier can bound, told without torch, so that what it cannot is said at once.

`toolkit.problem.operator_survey` finds out what it really makes of a network. A test runs it on examples of every
operator of the standard, and compares.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import STANDARD, constant_names, describe, live_nodes, refusal
from toolkit.formats.onnx.ml_operators import ML_DOMAIN, RULES
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
            instead = "in float32" if "float" in info.dtype else "from where on its values are floats"
            raise UnsupportedError(
                f"{model.path}: input {info.name!r} has element type {info.dtype}; only inputs of float16, float32 and "
                f"float64 can be bounded: export the network {instead}"
            )


def check_operators(model: OnnxModel, outputs: Iterable[str] | None = None) -> None:
    """Raise UnsupportedError for the first node that is known to have no bounds and that the (given) outputs need.

    Told from the graph alone, at once. That none is found does not say that the model can be bounded.
    """
    graph = model.proto.graph
    nodes = live_nodes(graph.node, [info.name for info in model.outputs] if outputs is None else outputs)
    initializers = [tensor.name for tensor in graph.initializer]
    constants = constant_names(nodes, [*initializers, *(tensor.values.name for tensor in graph.sparse_initializer)])
    functions = {(function.domain, function.name) for function in model.proto.functions}
    for node in nodes:
        if all(name in constants for name in node.output if name) or (node.domain, node.op_type) in functions:
            continue
        if reason := refusal(node, constants) or _unbounded(node):
            raise UnsupportedError(f"{describe(model.path, model.opset, node)}: {reason}")


def _unbounded(node: onnx.NodeProto) -> str:
    """Why a node's operator has no bounds; empty where it may have some."""
    if (node.domain in STANDARD and node.op_type in BOUNDED) or (node.domain == ML_DOMAIN and node.op_type in RULES):
        return ""
    reason = next((text for part, text in _REASONS if part in f"{node.domain}.{node.op_type}"), "no bounding rule")
    return f"not supported: {reason}"


_RECURRENT = "recurrent layers have no bounding rule; write their steps out with MatMul, Sigmoid, Tanh and Mul"
_TREES = "decision trees have no bounding rule; certify a network or a linear classifier of the same data"
_LOGIC = "no bounding rule; of scikit-learn's classifiers, to_onnx(..., options={'raw_scores': True}) leaves it out"
_INTEGERS = (
    "arithmetic in integers has no bounding rule; quantise statically in QDQ form, which has QuantizeLinear and "
    "DequantizeLinear around operators of floats (onnxruntime: quantize_static(..., quant_format=QuantFormat.QDQ))"
)
_OLD_FORM = (
    "it is bounded as an operator of the standard, which has 16 bits from operator set 21 on; convert the network to "
    "that set before it is quantised"
)
_REASONS = (
    ("com.microsoft.QuantizeLinear", _OLD_FORM), ("com.microsoft.DequantizeLinear", _OLD_FORM),
    ("LSTM", _RECURRENT), ("GRU", _RECURRENT), ("RNN", _RECURRENT), ("Quant", _INTEGERS), ("Integer", _INTEGERS),
    ("QLinear", _INTEGERS), ("QGemm", _INTEGERS), ("TreeEnsemble", _TREES),
    ("SVM", "support vector machines have no bounding rule; LinearSVC has"), ("Not", _LOGIC),
)  # fmt: skip
"""Reasons by a part of an operator's domain and name."""


def onnx_operators() -> list[str]:
    """Names in ONNX of the operators that can be bounded or evaluated, sorted."""
    return sorted(BOUNDED)
