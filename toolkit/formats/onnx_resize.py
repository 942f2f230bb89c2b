"""The matrix of an ONNX Resize or Upsample node along one axis, by asking onnxruntime for the images of unit vectors.

Nearest, linear and cubic interpolation are linear and act on each axis alone, so this covers every coordinate
transformation and rounding mode without repeating their definitions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx_probe import Facts


def resize_matrix(node: onnx.NodeProto, facts: Facts, axis: int) -> NDArray[np.float32]:
    """Matrix of shape (new length, old length) that ``node`` applies along ``axis``."""
    shape, target = facts.shape(node.input[0]), facts.shape(node.output[0])
    # Unit vectors lie along another spatial axis, which this model leaves alone; batch and channel are 1.
    other = next((k for k in range(len(shape) - 1, 1, -1) if k != axis), 0)
    before, after = [1] * len(shape), [1] * len(shape)
    before[axis] = before[other] = after[other] = shape[axis]
    after[axis] = target[axis]
    units = np.eye(shape[axis], dtype=np.float32).reshape(before)
    units = units if axis > other else np.ascontiguousarray(units)
    image = _run(_single_axis(node, facts, axis, before, after), units, node, facts)
    return np.moveaxis(image, (axis, other), (0, 1)).reshape(target[axis], shape[axis])


def _single_axis(node: onnx.NodeProto, facts: Facts, axis: int, before: list[int], after: list[int]) -> onnx.ModelProto:
    """A model of one node that resizes one axis as ``node`` does."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[0], copy.output[0] = "x", "y"
    operands: dict[str, NDArray[Any]] = {}
    for position in range(1, len(node.input)):
        if node.input[position]:
            copy.input[position] = f"operand{position}"
            value = facts.constant(node.input[position], node)
            operands[copy.input[position]] = _restricted(value, axis, before, after)
    for entry in copy.attribute:
        if entry.name == "scales":
            entry.floats[:] = [scale if k == axis else 1.0 for k, scale in enumerate(entry.floats)]
    graph = onnx.helper.make_graph(
        [copy],
        "resize",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, before)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, after)],
        [onnx.numpy_helper.from_array(value, name) for name, value in operands.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", facts.opset)], ir_version=8)


def _restricted(value: NDArray[Any], axis: int, before: list[int], after: list[int]) -> NDArray[Any]:
    """Scales or sizes with every axis but one left alone; regions of interest stay."""
    if value.size != len(before):
        return value
    if value.dtype.kind == "f":
        return np.where(np.arange(len(before)) == axis, value, 1).astype(value.dtype)
    return np.asarray(after, dtype=value.dtype)


def _run(model: onnx.ModelProto, units: NDArray[Any], node: onnx.NodeProto, facts: Facts) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
        return np.asarray(session.run(None, {"x": units})[0], dtype=np.float32)
    except Exception:  # onnxruntime's exceptions have no common base class
        raise UnsupportedError(f"{facts.where(node)}: this kind of interpolation is not supported") from None
