"""From an ONNX graph to expressions, node by node.

A graph with an operator that has no rule is not read (`NotRead`), and so is one whose matrices would be large. Whether
it was read rightly is for the caller to try out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
import onnx.numpy_helper

from toolkit.numpy_prover import operator_rules, window_operators
from toolkit.numpy_prover.expressions import TERMS, AffineExpression, NotRead
from toolkit.numpy_prover.neuron_layers import NeuronLayers
from toolkit.numpy_prover.node_calls import RULES, NodeCall, Value
from toolkit.tuning import tuned

__all__ = ["operator_rules", "read_graph", "window_operators"]

OPERATIONS = 1 << 10
"""Terms of an operator's sums without a constant, an average of a window's elements for instance."""
WINDOW = 3
"""Dimensions from which on a constant is a convolution's weight, ``(outputs, inputs, *window)``."""


def read_graph(
    graph: onnx.GraphProto, inputs: Mapping[str, AffineExpression], layers: NeuronLayers
) -> dict[str, Value]:
    """The values of all tensors of a graph, for given inputs. Raises NotRead."""
    values: dict[str, Value] = dict(inputs)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) > tuned().numpy_prover.most_numbers:
            raise NotRead("a large constant")
        values.setdefault(tensor.name, onnx.numpy_helper.to_array(tensor))
    for node in graph.node:
        if node.op_type not in RULES or node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            raise NotRead(node.op_type)
        value = _value(node, values, layers)
        if isinstance(value, AffineExpression) and value.numbers > tuned().numpy_prover.most_numbers:
            raise NotRead("large")
        values[node.output[0]] = value
    if sum(map(_terms, values.values())) > TERMS:
        raise NotRead("long sums")
    return values


def _terms(value: Value) -> int:
    """Terms of the sums that a value may add to: a constant's longest row or window, and a few for each operator."""
    if not isinstance(value, np.ndarray):
        return OPERATIONS
    return max(value.shape, default=1) if value.ndim < WINDOW else math.prod(value.shape[1:])


def _value(node: onnx.NodeProto, values: Mapping[str, Value], layers: NeuronLayers) -> Value:
    """What a node computes. Rules are short, and graphs many: what does not fit a rule is not read."""
    try:
        operands = tuple(values[name] if name else None for name in node.input)
        return RULES[node.op_type](NodeCall(node, operands, layers))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NotRead(f"{node.op_type}: {error}") from None
