"""Random attention networks, masked in every way that models are, and what their outputs never exceed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

FILLS = [-1e4, -1e9, -np.inf, float(np.finfo(np.float32).min)]
Generator = np.random.Generator


@dataclass(frozen=True)
class AttentionNetwork:
    """A model whose outputs are means of some of its inputs, which ones is set by a mask."""

    model: onnx.ModelProto
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    output: int
    """An output."""
    most: float
    """The largest value that it can be the mean of."""

    def query(self, above: float) -> str:
        """Whether the output can be above its largest value by so much."""
        lines = [f"(declare-const X_{i} Real)" for i in range(len(self.lower))]
        lines += [f"(declare-const Y_{i} Real)" for i in range(len(self.lower))]
        for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            lines += [f"(assert (>= X_{i} {low}))", f"(assert (<= X_{i} {high}))"]
        return "\n".join([*lines, f"(assert (>= Y_{self.output} {self.most + above:.6f}))"])


@dataclass
class AttentionGraph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, NDArray] = field(default_factory=dict)

    def add(self, op: str, inputs: list[str], output: str, **attributes: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))


def random_attention(generator: Generator) -> AttentionNetwork:
    """Two or three tokens that attend to each other, in one or two heads; each may attend to itself at least."""
    heads, tokens, width = (int(generator.integers(low, high)) for low, high in ((1, 3), (2, 4), (1, 3)))
    causal = bool(generator.integers(2))
    masked = np.triu(np.ones((tokens, tokens), bool), 1) if causal else generator.random((tokens, tokens)) < 0.4
    np.fill_diagonal(masked, False)
    graph = AttentionGraph(constants={"shape": np.array([1, heads, tokens, width])})
    graph.add("Reshape", ["x", "shape"], "r")
    opset = 23 if causal and generator.random() < 0.3 else int(generator.choice([13, 14, 17, 21]))
    if opset == 23:
        graph.add("Attention", ["r", "r", "r"], "o", is_causal=1)
    else:
        _written_out(graph, masked, causal and opset >= 14, generator)
    graph.add("Flatten", ["o"], "y")
    return _asked(graph, opset, masked, (heads, tokens, width), generator)


def _written_out(graph: AttentionGraph, masked: NDArray, triangle: bool, generator: Generator) -> None:
    graph.add("Transpose", ["r"], "k", perm=[0, 1, 3, 2])
    graph.add("MatMul", ["r", "k"], "products")
    graph.constants["scale"] = np.array(generator.choice([0.5, 1, 10]), np.float32)
    graph.add("Mul", ["products", "scale"], "all")
    ways = [_by_sum, _by_choice, *[_by_triangle] * triangle]
    ways[generator.integers(len(ways))](graph, masked, FILLS[generator.integers(len(FILLS))])
    graph.add("Softmax", ["scores"], "shares", axis=-1)
    graph.add("MatMul", ["shares", "r"], "o")


def _by_sum(graph: AttentionGraph, masked: NDArray, fill: float) -> None:
    graph.constants["mask"] = np.where(masked, fill, 0).astype(np.float32)
    graph.add("Add", ["all", "mask"], "scores")


def _by_choice(graph: AttentionGraph, masked: NDArray, fill: float) -> None:
    graph.constants |= {"masked": masked, "fill": np.array(fill, np.float32)}
    graph.add("Where", ["masked", "fill", "all"], "scores")


def _by_triangle(graph: AttentionGraph, masked: NDArray, fill: float) -> None:
    graph.constants |= {"full": np.full(masked.shape, fill, np.float32), "one": np.array(1)}
    graph.add("Trilu", ["full", "one"], "mask", upper=1)
    graph.add("Add", ["all", "mask"], "scores")


def _asked(
    graph: AttentionGraph, opset: int, masked: NDArray, shape: tuple[int, int, int], generator: Generator
) -> AttentionNetwork:
    heads, tokens, width = shape
    size = heads * tokens * width
    lower = generator.uniform(-1, 0.5, size).round(2)
    upper = (lower + generator.uniform(0.1, 0.5)).round(2)
    output = int(generator.integers(size))
    head, token, column = np.unravel_index(output, shape)
    most = upper.reshape(shape)[head, ~masked[token], column].max()
    body = helper.make_graph(
        graph.nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, size])],
        [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return AttentionNetwork(model, lower, upper, output, float(most))
