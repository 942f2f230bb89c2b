"""Networks that end in a softmax, without it: the scores that go into it are in the order of what comes out."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx

from toolkit.formats.onnx.model_file import OnnxModel

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
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    [declared] = proto.graph.output
    declared.name = last.input[0]
    scores = replace(output, name=declared.name)
    return replace(model, proto=proto, data=proto.SerializeToString(), outputs=(scores,))


def over_all(node: onnx.NodeProto, shape: tuple[int, ...], opset: int) -> bool:
    """Whether a softmax makes one distribution of all elements."""
    if not shape:
        return False
    default = -1 if opset >= PER_AXIS else 1
    axis = next((int(entry.i) for entry in node.attribute if entry.name == "axis"), default) % len(shape)
    return math.prod(shape) == (shape[axis] if opset >= PER_AXIS else math.prod(shape[axis:]))
