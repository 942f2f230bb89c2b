"""Random small networks as ONNX models: one function a family, registered by name.

They are written with `onnx.helper` alone, so nothing of the package under test takes part in making them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 13
Generator = np.random.Generator
Family = Callable[[Generator], onnx.ModelProto]
PIECEWISE_LINEAR: dict[str, Family] = {}
SMOOTH: dict[str, Family] = {}


def family(table: dict[str, Family]) -> Callable[[Family], Family]:
    """Register a function that makes a random model."""

    def register(function: Family) -> Family:
        table[function.__name__] = function
        return function

    return register


class NetworkBuilder:
    """An ONNX graph under construction; ``shapes`` knows the shape of every tensor."""

    def __init__(self, generator: Generator, input_shape: tuple[int, ...]) -> None:
        self.generator = generator
        self.input_shape = input_shape
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, values: NDArray) -> str:
        """A constant tensor; floats become float32."""
        values = values.astype(np.float32) if values.dtype.kind == "f" else values
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        """A constant with normally distributed entries."""
        return self.constant(self.generator.normal(0, scale, shape))

    def op(self, kind: str, *operands: str, **attributes: object) -> str:
        """The result of a node."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(operands), [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def dense(self, x: str, inputs: int, outputs: int) -> str:
        """A fully connected layer, written in one of the two usual ways."""
        scale = 1.5 / np.sqrt(inputs)
        bias = self.normal(outputs, scale=0.5)
        if self.generator.random() < 0.5:
            return self.op("Gemm", x, self.normal(outputs, inputs, scale=scale), bias, transB=1)
        return self.op("Add", self.op("MatMul", x, self.normal(inputs, outputs, scale=scale)), bias)

    def convolution(self, x: str, inputs: int, outputs: int, **attributes: object) -> str:
        """A two by two convolution with bias."""
        weight = self.normal(outputs, inputs, 2, 2, scale=1.5 / np.sqrt(4 * inputs))
        return self.op("Conv", x, weight, self.normal(outputs, scale=0.5), kernel_shape=[2, 2], **attributes)

    def positive(self, size: int) -> str:
        """A constant vector with entries between 0.5 and 1.5."""
        return self.constant(self.generator.uniform(0.5, 1.5, size))

    def batch_norm(self, x: str, channels: int) -> str:
        """Batch normalisation with random statistics, in evaluation mode."""
        scale, shift, mean = (self.normal(channels) for _ in range(3))
        return self.op("BatchNormalization", x, scale, shift, mean, self.positive(channels))

    def model(self, output: str, outputs: int) -> onnx.ModelProto:
        """The finished model, with a flat output of one sample."""
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input_shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, (1, outputs))],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


