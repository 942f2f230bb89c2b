"""Operators that compute: several spellings become one, and what changed is written at the common version."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.graph_builder import GraphBuilder, rewrite
from toolkit.formats.onnx.node_rewrites.nodes import attribute, double, integers
from toolkit.formats.onnx.probe import TensorFacts
from toolkit.tuning import tuned


@rewrite(
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip
def reduce(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Reduction with its axes as attributes."""
    rank = len(facts.shape(node.input[0]))
    axes = integers(node, facts, "axes", 1) or []
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        _without_axes(node, builder)
        return
    axes = sorted(axis % rank for axis in axes) or list(range(rank))
    keep = attribute(node, "keepdims", 1)
    builder.static(node.op_type, [node.input[0]], node.output[0], axes=axes, keepdims=keep)


def _without_axes(node: onnx.NodeProto, builder: GraphBuilder) -> None:
    """A reduction of no axis: what it does to each element alone."""
    x, y = node.input[0], node.output[0]
    if node.op_type in ("ReduceL1", "ReduceL2"):
        builder.emit("Abs", [x], y)
    elif node.op_type == "ReduceLogSum":
        builder.emit("Log", [x], y)
    elif node.op_type == "ReduceSumSquare":
        builder.emit("Mul", [x, x], y)
    else:
        builder.alias(y, x)


