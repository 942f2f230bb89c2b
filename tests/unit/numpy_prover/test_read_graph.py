"""What is read of a graph computes what onnxruntime computes; the rest is not read."""

from pathlib import Path

import numpy as np
import pytest
from small_models import load_text

from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session
from toolkit.numpy_prover.expression_intervals import INPUT, BoxBatch
from toolkit.numpy_prover.expressions import AffineExpression, NotRead, evaluated, variable
from toolkit.numpy_prover.neuron_layers import NeuronLayers, values
from toolkit.numpy_prover.node_calls import RULES, as_expression
from toolkit.numpy_prover.read_graph import read_graph

WEIGHTS = {
    "w": np.arange(12, dtype=np.float32).reshape(4, 3) - 5,
    "u": np.array([[1, 2], [-1, 0.5]], dtype=np.float32),
    "b": np.array([0.5, -1, 2], dtype=np.float32),
    "k": np.array([[[1, 2], [-1, 0.5]], [[0, -2], [3, 1]]], dtype=np.float32),
    "u1": np.array([1, -0.5], dtype=np.float32),
    "u2": np.array([0.25, 2], dtype=np.float32),
    "u3": np.array([0.5, 3], dtype=np.float32),
    "v": np.array([[1, -2, 3, 0.5]], dtype=np.float32),
    "s": np.array([1, 4], dtype=np.int64),
    "ones": np.array([0], dtype=np.int64),
    "from": np.array([1], dtype=np.int64),
    "to": np.array([3], dtype=np.int64),
    "axis": np.array([-1], dtype=np.int64),
    "two": np.array([2], dtype=np.int64),
    "far": np.array([100], dtype=np.int64),
}
READ = {
    "Gemm": "f = Flatten(x) y = Gemm<alpha = 2.0, beta = 0.5>(f, w, b)",
    "Gemm without a bias": "f = Flatten(x) y = Gemm(f, w)",
    "MatMul": "f = Reshape(x, s) y = MatMul(f, w)",
    "MatMul of blocks": "y = MatMul(x, u)",
    "MatMul from the left": "y = MatMul(u, x)",
    "Add": "f = Flatten(x) g = MatMul(f, w) y = Add(b, g)",
    "Add of expressions": "f = Flatten(x) g = MatMul(f, w) h = Relu(g) y = Add(h, g)",
    "Sub": "f = Flatten(x) y = Sub(v, f)",
    "Neg": "y = Neg(x)",
    "Mul": "f = Flatten(x) y = Mul(v, f)",
    "Constant": "c = Constant<value = float[2] {2.0, -3.0}>() y = Mul(x, c)",
    "Identity": "i = Identity(x) y = Dropout(i)",
    "Transpose": "t = Transpose<perm = [0, 2, 1]>(x) f = Flatten(t) y = MatMul(f, w)",
    "Squeeze": "z = Squeeze(x, ones) y = Unsqueeze(z, ones)",
    "Concat": "f = Flatten(x) r = Relu(f) g = Neg(f) y = Concat<axis = -1>(f, r, g, v)",
    "Conv": "c = Conv<pads = [1, 1]>(x, k, u1) r = Relu(c) y = Conv<strides = [2]>(r, k)",
    "AveragePool": "y = AveragePool<kernel_shape = [2]>(x)",
    "BatchNormalization": "y = BatchNormalization(x, u1, u2, u1, u3)",
    "Slice": "f = Flatten(x) y = Slice(f, from, to, axis)",
    "Slice without axes": "f = Flatten(x) t = Transpose(f) y = Slice(t, from, to, , )",
    "Slice with a step": "f = Flatten(x) y = Slice(f, from, far, axis, two)",
    "Sigmoid": "f = Flatten(x) g = Gemm(f, w, b) y = Sigmoid(g)",
    "Tanh": "f = Flatten(x) g = Tanh(f) h = Sigmoid(f) y = Sub(g, h)",
    "Relu": "f = Flatten(x) g = Gemm(f, w, b) r = Relu(g) m = Neg(r) q = Relu(m) y = Add(q, r)",
}
NOT_READ = {
    "another operator": "y = Softmax(x)",
    "a product of expressions": "y = Mul(x, x)",
    "a matrix that is no constant": "y = MatMul(x, x)",
    "a transposed operand": "f = Flatten(x) g = Transpose(f) y = Gemm<transA = 1>(g, w)",
    "shapes that do not fit a rule": "f = Flatten(x) s = Identity(f) y = Squeeze(f, ones)  z = MatMul(x, w)",
    "backwards": "f = Flatten(x) y = Slice(f, to, from, axis, axis)",
}


REACH = 2.0
"""Inputs are in [-2, 2]."""


def model_of(tmp_path: Path, body: str) -> OnnxModel:
    """A model from (1, 2, 2); the shape of its output is not declared."""
    used = {name: value for name, value in WEIGHTS.items() if name in body.replace("(", " ").replace(")", " ").replace(
        ",", " ").split()}  # fmt: skip
    return load_text(tmp_path / "net.onnx", f"main (float[1,2,2] x) => (float[] y) {{ {body} }}", **used)


def read(model: OnnxModel) -> tuple[AffineExpression, NeuronLayers]:
    layers = NeuronLayers([BoxBatch(np.full((1, 4), -REACH), np.full((1, 4), REACH))])
    tensors = read_graph(model.proto.graph, {"x": variable(INPUT, (1, 2, 2))}, layers)
    return as_expression(tensors["y"]), layers


@pytest.mark.parametrize("name", READ)
def test_expressions_compute_what_onnxruntime_does(name: str, tmp_path: Path) -> None:
    model = model_of(tmp_path, READ[name])
    y, layers = read(model)
    session = Session(model)
    for point in np.random.default_rng(0).uniform(-REACH, REACH, (5, 4)):
        sources = values(layers.found, point[None])
        (expected,) = session.run([point])
        assert y.shape == expected.shape
        assert np.allclose(evaluated(y, sources)[0], expected, rtol=1e-5, atol=1e-5)


def test_every_rule_has_an_example() -> None:
    assert all(any(f"{op_type}(" in body or f"{op_type}<" in body for body in READ.values()) for op_type in RULES)


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_not_read(name: str, tmp_path: Path) -> None:
    with pytest.raises(NotRead):
        read(model_of(tmp_path, NOT_READ[name]))
