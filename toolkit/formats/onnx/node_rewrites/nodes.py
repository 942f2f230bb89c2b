"""What rewrites share: reading the attributes and constant operands of a node."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from toolkit.formats.onnx.graph_builder import GraphBuilder
from toolkit.formats.onnx.probe import TensorFacts


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute; strings are decoded."""
    for entry in node.attribute:
        if entry.name == name:
            value = onnx.helper.get_attribute_value(entry)
            return value.decode() if isinstance(value, bytes) else value
    return default


def integers(node: onnx.NodeProto, facts: TensorFacts, name: str, position: int) -> list[int] | None:
    """A list of integers given as an attribute (older versions) or as a constant operand (newer ones)."""
    value = attribute(node, name)
    if value is None and len(node.input) > position and node.input[position]:
        value = facts.constant(node.input[position], node).reshape(-1)
    return None if value is None else [int(v) for v in value]


def double(value: float) -> onnx.TensorProto:
    """A number as an attribute that keeps it: one of type float would round it to single precision."""
    return onnx.numpy_helper.from_array(np.array(value, dtype=np.float64))


def select_rows(builder: GraphBuilder, source: str, axis: int, index: NDArray[Any]) -> str:
    """Emit the selection of constant rows of one axis; returns the name of the result."""
    return builder.static("Rows", [source, builder.constant(np.asarray(index, dtype=np.int64))], axis=axis)
