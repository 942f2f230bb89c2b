"""Dense layers, activations, and operators that move elements."""

from __future__ import annotations

import math

import numpy as np
import onnx.numpy_helper

from toolkit.numpy_prover.expressions import (
    AffineExpression,
    NotRead,
    joined,
    matrix_times,
    moved,
    reshaped,
    scaled,
    times_matrix,
    total,
)
from toolkit.numpy_prover.neuron_operators import OPERATORS
from toolkit.numpy_prover.node_calls import NodeCall, Value, rule


@rule("Constant")
def _constant(call: NodeCall) -> Value:
    value = call.attribute("value")
    if value is None:
        raise NotRead("Constant")
    return onnx.numpy_helper.to_array(value)


@rule(*OPERATORS)
def _neurons(call: NodeCall) -> Value:
    return call.layers.apply(call.node.op_type, call.expression(0))


@rule("Identity")
def _same(call: NodeCall) -> Value:
    return call.value(0)


@rule("Dropout")
def _dropout(call: NodeCall) -> Value:
    """Nothing, at inference; with a third operand it may be in training mode, and then it is random."""
    if len(call.node.input) > 2 and call.node.input[2]:
        raise NotRead("Dropout")
    return call.value(0)


@rule("Add")
def _add(call: NodeCall) -> Value:
    return total(call.expression(0), call.expression(1))


@rule("Sub")
def _subtract(call: NodeCall) -> Value:
    return total(call.expression(0), scaled(call.expression(1), -1.0))


@rule("Neg")
def _negative(call: NodeCall) -> Value:
    return scaled(call.expression(0), -1.0)


@rule("Mul")
def _multiply(call: NodeCall) -> Value:
    first, second = (0, 1) if isinstance(call.operands[0], AffineExpression) else (1, 0)
    return scaled(call.expression(first), call.constant(second).astype(np.float64))


@rule("Gemm")
def _gemm(call: NodeCall) -> Value:
    matrix = call.matrix(1)
    if call.attribute("transA", 0):
        raise NotRead("Gemm")
    matrix = call.attribute("alpha", 1.0) * (matrix.T if call.attribute("transB", 0) else matrix)
    product = times_matrix(call.expression(0), matrix)
    if not call.has(2):
        return product
    return total(product, scaled(call.expression(2), call.attribute("beta", 1.0)))


@rule("MatMul")
def _matmul(call: NodeCall) -> Value:
    if isinstance(call.operands[1], AffineExpression):
        return matrix_times(call.matrix(0), call.expression(1))
    return times_matrix(call.expression(0), call.matrix(1))


@rule("Flatten")
def _flatten(call: NodeCall) -> Value:
    x, axis = call.expression(0), call.attribute("axis", 1)
    return reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@rule("Reshape")
def _reshape(call: NodeCall) -> Value:
    x, shape = call.expression(0), call.integers("shape", 1)
    if shape is None or call.attribute("allowzero", 0):
        raise NotRead("Reshape")
    kept = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return reshaped(x, np.empty(x.shape, dtype=np.bool_).reshape(kept).shape)


@rule("Squeeze")
def _squeeze(call: NodeCall) -> Value:
    x, axes = call.expression(0), call.integers("axes", 1)
    return reshaped(x, np.empty(x.shape, np.bool_).squeeze(None if axes is None else tuple(axes)).shape)


@rule("Unsqueeze")
def _unsqueeze(call: NodeCall) -> Value:
    x, axes = call.expression(0), call.integers("axes", 1)
    return reshaped(x, np.expand_dims(np.empty(x.shape, np.bool_), tuple(axes or ())).shape)


@rule("Transpose")
def _transpose(call: NodeCall) -> Value:
    x = call.expression(0)
    order = call.attribute("perm", list(range(len(x.shape)))[::-1])
    return moved(x, lambda array: array.transpose(*order, len(order)))


@rule("Concat")
def _concat(call: NodeCall) -> Value:
    return joined([call.expression(position) for position in range(len(call.operands))], call.attribute("axis"))


@rule("Slice")
def _slice(call: NodeCall) -> Value:
    x, starts, ends = call.expression(0), call.integers("starts", 1), call.integers("ends", 2)
    if starts is None or ends is None:
        raise NotRead("Slice")
    axes, steps = call.integers("axes", 3) or range(len(starts)), call.integers("steps", 4) or [1] * len(starts)
    index = [slice(None)] * len(x.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step <= 0:
            raise NotRead("Slice")
        index[axis] = slice(start, end, step)
    return moved(x, lambda array: array[tuple(index)])