@rewrite("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """A reduction of all axes after batch and channel."""
    axes = list(range(2, len(facts.shape(node.input[0]))))
    op_type = "ReduceMean" if node.op_type == "GlobalAveragePool" else "ReduceMax"
    builder.static(op_type, [node.input[0]], node.output[0], axes=axes, keepdims=1)


@rewrite("Max", "Min", "Sum")
def variadic(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """A chain of operators of two operands."""
    binary = {"Max": "Maximum", "Min": "Minimum", "Sum": "Plus"}[node.op_type]
    current = node.input[0]
    for name in node.input[1:]:
        current = builder.static(binary, [current, name])
    builder.alias(node.output[0], current)


@rewrite("Mean")
def mean(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """The sum divided by the number of operands."""
    current = node.input[0]
    for name in node.input[1:]:
        current = builder.static("Plus", [current, name])
    count = np.asarray(len(node.input), dtype=facts.values[node.output[0]].dtype)
    builder.emit("Div", [current, builder.constant(count)], node.output[0])


@rewrite("Clip")
def clip(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Constant bounds become attributes; bounds that depend on the inputs, Maximum and Minimum."""
    operands = [*node.input[1:3], "", ""][:2]
    if all(not name or name in facts.constants for name in operands):
        defaults = (attribute(node, "min"), attribute(node, "max"))
        bounds = [
            float(facts.values[name].reshape(-1)[0]) if name else default
            for name, default in zip(operands, defaults, strict=True)
        ]
        given = {key: bound for key, bound in zip(("min", "max"), bounds, strict=True) if bound is not None}
        builder.static("Clip", [node.input[0]], node.output[0], **{key: double(b) for key, b in given.items()})
        return
    current = node.input[0]
    for binary, name in zip(("Maximum", "Minimum"), operands, strict=True):
        current = builder.static(binary, [current, name]) if name else current
    builder.alias(node.output[0], current)


@rewrite("Pow")
def power(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """A constant scalar exponent becomes an attribute."""
    exponent = facts.values[node.input[1]]
    if node.input[1] in facts.constants and exponent.size == 1 and exponent.ndim <= len(facts.shape(node.input[0])):
        builder.static("Power", [node.input[0]], node.output[0], exponent=double(float(exponent.reshape(-1)[0])))
    else:
        builder.copy(node, facts.used)


@rewrite("Gemm")
def gemm(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """With constant weights, Gemm with a bias of one axis (a linear layer); else MatMul and Add."""
    a, b, *rest = node.input
    bias = rest[0] if rest and rest[0] else ""
    constant = {b, bias or b} <= facts.constants
    if constant and not attribute(node, "transA", 0) and (not bias or _is_row(facts.values[bias])):
        columns = facts.shape(node.output[0])[1]
        row = [builder.constant(np.broadcast_to(facts.values[bias].reshape(-1), columns))] if bias else []
        kept = {name: attribute(node, name, default) for name, default in _GEMM_DEFAULTS.items()}
        builder.emit("Gemm", [a, b, *row], node.output[0], **kept)
        return
    a, b = (
        builder.emit("Transpose", [name], perm=[1, 0]) if attribute(node, flag, 0) else name
        for name, flag in ((a, "transA"), (b, "transB"))
    )
    product = _scaled(builder, facts, builder.emit("MatMul", [a, b]), node, "alpha")
    if bias:
        product = builder.emit("Add", [product, _scaled(builder, facts, bias, node, "beta")])
    builder.alias(node.output[0], product)


_GEMM_DEFAULTS = {"alpha": 1.0, "beta": 1.0, "transB": 0}


def _is_row(bias: NDArray[Any]) -> bool:
    """Whether a bias is the same for every row of the product."""
    return bias.ndim < 2 or bias.shape[0] == 1


def _scaled(builder: GraphBuilder, facts: TensorFacts, name: str, node: onnx.NodeProto, attribute_name: str) -> str:
    factor = attribute(node, attribute_name, 1.0)
    if factor == 1.0:
        return name
    return builder.emit("Mul", [name, builder.constant(np.asarray(factor, dtype=facts.values[node.output[0]].dtype))])


@rewrite("Softmax", "LogSoftmax")
def softmax(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Along one axis; before operator set 13, along all axes from the given one on."""
    if facts.opset >= 13:
        builder.emit(node.op_type, [node.input[0]], node.output[0], axis=attribute(node, "axis", -1))
        return
    shape = facts.shape(node.input[0])
    axis = attribute(node, "axis", 1) % len(shape)
    rows = [math.prod(shape[:axis]), math.prod(shape[axis:])]
    flat = builder.static("View", [node.input[0]], shape=rows)
    result = builder.emit(node.op_type, [flat], axis=-1)
    builder.static("View", [result], node.output[0], shape=list(shape))


@rewrite("BatchNormalization")
def batch_normalisation(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Only epsilon matters at inference."""
    if attribute(node, "spatial", 1) != 1:
        raise UnsupportedError(f"{facts.where(node)}: spatial=0 is not supported")
    if attribute(node, "training_mode", 0):
        raise UnsupportedError(f"{facts.where(node)}: in training mode; export in evaluation mode")
    builder.emit(node.op_type, list(node.input), node.output[0], epsilon=attribute(node, "epsilon", 1e-5), momentum=0.9)


@rewrite("Trilu")
def trilu(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Multiplication by a constant triangle of ones."""
    value = facts.values[node.input[0]]
    k = int(facts.constant(node.input[1], node).reshape(-1)[0]) if len(node.input) > 1 and node.input[1] else 0
    triangle = np.triu if attribute(node, "upper", 1) else np.tril
    mask = triangle(np.ones(value.shape[-2:], dtype=bool), k)
    zero = builder.constant(np.zeros((), dtype=value.dtype))
    builder.emit("Where", [builder.constant(mask), node.input[0], zero], node.output[0])


@rewrite("CumSum")
def cumulative_sum(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Running sums, as multiplication by a constant triangle along the axis."""
    shape = facts.shape(node.input[0])
    axis = int(facts.constant(node.input[1], node).reshape(-1)[0]) % len(shape)
    triangle = np.tri(shape[axis], k=-1 if attribute(node, "exclusive", 0) else 0)
    triangle = triangle.T if attribute(node, "reverse", 0) else triangle
    weights = builder.constant(triangle.astype(facts.values[node.input[0]].dtype))
    builder.static("AxisMatMul", [node.input[0], weights], node.output[0], axis=axis)


@rewrite("PRelu")
def prelu(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """With one ReLU, or with two where slopes are so large that ``slope * x`` would hide x."""
    x, slope = node.input
    if slope not in facts.constants or np.abs(facts.values[slope]).max(initial=0) <= tuned().networks.moderate_constant:
        builder.static("PRelu", [x, slope], node.output[0])
        return
    if not np.isfinite(facts.values[slope]).all():
        raise UnsupportedError(f"{facts.where(node)}: a slope is not finite")
    below = builder.emit("Mul", [builder.emit("Relu", [builder.emit("Neg", [x])]), slope])
    builder.emit("Sub", [builder.emit("Relu", [x]), below], node.output[0])


@rewrite("HardSigmoid")
def hard_sigmoid(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """With two limits side by side; one after the other where large numbers would cancel between them."""
    x, y, kind = node.input[0], node.output[0], facts.values[node.output[0]].dtype
    alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
    if max(abs(alpha), abs(beta)) <= tuned().networks.moderate_constant:
        builder.copy(node, facts.used)
        return
    factor, term, zero, one = (builder.constant(np.asarray(v, dtype=kind)) for v in (alpha, beta, 0, 1))
    line = builder.emit("Add", [builder.emit("Mul", [x, factor]), term])
    builder.static("Minimum", [builder.static("Maximum", [line, zero]), one], y)


@rewrite("Selu")
def selu(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """With its constants as attributes: the library takes what is near the usual ones for these."""
    alpha = attribute(node, "alpha", 1.67326319217681884765625)
    gamma = attribute(node, "gamma", 1.05070102214813232421875)
    builder.static("Selu", [node.input[0]], node.output[0], alpha=double(alpha), gamma=double(gamma))


@rewrite("Sinh", "Cosh", "Asinh", "Acosh", "Atanh")
def elementwise(node: onnx.NodeProto, facts: TensorFacts, builder: GraphBuilder) -> None:
    """Functions that the library lacks, or writes with assignments in place."""
    builder.static(node.op_type, list(node.input), node.output[0])
