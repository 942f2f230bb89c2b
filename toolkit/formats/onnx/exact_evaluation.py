"""What small piecewise-linear networks compute in exact arithmetic. No torch, no onnxruntime.

Their operators are those whose record has an exact rule (`toolkit.ops.exact_rules`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx.numpy_helper
from numpy.typing import NDArray

from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.ops import ONNX
from toolkit.ops.exact_rules import ExactCall, ExactTensor, NotExact
from toolkit.tuning import tuned


def run_exactly(model: OnnxModel, inputs: Sequence[NDArray[np.float64]], names: Sequence[str]) -> list[ExactTensor]:
    """The tensors with these names for flat inputs in the model's order. Raises NotExact."""
    graph = model.proto.graph
    if sum(math.prod(tensor.dims) for tensor in graph.initializer) > tuned().networks.most_exact_elements:
        raise NotExact("many weights")
    values = {tensor.name: ExactTensor.of(onnx.numpy_helper.to_array(tensor)) for tensor in graph.initializer}
    for info, array in zip(model.inputs, inputs, strict=True):
        values[info.name] = ExactTensor.of(array.reshape(info.shape))
    work = 0
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or len(node.output) != 1:
            raise NotExact(node.op_type)
        work += _work(node, values)
        if work > tuned().networks.most_exact_products:
            raise NotExact("many operations")
        values[node.output[0]] = _called(node, values, model.opset)
    return [values[name] for name in names]


def _rule(node: onnx.NodeProto) -> Callable[[ExactCall], ExactTensor] | None:
    return ONNX[node.op_type].exact_rule if node.op_type in ONNX else None


def _called(node: onnx.NodeProto, values: Mapping[str, ExactTensor], opset: int) -> ExactTensor:
    rule = _rule(node)
    if rule is None:
        raise NotExact(node.op_type)
    try:
        return rule(ExactCall(node, [values[name] if name else None for name in node.input], opset))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise NotExact(f"{node.op_type}: {error}") from None


def _work(node: onnx.NodeProto, values: Mapping[str, ExactTensor]) -> int:
    sizes = [values[name].integers.size for name in node.input if name in values]
    matrices = [values[name].integers.shape[-1:] for name in node.input[:1] if name in values]
    if node.op_type in ("MatMul", "Gemm") and len(sizes) > 1:
        return sizes[1] * max(1, sizes[0] // max(1, *(matrices[0] or (1,))))
    return sum(sizes)
