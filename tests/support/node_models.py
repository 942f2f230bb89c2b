"""ONNX models of a few nodes with one input, for tests of operators."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def model_of(nodes, shape, constants=None, opset=13, outputs=("y",), dtype=TensorProto.FLOAT):
    """A model with input x; nodes are (operator, inputs, outputs, attributes)."""
    graph = helper.make_graph(
        [helper.make_node(op, ins, outs, name=f"n{number}", **attributes)
         for number, (op, ins, outs, attributes) in enumerate(nodes)],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info(name, dtype, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def one(op, shape, constants=(), opset=13, outputs=("y",), **attributes):
    """A model of one node whose further operands are constants."""
    names = {f"c{number}": value for number, value in enumerate(constants) if value is not None}
    inputs = ["x", *(f"c{number}" if value is not None else "" for number, value in enumerate(constants))]
    return model_of([(op, inputs, list(outputs), attributes)], shape, names, opset, outputs)
