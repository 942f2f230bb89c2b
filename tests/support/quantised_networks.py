"""Networks in QDQ form: single pairs with chosen parameters, and small ones quantised by onnxruntime."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

Array = NDArray[np.float32]


def qdq_model(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    opset: int = 13,
    output: int = TensorProto.FLOAT,
    dtype: int = TensorProto.FLOAT,
    **constants: Any,
) -> Path:
    """Write a model with input x and output y; constants are arrays, or tensors of the standard by another name."""
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(np.asarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", output, None)],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())
    return path


def quantise(*operands: str, to: str, **attributes: Any) -> onnx.NodeProto:
    """QuantizeLinear of operands: the tensor, its scale, and its zero point if it has one."""
    return helper.make_node("QuantizeLinear", list(operands), [to], **attributes)


def dequantise(*operands: str, to: str, **attributes: Any) -> onnx.NodeProto:
    """DequantizeLinear of operands: the integers, their scale, and their zero point if they have one."""
    return helper.make_node("DequantizeLinear", list(operands), [to], **attributes)


def pair(*parameters: str, source: str = "x", to: str = "y", **attributes: Any) -> list[onnx.NodeProto]:
    """QuantizeLinear and DequantizeLinear with the same parameters."""
    inner = f"{to}_integers"
    return [quantise(source, *parameters, to=inner, **attributes), dequantise(inner, *parameters, to=to, **attributes)]


class _Rows(CalibrationDataReader):
    def __init__(self, rows: Array) -> None:
        self._rows: Iterator[Array] = iter(rows)

    def get_next(self) -> dict[str, Array] | None:
        row = next(self._rows, None)
        return None if row is None else {"x": row[None]}


def quantised_mlp(
    folder: Path, seed: int, sizes: tuple[int, ...], per_channel: bool, activations: QuantType, weights: QuantType
) -> Path:
    """A random network of Gemm and Relu over [-1, 1], quantised by onnxruntime with 50 rows to calibrate."""
    generator, nodes, tensors, current = np.random.default_rng(seed), [], [], "x"
    for number, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        matrix = generator.normal(size=(inputs, outputs)) / np.sqrt(inputs)
        tensors.append(numpy_helper.from_array(matrix.astype(np.float32), f"w{number}"))
        tensors.append(numpy_helper.from_array((0.1 * generator.normal(size=outputs)).astype(np.float32), f"b{number}"))
        last = number == len(sizes) - 2
        result = "y" if last else f"h{number}"
        nodes.append(helper.make_node("Gemm", [current, f"w{number}", f"b{number}"], [result], name=f"gemm{number}"))
        if not last:
            nodes.append(helper.make_node("Relu", [result], [f"r{number}"], name=f"relu{number}"))
        current = f"r{number}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, sizes[-1]])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    floats, path = folder / "floats.onnx", folder / "quantised.onnx"
    onnx.save(model, floats)
    rows = generator.uniform(-1, 1, (50, sizes[0])).astype(np.float32)
    quantize_static(
        floats, path, _Rows(rows), quant_format=QuantFormat.QDQ, per_channel=per_channel,
        activation_type=activations, weight_type=weights,
    )  # fmt: skip
    return path


def one_point_a_step(path: Path, lower: Array, upper: Array) -> Array:
    """Inputs of a box ``(n,)`` for every combination of integers that its quantised inputs can be, ``(P, n)``."""
    scale = next(
        numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer if tensor.name == "x_scale"
    )
    axes = [
        np.clip(np.arange(np.rint(low / scale), np.rint(high / scale) + 1).astype(np.float32) * scale, low, high)
        for low, high in zip(lower, upper, strict=True)
    ]
    return np.array(list(itertools.product(*axes)), dtype=np.float32)