@family(PIECEWISE_LINEAR)
def mlp(generator: Generator) -> onnx.ModelProto:
    """Fully connected ReLU network with 1 to 4 hidden layers of at most 8 neurons, 12 in all."""
    inputs, outputs = int(generator.integers(2, 7)), int(generator.integers(2, 5))
    depth = int(generator.integers(1, 5))
    widths = [inputs, *generator.integers(2, min(8, 12 // depth) + 1, size=depth).tolist()]
    builder, x = NetworkBuilder(generator, (1, inputs)), "x"
    for size, following in itertools.pairwise(widths):
        x = builder.op("Relu", builder.dense(x, size, following))
    return builder.model(builder.dense(x, widths[-1], outputs), outputs)


def tiny(generator: Generator) -> onnx.ModelProto:
    """Fully connected ReLU network with two hidden layers of three neurons."""
    builder = NetworkBuilder(generator, (1, 2))
    x = builder.op("Relu", builder.dense("x", 2, 3))
    return builder.model(builder.dense(builder.op("Relu", builder.dense(x, 3, 3)), 3, 2), 2)


@family(PIECEWISE_LINEAR)
def kinks(generator: Generator) -> onnx.ModelProto:
    """Fully connected, with all kinds of piecewise-linear activations."""
    inputs, outputs, width = int(generator.integers(2, 5)), int(generator.integers(2, 4)), int(generator.integers(2, 4))
    builder = NetworkBuilder(generator, (1, inputs))

    def activation(x: str) -> str:
        low, high = (builder.constant(np.array(bound)) for bound in (-0.3, 0.7))
        choices: list[Callable[[], str]] = [
            lambda: builder.op("LeakyRelu", x, alpha=float(generator.uniform(0.05, 0.5))),
            lambda: builder.op("Abs", x),
            lambda: builder.op("Clip", x, low, high),
            lambda: builder.op("Max", x, builder.normal(1, width)),
            lambda: builder.op("Min", x, builder.normal(1, width)),
        ]
        return choices[generator.integers(len(choices))]()

    x = activation(builder.dense("x", inputs, width))
    x = activation(builder.dense(x, width, width))
    return builder.model(builder.dense(x, width, outputs), outputs)


@family(PIECEWISE_LINEAR)
def residual(generator: Generator) -> onnx.ModelProto:
    """Two residual blocks, the second with its addition before the ReLU."""
    inputs, outputs, width = int(generator.integers(2, 5)), int(generator.integers(2, 4)), int(generator.integers(2, 4))
    builder = NetworkBuilder(generator, (1, inputs))
    x = builder.op("Relu", builder.dense("x", inputs, width))
    x = builder.op("Add", builder.op("Relu", builder.dense(x, width, width)), x)
    inner = builder.op("Relu", builder.dense(x, width, width))
    x = builder.op("Relu", builder.op("Sub", builder.dense(inner, width, width), x))
    return builder.model(builder.dense(x, width, outputs), outputs)


@family(PIECEWISE_LINEAR)
def convolutional(generator: Generator) -> onnx.ModelProto:
    """Convolution, batch normalisation, ReLU, twice."""
    channels, outputs = int(generator.integers(1, 3)), int(generator.integers(2, 4))
    builder = NetworkBuilder(generator, (1, channels, 3, 2))
    x = builder.convolution("x", channels, 2, pads=[0, 1, 0, 0])
    x = builder.op("Relu", builder.batch_norm(x, 2))
    x = builder.op("Relu", builder.convolution(x, 2, 3, pads=[1, 0, 0, 1], strides=[2, 1]))
    return builder.model(builder.dense(builder.op("Flatten", x), 3 * 1 * 2, outputs), outputs)


@family(PIECEWISE_LINEAR)
def pooled(generator: Generator) -> onnx.ModelProto:
    """Max pooling with padding, then average pooling.

    A pooling window is a tournament of ReLUs whose relaxation is weak, so the network is smaller than the others.
    """
    outputs = int(generator.integers(2, 4))
    builder = NetworkBuilder(generator, (1, 1, 3, 3))
    x = builder.op("MaxPool", builder.convolution("x", 1, 1), kernel_shape=[2, 2], strides=[2, 2], pads=[1, 0, 1, 0])
    x = builder.op("AveragePool", builder.op("Relu", x), kernel_shape=[2, 1])
    return builder.model(builder.dense(builder.op("Flatten", x), 1, outputs), outputs)


@family(PIECEWISE_LINEAR)
def wired(generator: Generator) -> onnx.ModelProto:
    """Values moved about between the nonlinear operators: slices, padding, transposes, concatenation."""
    builder = NetworkBuilder(generator, (1, 4))
    integers = lambda *values: builder.constant(np.array(values, dtype=np.int64))  # noqa: E731
    left = builder.op("Slice", "x", integers(0), integers(2), integers(1))
    right = builder.op("Mul", builder.op("Slice", "x", integers(1), integers(4), integers(1)), builder.normal(1, 3))
    padded = builder.op("Pad", builder.op("Sub", left, builder.normal(1, 2)), integers(0, 1, 0, 0))
    table = builder.op("Reshape", builder.op("Concat", padded, right, axis=1), integers(1, 2, 3))
    turned = builder.op("Relu", builder.op("Transpose", table, perm=[0, 2, 1]))
    back = builder.op("Transpose", turned, perm=[0, 2, 1])
    mean = builder.op("ReduceMean", back, axes=[1], keepdims=0)
    hidden = builder.op("Relu", builder.dense(builder.op("Flatten", back), 6, 4))
    joined = builder.op("Concat", hidden, mean, builder.op("Neg", left), axis=1)
    return builder.model(builder.dense(joined, 9, 2), 2)


@family(SMOOTH)
def smooth(generator: Generator) -> onnx.ModelProto:
    """Sigmoid, tanh and ReLU in turn."""
    inputs, outputs, width = int(generator.integers(2, 4)), int(generator.integers(2, 4)), int(generator.integers(2, 5))
    builder = NetworkBuilder(generator, (1, inputs))
    x = builder.op("Sigmoid", builder.dense("x", inputs, width))
    x = builder.op("Tanh", builder.dense(x, width, width))
    x = builder.op("Relu", builder.dense(x, width, width))
    return builder.model(builder.dense(x, width, outputs), outputs)


FAMILIES = {**PIECEWISE_LINEAR, **SMOOTH, "tiny": tiny}


def random_network(name: str, seed: int) -> onnx.ModelProto:
    """The model of a family for a seed."""
    return FAMILIES[name](np.random.default_rng(seed))


def save(model: onnx.ModelProto, folder: Path, name: str = "network.onnx") -> Path:
    """Write a model into a folder."""
    path = folder / name
    onnx.save(model, path)
    return path


def sizes(model: onnx.ModelProto) -> tuple[int, int]:
    """Number of input and of output elements."""
    shapes = [
        [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in (model.graph.input[0], model.graph.output[0])
    ]
    return int(np.prod(shapes[0])), int(np.prod(shapes[1]))
