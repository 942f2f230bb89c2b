"""Types of the tensors inside a graph, written into it for those who need them (the library that puts in functions)."""

from __future__ import annotations

import onnx
import onnx.shape_inference


def with_types(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose ``value_info`` has the types of all initializers, and of what can be inferred from them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {value.name for value in (*copy.graph.input, *copy.graph.value_info)}
    for tensor in copy.graph.initializer:
        if tensor.name not in known:
            kind = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            copy.graph.value_info.append(onnx.helper.make_value_info(tensor.name, kind))
    for sparse in copy.graph.sparse_initializer:
        if sparse.values.name not in known:
            kind = onnx.helper.make_tensor_type_proto(sparse.values.data_type, list(sparse.dims))
            copy.graph.value_info.append(onnx.helper.make_value_info(sparse.values.name, kind))
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)
