"""The torch-free table of operators says what the verifier really does."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_models import load_text, node_model, relu_net

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx_file import OnnxModel, load_model
from toolkit.formats.onnx_import import import_module
from toolkit.formats.onnx_normalise import normalise
from toolkit.formats.operators import TABLE, onnx_operators, operator_rows
from toolkit.problem.program import build_program
from toolkit.problem.trace import trace


def bounded(model: OnnxModel) -> bool:
    """Whether the verifier can bound the network."""
    module = import_module(model)
    try:
        build_program(trace(lambda x: module(x)[0], [torch.rand(model.inputs[0].shape)]))
    except UnsupportedError:
        return False
    return True


def _node(op_type: str, *operands: str, **attributes: object) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, ["x", *operands], ["y"], **attributes)


def _i(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


W = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
KERNEL = np.ones((1, 1, 2, 2), dtype=np.float32)
ROW = np.ones(4, dtype=np.float32)
SQUARE, IMAGE = (4, 4), (1, 1, 4, 4)
SUPPORTED = {
    "View": (_node("Reshape", "a"), SQUARE, {"a": _i(2, 8)}),
    "Expand": (_node("Expand", "a"), (1, 4), {"a": _i(3, 4)}),
    "Tile": (_node("Tile", "a"), SQUARE, {"a": _i(2, 1)}),
    "Slice": (_node("Slice", "a", "b"), SQUARE, {"a": _i(1), "b": _i(3)}),
    "Rows": (_node("Gather", "a"), SQUARE, {"a": _i(1, 0)}),
    "AxisMatMul": (_node("CumSum", "a"), SQUARE, {"a": np.int64(1)}),
    "Pad": (_node("Pad", "a"), SQUARE, {"a": _i(1, 0, 0, 1)}),
    "Plus": (_node("Sum", "a", "x"), SQUARE, {"a": W}),
    "Add": (_node("Add", "x"), SQUARE, {}),
    "Sub": (_node("Sub", "a"), SQUARE, {"a": W}),
    "Neg": (_node("Neg"), SQUARE, {}),
    "Concat": (_node("Concat", "a", "x", axis=0), SQUARE, {"a": W}),
    "Transpose": (_node("Transpose", perm=[1, 0]), SQUARE, {}),
    "ReduceSum": (_node("ReduceSum", "a"), SQUARE, {"a": _i(1)}),
    "ReduceMean": (_node("GlobalAveragePool"), IMAGE, {}),
    "AveragePool": (_node("AveragePool", kernel_shape=[2, 2]), IMAGE, {}),
    "BatchNormalization": (_node("BatchNormalization", "a", "a", "a", "a"), IMAGE, {"a": ROW[:1]}),
    "Conv": (_node("Conv", "a"), IMAGE, {"a": KERNEL}),
    "ConvTranspose": (_node("ConvTranspose", "a"), IMAGE, {"a": KERNEL}),
    "Gemm": (_node("Gemm", "a", "b"), SQUARE, {"a": W, "b": ROW}),
    "MatMul": (_node("MatMul", "a"), SQUARE, {"a": W}),
    "Mul": (_node("Mul", "a"), SQUARE, {"a": W}),
    "Div": (_node("Div", "a"), SQUARE, {"a": ROW}),
    "Where": (onnx.helper.make_node("Where", ["a", "x", "b"], ["y"]), SQUARE, {"a": W > 0, "b": W}),
    "Relu": (_node("Relu"), SQUARE, {}),
    "LeakyRelu": (_node("LeakyRelu"), SQUARE, {}),
    "PRelu": (_node("PRelu", "a"), SQUARE, {"a": ROW}),
    "Abs": (_node("Abs"), SQUARE, {}),
    "Clip": (_node("Clip", "a"), SQUARE, {"a": np.float32(0.5)}),
    "Maximum": (_node("Max", "a"), SQUARE, {"a": W}),
    "Minimum": (_node("Min", "a"), SQUARE, {"a": W}),
    "MaxPool": (_node("MaxPool", kernel_shape=[2, 2]), IMAGE, {}),
    "ReduceMax": (_node("GlobalMaxPool"), IMAGE, {}),
    "Sigmoid": (_node("Sigmoid"), SQUARE, {}),
    "Tanh": (_node("Tanh"), SQUARE, {}),
    **{
        op: (_node(op), SQUARE, {})
        for op in (
            "Erf",
            "Atan",
            "Exp",
            "Log",
            "Sqrt",
            "Reciprocal",
            "Sin",
            "Cos",
            "Softplus",
            "Elu",
            "Selu",
            "Softsign",
            "HardSigmoid",
            "HardSwish",
            "Softmax",
            "LogSoftmax",
            "Sign",
            "Floor",
            "Ceil",
            "ReduceProd",
            "ReduceL1",
            "ReduceMin",
            "ReduceL2",
            "ReduceSumSquare",
            "ReduceLogSum",
            "ReduceLogSumExp",
        )
    },
    "Power": (_node("Pow", "a"), SQUARE, {"a": np.float32(3)}),
    "LayerNormalization": (_node("LayerNormalization", "a", "a"), SQUARE, {"a": ROW}),
    "InstanceNormalization": (_node("InstanceNormalization", "a", "a"), IMAGE, {"a": ROW[:1]}),
}
OPSETS = {"HardSwish": 14, "LayerNormalization": 17}
"""Versions that brought an operator, where the usual 13 lacks it."""


@pytest.mark.parametrize("op_type", sorted(set(TABLE) - {"Output"}))
def test_what_the_table_supports_is_bounded(tmp_path: Path, op_type: str) -> None:
    node, shape, operands = SUPPORTED[op_type]
    model = node_model(tmp_path / "net.onnx", node, OPSETS.get(op_type, 13), shape, **operands)
    rows = operator_rows(normalise(model))
    assert op_type in {row.op_type for row in rows}
    assert all(row.supported for row in rows)
    assert bounded(model)


UNSUPPORTED = {
    "condition": "zero = Sub(x, x) c = Less(zero, x) y = Where(c, x, zero)",
    "Round": "y = Round(x)",
    "Tan": "y = Tan(x)",
    "power of a variable": "y = Pow(x, x)",
    "root": "a = Constant<value_float = 1.5>() y = Pow(x, a)",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_the_table_refuses_is_not_bounded(tmp_path: Path, name: str) -> None:
    model = load_text(tmp_path / "net.onnx", f"main (float[2,2] x) => (float[2,2] y) {{ {UNSUPPORTED[name]} }}")
    assert not all(row.supported for row in operator_rows(normalise(model)))
    assert not bounded(model)


PRODUCTS = {
    "product": "y = Mul(x, x)",
    "matrix product": "t = Transpose<perm = [1, 0]>(x) y = MatMul(x, t)",
    "quotient": "y = Div(x, x)",
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_what_varies_are_relaxed(tmp_path: Path, name: str) -> None:
    model = load_text(tmp_path / "net.onnx", f"main (float[2,2] x) => (float[2,2] y) {{ {PRODUCTS[name]} }}")
    rows = operator_rows(normalise(model))
    assert rows[-1].handling == "relaxation"
    assert all(row.supported for row in rows)
    assert bounded(model)


def test_rows_count_nodes_and_neurons(tmp_path: Path) -> None:
    rows = operator_rows(normalise(load_model(relu_net(tmp_path / "net.onnx"))))
    assert [(row.op_type, row.count, row.neurons, row.handling) for row in rows] == [
        ("MatMul", 2, 6, "affine"),
        ("Relu", 1, 4, "piecewise linear"),
    ]


def test_names_are_those_of_onnx() -> None:
    names = onnx_operators()
    assert {"Gemm", "Relu", "Reshape", "Shape", "Max"} <= set(names)
    assert all(onnx.defs.has(name) for name in names)
