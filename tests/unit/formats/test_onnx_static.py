"""Choices and sequences that do not depend on the inputs are resolved on import, at random, against onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from small_models import load_text

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.normalise import normalise
from toolkit.formats.onnx.torch_import import check_import, import_module

ROWS, COLUMNS = 4, 3


def imported_right(model: OnnxModel) -> bool:
    """Whether the imported network agrees with onnxruntime at several points, negative ones included."""
    size = sum(info.size for info in model.inputs)
    return check_import(model, import_module(model), (np.full(size, -2.0), np.full(size, 2.0)))


@dataclass
class Graph:
    """A graph under construction; every tensor has the shape (ROWS, COLUMNS) or is named otherwise."""

    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    count: int = 0

    def add(self, op_type: str, *operands: str, **attributes: Any) -> str:
        self.count += 1
        self.nodes.append(onnx.helper.make_node(op_type, operands, [f"t{self.count}"], **attributes))
        return f"t{self.count}"

    def constant(self, value: Any, node: bool) -> str:
        """A constant, as a node or as an initializer."""
        tensor = onnx.numpy_helper.from_array(np.asarray(value))
        if node:
            return self.add("Constant", value=tensor)
        self.count += 1
        tensor.name = f"t{self.count}"
        self.initializers.append(tensor)
        return tensor.name

    def position(self, value: int) -> str:
        """An integer: a constant, or computed from the shape of the input."""
        if self.rng.random() < 0.3:
            shape = self.add("Shape", "x")
            one = self.add("Gather", shape, self.constant(np.int64(0), False), axis=0)
            return self.add("Sub", one, self.constant(np.int64(ROWS - value), True))
        return self.constant(np.int64(value), bool(self.rng.random() < 0.5))

    def declared(self, graph: onnx.GraphProto, opset: int) -> onnx.ValueInfoProto:
        """The output with the shape that it has, which no inference tells of sequences."""
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        [value] = session.run(None, {"x": np.ones((ROWS, COLUMNS), dtype=np.float32)})
        return onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, value.shape)

    def save(self, path: Path, output: str, opset: int) -> OnnxModel:
        self.nodes.append(onnx.helper.make_node("Identity", [output], ["y"]))
        graph = onnx.helper.make_graph(
            self.nodes,
            "g",
            [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (ROWS, COLUMNS))],
            [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
            self.initializers,
        )
        graph.output[0].CopyFrom(self.declared(graph, opset))
        opsets = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
        path.write_bytes(model.SerializeToString())
        return load_model(path)


def _pieces(graph: Graph) -> tuple[str, int]:
    """A sequence of tensors of one shape, and their number."""
    rng = graph.rng
    if rng.random() < 0.5:
        parts = [graph.add(op, "x") for op in rng.choice(["Relu", "Neg", "Abs"], size=int(rng.integers(1, 4)))]
        if rng.random() < 0.5:
            parts.append(graph.constant(rng.normal(size=(ROWS, COLUMNS)).astype(np.float32), True))
        return graph.add("SequenceConstruct", *parts), len(parts)
    axis = int(rng.integers(-2, 2))
    size = (ROWS, COLUMNS)[axis]
    if rng.random() < 0.5:
        return graph.add("SplitToSequence", "x", axis=axis, keepdims=int(rng.integers(2))), size
    length = graph.constant(np.int64(2 if size == ROWS else 1), True)
    return graph.add("SplitToSequence", "x", length, axis=axis), 2 if size == ROWS else 3


def _changed(graph: Graph, sequence: str, count: int) -> tuple[str, int]:
    """The sequence after an insertion or an erasure."""
    rng, place = graph.rng, int(graph.rng.integers(-count, count))
    if rng.random() < 0.5 and count > 1:
        return graph.add("SequenceErase", sequence, *([graph.position(place)] if rng.random() < 0.7 else [])), count - 1
    tensor = graph.add("Neg", graph.add("SequenceAt", sequence, graph.position(int(rng.integers(count)))))
    where = [graph.position(place)] if rng.random() < 0.7 else []
    return graph.add("SequenceInsert", sequence, tensor, *where), count + 1


@pytest.mark.parametrize("seed", range(24))
def test_sequences_are_resolved(tmp_path: Path, seed: int) -> None:
    graph = Graph(np.random.default_rng(seed))
    sequence, count = _pieces(graph)
    for _ in range(int(graph.rng.integers(3))):
        sequence, count = _changed(graph, sequence, count)
    if graph.rng.random() < 0.3:
        sequence = graph.add("Identity", sequence)
    kind = graph.rng.integers(3)
    if kind == 0:
        result = graph.add("SequenceAt", sequence, graph.position(int(graph.rng.integers(-count, count))))
    elif kind == 1:
        result = graph.add("ConcatFromSequence", sequence, axis=0, new_axis=1)
    else:
        length = graph.add("Cast", graph.add("SequenceLength", sequence), to=onnx.TensorProto.FLOAT)
        result = graph.add("Mul", "x", length)
    model = graph.save(tmp_path / "net.onnx", result, 17)
    assert imported_right(model)
    assert not any("Sequence" in node.op_type for node in normalise(model).proto.graph.node)


def test_optional_values_are_what_they_hold(tmp_path: Path) -> None:
    text = """main (float[2,2] x) => (float[2,2] y) {
        h = Relu(x) o = Optional(h) c = OptionalHasElement(o) g = OptionalGetElement(o)
        y = If(c) <then_branch = t () => (float[2,2] a) { a = Identity(g) },
                   else_branch = e () => (float[2,2] b) { b = Neg(g) }> }"""
    assert imported_right(load_text(tmp_path / "net.onnx", text, 18))


def test_a_position_that_varies_is_refused_by_name(tmp_path: Path) -> None:
    text = """main (float[2,2] x) => (float[2,2] y) {
        s = SequenceConstruct(x, x) m = ReduceMax<keepdims = 0>(x) p = Cast<to = 7>(m) y = SequenceAt(s, p) }"""
    with pytest.raises(UnsupportedError, match=r"operator SequenceAt .*depends on the value of 'p'"):
        normalise(load_text(tmp_path / "net.onnx", text, 17))


CONDITIONS = {
    "shape": "s = Shape(x) k = Size(s) two = Constant<value_int = 2>() c = Equal(k, two)",
    "length": "q = SequenceConstruct(x, x) k = SequenceLength(q) two = Constant<value_int = 1>() c = Equal(k, two)",
    "arithmetic": "u = Constant<value_float = 2.0>() v = CastLike(u, x) c = Greater(v, u)",
}


def _choice(rng: np.random.Generator, depth: int) -> str:
    """A branch as text, with the result ``r{depth}``; branches side by side use the same names."""
    t, r, inner = f"t{depth}", f"r{depth}", f"(float[2,2] r{depth - 1})"
    if depth == 0 or rng.random() < 0.3:
        op_type = rng.choice(["Relu", "Neg", "Abs", "Identity"])
        return f"w{depth} = Constant<value_floats = [{rng.normal():.3f}]>() {t} = Mul(h, w{depth}) {r} = {op_type}({t})"
    taken, left = _choice(rng, depth - 1), _choice(rng, depth - 1)
    captured = f"{t} = Add(h, x)" if rng.random() < 0.5 else f"{t} = Relu(h)"
    return (
        f"{captured} u{depth} = If(c) <then_branch = g () => {inner} {{ {taken} }},"
        f" else_branch = g () => {inner} {{ {left} }}> {r} = Sub({t}, u{depth})"
    )


@pytest.mark.parametrize("seed", range(9))
def test_known_branches_are_taken(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    condition = list(CONDITIONS)[seed % 3]
    text = (
        f"main (float[2,2] x) => (float[2,2] y) {{ {CONDITIONS[condition]} h = Neg(x)"
        f" y = If(c) <then_branch = a () => (float[2,2] r2) {{ {_choice(rng, 2)} }},"
        f" else_branch = b () => (float[2,2] r2) {{ {_choice(rng, 2)} }}> }}"
    )
    model = load_text(tmp_path / "net.onnx", text, 17)
    assert imported_right(model)
    assert "If" not in {node.op_type for node in normalise(model).proto.graph.node}


def test_weights_inside_branches(tmp_path: Path) -> None:
    """Both branches call theirs by the same name, and so does the graph around them."""
    model = load_text(
        tmp_path / "net.onnx",
        """main (float[2,2] x) => (float[2,2] y) {
        one = Shape(x) n = Size(one) two = Constant<value_int = 2>() c = Equal(n, two)
        a = If(c) <then_branch = t () => (float[2,2] r) <float[2] w = {1.0, 2.0}> { r = Mul(x, w) },
                   else_branch = e () => (float[2,2] r) <float[2] w = {3.0, 4.0}> { r = Mul(x, w) }>
        d = Not(c)
        y = If(d) <then_branch = t () => (float[2,2] r) <float[2] w = {5.0, 6.0}> { r = Add(a, w) },
                   else_branch = e () => (float[2,2] r) <float[2] w = {7.0, 8.0}> { r = Add(a, w) }> }""",
        17,
    )
    assert imported_right(model)


def test_a_condition_that_varies_is_refused(tmp_path: Path) -> None:
    text = """main (float[2,2] x) => (float[2,2] y) {
        m = ReduceMax<keepdims = 0>(x) z = Constant<value_float = 0.0>() c = Greater(m, z)
        y = If(c) <then_branch = t () => (float[2,2] a) { a = Relu(x) },
                   else_branch = e () => (float[2,2] b) { b = Neg(x) }> }"""
    with pytest.raises(UnsupportedError, match=r"operator If .*control flow"):
        normalise(load_text(tmp_path / "net.onnx", text, 17))


DATA_SHAPES = {
    "range": "k = Cast<to = 7>(m) z = Constant<value_int = 0>() o = Constant<value_int = 1>() r = Range(z, k, o)",
    "expand": "k = Cast<to = 7>(m) n = Unsqueeze(k, axis) o = Constant<value_floats = [1.0]>() r = Expand(o, n)",
    "non-zero": "b = Floor(x) r = NonZero(b)",
    "slice": "k = Cast<to = 7>(m) n = Unsqueeze(k, axis) v = Flatten<axis = 0>(x) r = Slice(v, axis, n)",
}


@pytest.mark.parametrize("name", DATA_SHAPES)
def test_the_shape_of_what_has_no_fixed_shape_is_no_constant(tmp_path: Path, name: str) -> None:
    """Only the sample input has it; the proof would be about another network."""
    text = f"""main (float[2,2] x) => (float[2,2] y) {{
        m = ReduceMax<keepdims = 0>(x) {DATA_SHAPES[name]}
        s = Size(r) f = Cast<to = 1>(s) y = Mul(x, f) }}"""
    model = load_text(tmp_path / "net.onnx", text, 17, axis=np.array([0]))
    with pytest.raises(UnsupportedError, match="shape of its result depends"):
        normalise(model)


def test_what_no_output_needs_is_not_looked_at(tmp_path: Path) -> None:
    text = "main (float[2,2] x) => (float[2,2] y) { y = Relu(x) n = NonZero(x) r = RandomNormalLike(x) }"
    assert imported_right(load_text(tmp_path / "net.onnx", text, 17))


def test_loops_over_constants_are_constants(tmp_path: Path) -> None:
    text = """main (float[2] x) => (float[2] y) {
        n = Constant<value_int = 3>() c = Constant<value = bool {1}>() z = Constant<value_floats = [1.0, 2.0]>()
        v = Loop(n, c, z) <body = b (int64 i, bool k, float[2] a) => (bool l, float[2] d) {
            l = Identity(k) d = Add(a, a) }>
        y = Mul(x, v) }"""
    assert imported_right(load_text(tmp_path / "net.onnx", text, 17))


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("place", ["initializer", "constant"])
def test_sparse_weights(place: str, flat: bool, tmp_path: Path) -> None:
    weights = np.array([[0, 2, 0], [0, 0, -1.5]], dtype=np.float32)
    places = np.flatnonzero(weights) if flat else np.argwhere(weights)
    values = onnx.numpy_helper.from_array(weights[weights != 0], "w")
    indices = onnx.numpy_helper.from_array(places.astype(np.int64))
    sparse = onnx.helper.make_sparse_tensor(values, indices, weights.shape)
    constant = [onnx.helper.make_node("Constant", [], ["w"], sparse_value=sparse)] if place == "constant" else []
    graph = onnx.helper.make_graph(
        [*constant, onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 2))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 3))],
        sparse_initializer=[] if constant else [sparse],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    assert imported_right(load_model(tmp_path / "net.onnx"))
