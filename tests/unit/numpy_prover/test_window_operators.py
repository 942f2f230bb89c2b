"""Convolutions, average pooling and batch normalisation compute what onnxruntime computes, or are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import node_model

from toolkit.formats.onnx.model_file import OnnxModel
from toolkit.formats.onnx.runtime import Session
from toolkit.numpy_prover import window_operators
from toolkit.numpy_prover.expression_intervals import INPUT, BoxBatch
from toolkit.numpy_prover.expressions import AffineExpression, NotRead, evaluated, variable
from toolkit.numpy_prover.neuron_layers import NeuronLayers
from toolkit.numpy_prover.node_calls import as_expression
from toolkit.numpy_prover.read_graph import read_graph

Arrays = dict[str, np.ndarray]


def read(model: OnnxModel, shape: tuple[int, ...]) -> AffineExpression:
    size = int(np.prod(shape))
    layers = NeuronLayers([BoxBatch(np.full((1, size), -1.0), np.full((1, size), 1.0))])
    tensors = read_graph(model.proto.graph, {"x": variable(INPUT, shape)}, layers)
    return as_expression(tensors[model.proto.graph.output[0].name])


def assert_same(model: OnnxModel, shape: tuple[int, ...]) -> None:
    expression, session = read(model, shape), Session(model)
    for point in np.random.default_rng(0).uniform(-1, 1, (3, int(np.prod(shape)))):
        (expected,) = session.run([point])
        assert expression.shape == expected.shape
        assert np.allclose(evaluated(expression, [point[None]])[0], expected, rtol=1e-4, atol=1e-4)


def random_convolution(generator: np.random.Generator, axes: int) -> tuple[onnx.NodeProto, tuple[int, ...], Arrays]:
    """A node with random windows and groups, the shape of its input, and its weights."""
    groups, inside, outside = (int(n) for n in generator.integers(1, 4, 3))
    kernel = generator.integers(1, 4, axes).tolist()
    attributes = {
        "group": groups,
        "strides": generator.integers(1, 4, axes).tolist(),
        "dilations": generator.integers(1, 3, axes).tolist(),
        "pads": generator.integers(0, 3, 2 * axes).tolist(),
    }
    size = [int(n) + 5 for n in generator.integers(0, 4, axes)]
    operands = {"w": generator.normal(size=(groups * outside, inside, *kernel)).astype(np.float32)}
    if generator.random() < 0.7:
        operands["b"] = generator.normal(size=groups * outside).astype(np.float32)
    if generator.random() < 0.5:
        attributes["kernel_shape"] = kernel
    return onnx.helper.make_node("Conv", ["x", *operands], ["y"], **attributes), (1, groups * inside, *size), operands


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_convolutions(axes: int, seed: int, tmp_path: Path) -> None:
    node, shape, operands = random_convolution(np.random.default_rng(100 * axes + seed), axes)
    assert_same(node_model(tmp_path / "net.onnx", node, 13, shape, **operands), shape)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 3]},
        {"kernel_shape": [3, 2], "strides": [2, 1]},
        {"kernel_shape": [2, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1},
    ],
)
def test_average_pooling(attributes: dict[str, object], tmp_path: Path) -> None:
    node, shape = onnx.helper.make_node("AveragePool", ["x"], ["y"], **attributes), (1, 3, 5, 4)
    assert_same(node_model(tmp_path / "net.onnx", node, 13, shape), shape)


@pytest.mark.parametrize("shape", [(1, 3), (1, 3, 4), (1, 3, 2, 4)])
def test_batch_normalisation(shape: tuple[int, ...], tmp_path: Path) -> None:
    node = onnx.helper.make_node("BatchNormalization", ["x", "s", "b", "m", "v"], ["y"], epsilon=0.01)
    generator = np.random.default_rng(1)
    operands = {name: generator.uniform(0.1, 2, 3).astype(np.float32) for name in "sbmv"}
    assert_same(node_model(tmp_path / "net.onnx", node, 13, shape, **operands), shape)


WEIGHTS = np.ones((2, 2, 2, 2), dtype=np.float32)
SHAPE = (1, 2, 4, 4)


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("Conv", {"auto_pad": "SAME_UPPER"}),
        ("AveragePool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}),
        ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [2, 2]}),
    ],
)
def test_what_is_not_read(op_type: str, attributes: dict[str, object], tmp_path: Path) -> None:
    operands = {"w": WEIGHTS} if op_type == "Conv" else {}
    node = onnx.helper.make_node(op_type, ["x", *operands], ["y"], **attributes)
    with pytest.raises(NotRead):
        read(node_model(tmp_path / "net.onnx", node, 13, SHAPE, **operands), SHAPE)


def test_a_large_convolution_is_not_even_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: object) -> np.ndarray:
        raise AssertionError("an array was made")

    node, shape = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1]), (1, 2, 32, 32)
    model = node_model(tmp_path / "net.onnx", node, 13, shape, w=WEIGHTS)
    monkeypatch.setattr(window_operators.WindowGrid, "convolved", begun)
    with pytest.raises(NotRead, match="large"):
        read(model, shape)
    with pytest.raises(AssertionError):
        read(node_model(tmp_path / "small.onnx", node, 13, SHAPE, w=WEIGHTS), SHAPE)


def test_magnitudes_are_those_of_all_terms() -> None:
    """Where terms cancel, what their rounding is relative to does not."""
    weights = np.array([[[[1.0, -1.0]]]])
    x = AffineExpression({}, np.full((1, 1, 1, 3), 1e6), np.full((1, 1, 1, 3), 1e6))
    one = window_operators.WindowGrid((1, 2), (1, 1), (1, 1), ((0, 0), (0, 0)))
    y = window_operators.convolution(x, weights, one)
    assert (y.constant == 0).all()
    assert (y.magnitude == 2e6).all()
