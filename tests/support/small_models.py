"""Models of a few nodes, written in ONNX's text format."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser

from toolkit.formats.onnx.model_file import OnnxModel, load_model


def save_text(path: Path, graph: str, opset: int = 13, **initializers: np.ndarray) -> Path:
    """Write a model given as text, with initializers as arrays."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{graph}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in initializers.items())
    path.write_bytes(model.SerializeToString())
    return path


def load_text(path: Path, graph: str, opset: int = 13, **initializers: np.ndarray) -> OnnxModel:
    """As `save_text`, loaded."""
    return load_model(save_text(path, graph, opset, **initializers))


def relu_net(path: Path, batch: str = "N") -> Path:
    """y = (x0 + x1, |x0 - x1|), as a network with four ReLUs."""
    first = np.array([[1, 1, 1, -1], [1, 1, -1, 1]], dtype=np.float32)
    second = np.array([[1, 0], [0, 0], [0, 1], [0, 1]], dtype=np.float32)
    text = f"main (float[{batch},2] x) => (float[{batch},2] y) {{ h = MatMul(x, a) r = Relu(h) y = MatMul(r, b) }}"
    return save_text(path, text, a=first, b=second)


def node_model(
    path: Path, node: onnx.NodeProto, opset: int, shape: tuple[int, ...], **operands: np.ndarray
) -> OnnxModel:
    """A model of one node whose first operand is the input ``x``; the output shape is left to onnxruntime."""
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [onnx.numpy_helper.from_array(value, name) for name, value in operands.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    path.write_bytes(model.SerializeToString())
    return load_model(path)
