"""The matrix of an ONNX Resize or Upsample node along each axis, by asking onnxruntime for the images of unit vectors.

Nearest, linear and cubic interpolation are linear and act on each axis alone, and along the other axes they keep what
is constant. So the images of tensors that vary along one axis only are the columns of that axis's matrix, for every
coordinate transformation, rounding mode, filter and way to give the size, without repeating their definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.probe import TensorFacts
from toolkit.tuning import tuned

WEIGHT_SUM_TOLERANCE = 1e-4
"""How far sums of weights, which onnxruntime computes in single precision, may be from one."""


def resize_matrices(node: onnx.NodeProto, facts: TensorFacts) -> dict[int, NDArray[np.float64]]:
    """Matrix of shape (new length, old length) of every axis along which ``node`` changes something.

    Raises UnsupportedError for what is not a matrix an axis: extrapolation with a value.
    """
    shape, target = facts.shape(node.input[0]), facts.shape(node.output[0])
    if sum(shape) * (np.prod(shape) + np.prod(target)) > tuned().networks.most_resize_elements:
        raise UnsupportedError(f"{facts.where(node)}: resizing a tensor of shape {list(shape)} is not supported")
    image_of = _image_function(node, facts)
    if not np.allclose(image_of(np.ones(shape)), 1, atol=WEIGHT_SUM_TOLERANCE) or image_of(np.zeros(shape)).any():
        raise UnsupportedError(f"{facts.where(node)}: extrapolation with a value is not supported")
    return {axis: _matrix(image_of, shape, axis) for axis in range(len(shape)) if _changes(image_of, shape, axis)}


Image = Callable[[NDArray[Any]], NDArray[Any]]


def _changes(image_of: Image, shape: tuple[int, ...], axis: int) -> bool:
    """Whether the node changes an axis: it is run on random numbers, which only the identity keeps."""
    ends = [1] * len(shape)
    ends[axis] = shape[axis]
    along = np.random.default_rng(0).random(shape[axis]).astype(np.float32).reshape(ends)
    image = image_of(np.broadcast_to(along, shape))
    return image.shape[axis] != shape[axis] or not np.array_equal(image, np.broadcast_to(along, image.shape))


def _matrix(image_of: Image, shape: tuple[int, ...], axis: int) -> NDArray[np.float64]:
    """The matrix of one axis, a column for each of its rows."""
    columns = []
    for row in range(shape[axis]):
        unit = np.zeros(shape)
        unit[(slice(None),) * axis + (row,)] = 1
        image = image_of(unit)
        columns.append(np.moveaxis(image, axis, -1).reshape(-1, image.shape[axis])[0])
    return np.stack(columns, 1).astype(np.float64)


def _image_function(node: onnx.NodeProto, facts: TensorFacts) -> Image:
    """The node as a function of its first operand."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.input[0], copy.output[0] = "x", "y"
    operands = {name: facts.constant(name, node) for name in node.input[1:] if name}
    model = alone(copy, facts.opset, {"x": facts.values[node.input[0]], **operands})
    session = _session(model)
    if session is None:
        raise UnsupportedError(f"{facts.where(node)}: this kind of interpolation is not supported")
    dtype = facts.values[node.input[0]].dtype

    def image_of(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(session.run(None, {"x": x.astype(dtype)})[0])

    return image_of


def alone(node: onnx.NodeProto, opset: int, operands: Mapping[str, NDArray[Any]]) -> onnx.ModelProto:
    """A model of one node with the input ``x`` and the output ``y``; all operands but ``x`` are constants."""
    x = operands["x"]
    kind = onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = onnx.helper.make_graph(
        [node],
        "alone",
        [onnx.helper.make_tensor_value_info("x", kind, x.shape)],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in operands.items() if name != "x"],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)


def run_alone(node: onnx.NodeProto, opset: int, operands: Mapping[str, NDArray[Any]]) -> NDArray[Any] | None:
    """What onnxruntime computes for a single node; None where it refuses."""
    session = _session(alone(node, opset, operands))
    if session is None:
        return None
    try:
        return np.asarray(session.run(None, {"x": operands["x"]})[0])
    except Exception:  # onnxruntime's exceptions have no common base class
        return None


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession | None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception:  # onnxruntime's exceptions have no common base class
        return None
