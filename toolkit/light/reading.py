"""From an ONNX graph to expressions: dense layers, ReLU, and operators that move elements.

A graph with anything else is not read (`NotRead`), and so is one whose matrices would be large. Whether it was read
rightly is for the caller to try out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from numpy.typing import NDArray

from toolkit.light.expressions import (
    Array,
    Expression,
    joined,
    matrix_times,
    moved,
    reshaped,
    scaled,
    times_matrix,
    total,
    variable,
)

MOST_NUMBERS = 1 << 22
"""Most numbers of one expression."""
INPUT = 0
"""Number of the input vector among the sources; the layers follow."""


class NotRead(Exception):  # noqa: N818 - not an error: others may know more
    """The graph has something that is not read here."""


@dataclass
class Layers:
    """The ReLU layers that have been met, as expressions of the sources before them, flat."""

    found: list[Expression] = field(default_factory=list)

    def relu(self, x: Expression) -> Expression:
        """A new layer; its activations are the next source. Raises NotRead where they are many."""
        if x.constant.size**2 > MOST_NUMBERS:
            raise NotRead("a wide layer")
        self.found.append(reshaped(x, (x.constant.size,)))
        return variable(len(self.found), x.shape)


Value = Expression | NDArray[Any]
Rule = Callable[["Call"], Value]


def as_expression(value: Value) -> Expression:
    """A value as an expression: a constant depends on nothing."""
    return value if isinstance(value, Expression) else Expression({}, value.astype(np.float64))


@dataclass(frozen=True)
class Call:
    """A node with the values of its operands."""

    node: onnx.NodeProto
    operands: tuple[Value | None, ...]
    """None where an optional one is left out."""
    layers: Layers

    def attribute(self, name: str, default: Any = None) -> Any:
        for entry in self.node.attribute:
            if entry.name == name:
                return onnx.helper.get_attribute_value(entry)
        return default

    def has(self, position: int) -> bool:
        """Whether there is an operand."""
        return position < len(self.operands) and self.operands[position] is not None

    def value(self, position: int) -> Value:
        """An operand that must be there."""
        value = self.operands[position]
        if value is None:
            raise NotRead(self.node.op_type)
        return value

    def constant(self, position: int) -> NDArray[Any]:
        """An operand that must be a constant."""
        value = self.value(position)
        if isinstance(value, Expression):
            raise NotRead(self.node.op_type)
        return value

    def expression(self, position: int) -> Expression:
        """An operand as an expression; a constant is one too."""
        return as_expression(self.value(position))

    def matrix(self, position: int) -> Array:
        """An operand that must be a constant of two dimensions."""
        value = self.constant(position)
        if value.ndim != 2:
            raise NotRead(self.node.op_type)
        return value.astype(np.float64)

    def integers(self, name: str, position: int) -> list[int] | None:
        """A list that is an attribute in older versions and an operand in newer ones."""
        value = self.attribute(name)
        if value is None and self.has(position):
            value = self.constant(position).reshape(-1)
        return None if value is None else [int(entry) for entry in value]


RULES: dict[str, Rule] = {}
"""The operators that are read."""


def rule(*op_types: str) -> Callable[[Rule], Rule]:
    """Register the rule of some operators."""

    def register(function: Rule) -> Rule:
        for op_type in op_types:
            if op_type in RULES:
                raise ValueError(f"two rules for {op_type}")
            RULES[op_type] = function
        return function

    return register


def read_graph(graph: onnx.GraphProto, inputs: Mapping[str, Expression], layers: Layers) -> dict[str, Value]:
    """The values of all tensors of a graph, for given inputs. Raises NotRead."""
    values: dict[str, Value] = dict(inputs)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > MOST_NUMBERS:
            raise NotRead("a large constant")
        values.setdefault(tensor.name, onnx.numpy_helper.to_array(tensor))
    for node in graph.node:
        if node.op_type not in RULES or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            raise NotRead(node.op_type)
        value = _value(node, values, layers)
        if isinstance(value, Expression) and value.numbers > MOST_NUMBERS:
            raise NotRead("large")
        values[node.output[0]] = value
    return values


def _value(node: onnx.NodeProto, values: Mapping[str, Value], layers: Layers) -> Value:
    """What a node computes. Rules are short, and graphs many: what does not fit a rule is not read."""
    try:
        operands = tuple(values[name] if name else None for name in node.input)
        return RULES[node.op_type](Call(node, operands, layers))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NotRead(f"{node.op_type}: {error}") from None


@rule("Constant")
def _constant(call: Call) -> Value:
    value = call.attribute("value")
    if value is None:
        raise NotRead("Constant")
    return onnx.numpy_helper.to_array(value)


@rule("Relu")
def _relu(call: Call) -> Value:
    return call.layers.relu(call.expression(0))


@rule("Identity", "Dropout")
def _same(call: Call) -> Value:
    return call.value(0)


@rule("Add")
def _add(call: Call) -> Value:
    return total(call.expression(0), call.expression(1))


@rule("Sub")
def _subtract(call: Call) -> Value:
    return total(call.expression(0), scaled(call.expression(1), -1.0))


@rule("Neg")
def _negative(call: Call) -> Value:
    return scaled(call.expression(0), -1.0)


@rule("Mul")
def _multiply(call: Call) -> Value:
    first, second = (0, 1) if isinstance(call.operands[0], Expression) else (1, 0)
    return scaled(call.expression(first), call.constant(second).astype(np.float64))


@rule("Gemm")
def _gemm(call: Call) -> Value:
    matrix = call.matrix(1)
    if call.attribute("transA", 0):
        raise NotRead("Gemm")
    matrix = call.attribute("alpha", 1.0) * (matrix.T if call.attribute("transB", 0) else matrix)
    product = times_matrix(call.expression(0), matrix)
    if not call.has(2):
        return product
    return total(product, scaled(call.expression(2), call.attribute("beta", 1.0)))


@rule("MatMul")
def _matmul(call: Call) -> Value:
    if isinstance(call.operands[1], Expression):
        return matrix_times(call.matrix(0), call.expression(1))
    return times_matrix(call.expression(0), call.matrix(1))


@rule("Flatten")
def _flatten(call: Call) -> Value:
    x, axis = call.expression(0), call.attribute("axis", 1)
    return reshaped(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@rule("Reshape")
def _reshape(call: Call) -> Value:
    x, shape = call.expression(0), call.integers("shape", 1)
    if shape is None or call.attribute("allowzero", 0):
        raise NotRead("Reshape")
    kept = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return reshaped(x, np.empty(x.shape, dtype=np.bool_).reshape(kept).shape)


@rule("Squeeze")
def _squeeze(call: Call) -> Value:
    x, axes = call.expression(0), call.integers("axes", 1)
    return reshaped(x, np.empty(x.shape, np.bool_).squeeze(None if axes is None else tuple(axes)).shape)


@rule("Unsqueeze")
def _unsqueeze(call: Call) -> Value:
    x, axes = call.expression(0), call.integers("axes", 1)
    return reshaped(x, np.expand_dims(np.empty(x.shape, np.bool_), tuple(axes or ())).shape)


@rule("Transpose")
def _transpose(call: Call) -> Value:
    x = call.expression(0)
    order = call.attribute("perm", list(range(len(x.shape)))[::-1])
    return moved(x, lambda array: array.transpose(*order, len(order)))


@rule("Concat")
def _concat(call: Call) -> Value:
    return joined([call.expression(position) for position in range(len(call.operands))], call.attribute("axis"))


@rule("Slice")
def _slice(call: Call) -> Value:
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
