"""Element types of a graph, and tensors of type bfloat16: onnxruntime computes them, but returns other types only."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import onnx

from toolkit.errors import UnsupportedError, one_line
from toolkit.formats.onnx.dependence import reached_results
from toolkit.formats.onnx.model_file import OnnxModel

BFLOAT16: np.dtype[np.generic] = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.BFLOAT16)
"""The type bfloat16, for numpy."""


NARROWEST = {number: name for name, number in onnx.TensorProto.DataType.items() if name[:6] in {"FLOAT8", "FLOAT4"}}
"""Floating types of eight bits and fewer, whose conversions have several kinds of overflow."""

TYPE_ATTRIBUTES = {"to", "dtype", "output_dtype"}


def mentioned_types(proto: onnx.ModelProto) -> set[int]:
    """Element types that a graph names: of its inputs, outputs and weights, and in attributes."""
    graph = proto.graph
    types = {tensor.data_type for tensor in graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    for node in graph.node:
        for entry in node.attribute:
            types |= {entry.t.data_type} | ({entry.i} if entry.name in TYPE_ATTRIBUTES else set())
    return types


FEW_BITS = {number for name, number in onnx.TensorProto.DataType.items() if name in {"INT4", "UINT4", "INT2", "UINT2"}}
"""Integers of less than a byte, which onnxruntime computes with, but does not return."""


def tensors_of(model: OnnxModel, types: Container[int]) -> frozenset[str]:
    """Names of the tensors that have one of some types. Raises UnsupportedError where types cannot be inferred."""
    try:
        graph = onnx.shape_inference.infer_shapes(model.proto).graph
    except Exception as error:  # the library raises errors of several kinds
        reason = one_line(error)
        raise UnsupportedError(f"{model.path}: the types of its tensors cannot be inferred ({reason})") from None
    values = (*graph.input, *graph.output, *graph.value_info)
    return frozenset(value.name for value in values if value.type.tensor_type.elem_type in types)


def bfloat16_tensors(model: OnnxModel) -> frozenset[str]:
    """Names of the tensors in bfloat16. Raises UnsupportedError where types cannot be inferred."""
    some = onnx.TensorProto.BFLOAT16 in mentioned_types(model.proto)
    return tensors_of(model, {onnx.TensorProto.BFLOAT16}) if some else frozenset()


def readable_results(model: OnnxModel) -> list[str]:
    """Results of nodes that some input reaches, in order, but for those that onnxruntime does not return as arrays."""
    unreadable = bfloat16_tensors(model)
    return [name for name in reached_results(model.proto.graph) if name not in unreadable]


def as_float32(model: OnnxModel, names: Sequence[str]) -> tuple[OnnxModel, dict[str, str]]:
    """The model with copies of some tensors in float32, which holds all their numbers; and the copies' names."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    fresh = (name for number in count() if (name := f"readable_{number}") not in taken)
    copies = dict(zip(names, fresh, strict=False))
    for name, readable in copies.items():
        proto.graph.node.append(onnx.helper.make_node("Cast", [name], [readable], to=onnx.TensorProto.FLOAT))
    return replace(model, proto=proto, data=proto.SerializeToString()), copies
