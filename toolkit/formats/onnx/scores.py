"""Networks that end in a softmax, without it: the scores that go into it are in the order of what comes out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx

from toolkit.formats.onnx.dependence import live_nodes
from toolkit.formats.onnx.model_file import OnnxModel, TensorInfo

KEEPS_ORDER = ("Softmax", "LogSoftmax")
PER_AXIS = 13
"""Version of the operator set from which a softmax is over one axis, and no more over all axes from one on."""


def without_softmax(model: OnnxModel) -> OnnxModel | None:
    """The model whose output are the scores; None where it does not end in one softmax over its whole output."""
    if len(model.outputs) != 1:
        return None
    [output] = model.outputs
    last = next((node for node in model.proto.graph.node if output.name in node.output), None)
    if last is None or last.op_type not in KEEPS_ORDER or not over_all(last, output.shape, model.opset):
        return None
    return ending_in(model, replace(output, name=last.input[0]))


def ending_in(model: OnnxModel, output: TensorInfo) -> OnnxModel:
    """The model of one output up to another tensor, which is the output in its place."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(output.dtype))
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, output.declared_shape))
    nodes = live_nodes(proto.graph.node, {output.name})
    del proto.graph.node[:], proto.graph.value_info[:]
    proto.graph.node.extend(nodes)
    return replace(model, proto=proto, data=proto.SerializeToString(), outputs=(output,))


def over_all(node: onnx.NodeProto, shape: tuple[int, ...], opset: int) -> bool:
    """Whether a softmax makes one distribution of all elements."""
    if not shape:
        return False
    default = -1 if opset >= PER_AXIS else 1
    axis = next((int(entry.i) for entry in node.attribute if entry.name == "axis"), default) % len(shape)
    return math.prod(shape) == (shape[axis] if opset >= PER_AXIS else math.prod(shape[axis:]))
