"""Functions of a model, and operators that the standard defines by a function body, replaced by their bodies.

The library that puts in the bodies knows no default values: an attribute that a node leaves out would be missing in the
body, too. So every call is first given all its defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import onnx
import onnx.inliner
import onnx.shape_inference

from toolkit.errors import UnsupportedError, one_line
from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.ops import ONNX

BY_BODY = frozenset(name for name, operator in ONNX.items() if operator.by_body)
"""Operators that the ONNX standard defines by a function body, and that are read by it."""

DEFAULT_DOMAIN = ("", "ai.onnx")


def expanded(model: OnnxModel) -> OnnxModel:
    """The model without calls of functions. Raises UnsupportedError where a body cannot be put in."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    try:
        _complete_calls(proto)
        proto = onnx.inliner.inline_local_functions(proto)
        _complete_operators(proto, model.opset)
        proto = onnx.inliner.inline_selected_functions(
            _with_types(proto), [("", op_type) for op_type in sorted(BY_BODY)], inline_schema_functions=True
        )
    except Exception as error:  # the library raises errors of several kinds
        reason = one_line(error)
        raise UnsupportedError(f"{model.path}: its functions cannot be expanded ({reason})") from None
    return replace(model, proto=proto, data=proto.SerializeToString())


def _with_types(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose ``value_info`` has the types of all initializers, and of tensors that follow from them.

    The library that puts in the bodies needs them.
    """
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


def _complete_calls(proto: onnx.ModelProto) -> None:
    """Write the defaults of the model's own functions into the nodes that call them, those in other functions too."""
    defaults = {(f.domain, f.name, f.overload): f.attribute_proto for f in proto.functions}
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in _every_node(nodes):
            _complete(node, defaults.get((node.domain, node.op_type, node.overload), ()))


def _complete_operators(proto: onnx.ModelProto, opset: int) -> None:
    """Write the standard's defaults into the nodes that it defines by a body."""
    for node in _every_node(proto.graph.node):
        if node.op_type in BY_BODY and node.domain in DEFAULT_DOMAIN:
            schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
            values = (attribute.default_value for attribute in schema.attributes.values())
            _complete(node, (value for value in values if value.type != onnx.AttributeProto.UNDEFINED))
            if node.op_type == "Celu" and any(value.name == "alpha" and value.f == 0 for value in node.attribute):
                raise UnsupportedError(f"Celu {node.name!r} divides by alpha, which is 0")


def _complete(node: onnx.NodeProto, defaults: Iterable[onnx.AttributeProto]) -> None:
    given = {attribute.name for attribute in node.attribute}
    node.attribute.extend(value for value in defaults if value.name not in given)


def _every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Nodes, and those of their subgraphs."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _every_node(graph.node)
