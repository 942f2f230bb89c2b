"""Nodes of an ONNX graph as calls, and the rules that say what operators make of expressions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.helper
from numpy.typing import NDArray

from toolkit.numpy_prover.expressions import AffineExpression, Array, NotRead, affine
from toolkit.numpy_prover.neuron_layers import NeuronLayers

Value = AffineExpression | NDArray[Any]
Rule = Callable[["NodeCall"], Value]


def as_expression(value: Value) -> AffineExpression:
    """A value as an expression: a constant depends on nothing."""
    return value if isinstance(value, AffineExpression) else affine({}, value.astype(np.float64))


@dataclass(frozen=True)
class NodeCall:
    """A node with the values of its operands."""

    node: onnx.NodeProto
    operands: tuple[Value | None, ...]
    """None where an optional one is left out."""
    layers: NeuronLayers

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
        if isinstance(value, AffineExpression):
            raise NotRead(self.node.op_type)
        return value

    def expression(self, position: int) -> AffineExpression:
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
