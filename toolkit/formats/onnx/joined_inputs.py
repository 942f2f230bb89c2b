"""Networks with one input for each feature, as exports of data frames have them, with one input of all; no torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.dependence import STANDARD
from toolkit.formats.onnx.model_file import ModelFile

LENGTHS_ARE_OPERANDS = 13
"""Version of the operator set from which a split takes its lengths as an operand."""
FLOATS = frozenset({TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE})


def with_one_input(file: ModelFile) -> tuple[ModelFile, tuple[str, ...]]:
    """The file with one input ``(N, features)`` in place of several inputs ``(N, 1)`` of one floating-point type.

    Beside it the names of the features in their order; without any, the file is as it was. Raises UnsupportedError for
    inputs of text, and for features of several types or of whole numbers.
    """
    graph = file.proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    for value in inputs:
        if value.type.tensor_type.elem_type == TensorProto.STRING:
            raise UnsupportedError(
                f"{file.path}: input {value.name!r} holds text; only numbers have a distance that can be asked about: "
                "encode it before the network"
            )
    opset = next((entry.version for entry in file.proto.opset_import if entry.domain in STANDARD), 0)
    if len(inputs) < 2 or not opset or not all(_is_feature(value) for value in inputs):
        return file, ()
    kinds = {value.type.tensor_type.elem_type for value in inputs}
    if len(kinds) > 1 or not kinds <= FLOATS:
        told = ", ".join(f"{value.name} {_type_name(value)}" for value in inputs)
        raise UnsupportedError(
            f"{file.path}: its inputs have the types {told}; export it with all features of one floating-point type, "
            "of a data frame df.astype('float32')"
        )
    return _joined(file, inputs, opset), tuple(value.name for value in inputs)


def _is_feature(value: onnx.ValueInfoProto) -> bool:
    """Whether an input has one number for each row."""
    shape = value.type.tensor_type.shape.dim
    return len(shape) == 2 and shape[1].dim_value == 1


def _type_name(value: onnx.ValueInfoProto) -> str:
    return TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()


def _joined(file: ModelFile, inputs: list[onnx.ValueInfoProto], opset: int) -> ModelFile:
    """The file whose new input is split into the old ones."""
    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    graph, names = proto.graph, [value.name for value in inputs]
    features, lengths = "/".join(["features", names[0]]), np.ones(len(names), dtype=np.int64)
    whole = onnx.ValueInfoProto()
    whole.CopyFrom(inputs[0])
    whole.name = features
    whole.type.tensor_type.shape.dim[1].dim_value = len(names)
    kept = [value for value in graph.input if value.name not in names]
    del graph.input[:]
    graph.input.extend([whole, *kept])
    if opset < LENGTHS_ARE_OPERANDS:
        split = helper.make_node("Split", [features], names, axis=1, split=lengths.tolist())
    else:
        graph.initializer.append(onnx.numpy_helper.from_array(lengths, f"{features}/lengths"))
        split = helper.make_node("Split", [features, f"{features}/lengths"], names, axis=1)
    graph.node.insert(0, split)
    return replace(file, proto=proto, data=proto.SerializeToString())
