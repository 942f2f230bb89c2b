"""What is said about operators without torch, and by `inspect`, is what the verifier really does, both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import load_text, relu_net

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.operators import BOUNDED, check_operators, onnx_operators
from toolkit.formats.onnx.resize_matrix import run_alone
from toolkit.ops import ONNX, OperatorKind
from toolkit.problem.compile import bind_module
from toolkit.problem.operator_survey import OperatorHandling, OperatorSurvey, survey

OPSET = 23
W = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
KERNEL, ROW = np.ones((1, 1, 2, 2), dtype=np.float32), np.ones(4, dtype=np.float32)
SQUARE, IMAGE = (4, 4), (1, 1, 4, 4)
Example = tuple[onnx.NodeProto, tuple[int, ...], dict[str, np.ndarray]]


def _node(op_type: str, *operands: str, **attributes: object) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, ["x", *operands], ["y"], **attributes)


def _i(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


EXAMPLES: dict[str, Example] = {
    "Attention": (_node("Attention", "a", "a"), (1, 1, 2, 4), {"a": ROW.reshape(1, 1, 1, 4)}),
    "AveragePool": (_node("AveragePool", kernel_shape=[2, 2]), IMAGE, {}),
    "BatchNormalization": (_node("BatchNormalization", "a", "a", "a", "a"), IMAGE, {"a": ROW[:1]}),
    "Cast": (_node("Cast", to=onnx.TensorProto.DOUBLE), SQUARE, {}),
    "CastLike": (_node("CastLike", "a"), SQUARE, {"a": W.astype(np.float64)}),
    "Celu": (_node("Celu", alpha=1.5), SQUARE, {}),
    "CenterCropPad": (_node("CenterCropPad", "a"), SQUARE, {"a": _i(3, 6)}),
    "Compress": (_node("Compress", "a", axis=0), SQUARE, {"a": ROW > 0}),
    "Concat": (_node("Concat", "a", "x", axis=0), SQUARE, {"a": W}),
    "Conv": (_node("Conv", "a"), IMAGE, {"a": KERNEL}),
    "ConvTranspose": (_node("ConvTranspose", "a"), IMAGE, {"a": KERNEL}),
    "CumSum": (_node("CumSum", "a"), SQUARE, {"a": np.asarray(np.int64(1))}),
    "DepthToSpace": (_node("DepthToSpace", blocksize=2), (1, 4, 2, 2), {}),
    "Einsum": (_node("Einsum", equation="ij->ji"), SQUARE, {}),
    "Expand": (_node("Expand", "a"), (1, 4), {"a": _i(3, 4)}),
    "EyeLike": (_node("EyeLike"), SQUARE, {}),
    "Gather": (_node("Gather", "a"), SQUARE, {"a": _i(1, 0)}),
    "GatherElements": (_node("GatherElements", "a"), SQUARE, {"a": np.zeros((4, 4), dtype=np.int64)}),
    "GatherND": (_node("GatherND", "a"), SQUARE, {"a": _i(1, 0)}),
    "Gemm": (_node("Gemm", "a", "b"), SQUARE, {"a": W, "b": ROW}),
    "GlobalAveragePool": (_node("GlobalAveragePool"), IMAGE, {}),
    "GlobalMaxPool": (_node("GlobalMaxPool"), IMAGE, {}),
    "GroupNormalization": (_node("GroupNormalization", "a", "a", num_groups=1), IMAGE, {"a": ROW[:1]}),
    "InstanceNormalization": (_node("InstanceNormalization", "a", "a"), IMAGE, {"a": ROW[:1]}),
    "LayerNormalization": (_node("LayerNormalization", "a", "a"), SQUARE, {"a": ROW}),
    "MeanVarianceNormalization": (_node("MeanVarianceNormalization", axes=[0, 2, 3]), IMAGE, {}),
    "MaxPool": (_node("MaxPool", kernel_shape=[2, 2]), IMAGE, {}),
    "Pad": (_node("Pad", "a"), SQUARE, {"a": _i(1, 0, 0, 1)}),
    "Pow": (_node("Pow", "a"), SQUARE, {"a": np.asarray(np.float32(3))}),
    "Reshape": (_node("Reshape", "a"), SQUARE, {"a": _i(2, 8)}),
    "Resize": (_node("Resize", "", "a"), IMAGE, {"a": np.array([1, 1, 2, 2], dtype=np.float32)}),
    "ReverseSequence": (_node("ReverseSequence", "a"), SQUARE, {"a": _i(1, 2, 3, 4)}),
    "RMSNormalization": (_node("RMSNormalization", "a"), SQUARE, {"a": ROW}),
    "Scatter": (_node("Scatter", "a", "b"), SQUARE, {"a": np.array([[0]]), "b": W[:1, :1]}),
    "ScatterElements": (_node("ScatterElements", "a", "b"), SQUARE, {"a": np.array([[0]]), "b": W[:1, :1]}),
    "ScatterND": (_node("ScatterND", "a", "b"), SQUARE, {"a": np.array([[1, 2]]), "b": ROW[:1]}),
    "Slice": (_node("Slice", "a", "b"), SQUARE, {"a": _i(1), "b": _i(3)}),
    "SpaceToDepth": (_node("SpaceToDepth", blocksize=2), IMAGE, {}),
    "Split": (_node("Split", "a"), SQUARE, {"a": _i(4)}),
    "Squeeze": (_node("Squeeze", "a"), (1, 4), {"a": _i(0)}),
    "Sum": (_node("Sum", "a", "x"), SQUARE, {"a": W}),
    "Swish": (_node("Swish", alpha=1.5), SQUARE, {}),
    "Tile": (_node("Tile", "a"), SQUARE, {"a": _i(2, 1)}),
    "Upsample": (_node("Upsample", "a"), IMAGE, {"a": np.array([1, 1, 2, 2], dtype=np.float32)}),
    "Unsqueeze": (_node("Unsqueeze", "a"), SQUARE, {"a": _i(0)}),
    "Where": (onnx.helper.make_node("Where", ["a", "x", "b"], ["y"]), SQUARE, {"a": W > 0, "b": W}),
    **{name: (_node(name, "a"), SQUARE, {"a": W}) for name in ("Add", "Sub", "Mul", "Div", "MatMul", "Max", "Min")},
}
"""Examples of operators that need operands or attributes of a certain kind."""

TEXTS = {
    "ConcatFromSequence": "s = SequenceConstruct(x) y = ConcatFromSequence<axis = 0>(s)",
    "Constant": "c = Constant<value_floats = [1.0, 2.0]>() y = Add(x, c)",
    "ConstantOfShape": "s = Shape(x) c = ConstantOfShape(s) y = Add(x, c)",
    "If": """c = Constant<value = bool {1}>() y = If(c) <then_branch = g () => (float[2,2] a) { a = Relu(x) },
             else_branch = h () => (float[2,2] b) { b = Neg(x) }>""",
    "Optional": "o = Optional(x) y = OptionalGetElement(o)",
    "OptionalGetElement": "o = Optional(x) y = OptionalGetElement(o)",
    "OptionalHasElement": "o = Optional(x) h = OptionalHasElement(o) f = Cast<to = 1>(h) y = Mul(x, f)",
    "DequantizeLinear": "s = Constant<value_float = 0.1>() q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)",
    "QuantizeLinear": "s = Constant<value_float = 0.1>() q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)",
    "Range": "o = Constant<value_float = 1.0>() e = Constant<value_float = 2.0>() r = Range(o, e, o) y = Mul(x, r)",
    "RotaryEmbedding": """d = Unsqueeze(x, axis) c = Constant<value_floats = [1.0]>()
             s = Unsqueeze(c, axis)
             t = Expand(s, two) u = Unsqueeze(t, axis)
             z = RotaryEmbedding<num_heads = 1>(d, u, u) y = Squeeze(z, axis)""",
    "SequenceAt": "s = SequenceConstruct(x, x) p = Constant<value_int = 1>() y = SequenceAt(s, p)",
    "SequenceConstruct": "s = SequenceConstruct(x, x) p = Constant<value_int = 1>() y = SequenceAt(s, p)",
    "SequenceEmpty": "e = SequenceEmpty() s = SequenceInsert(e, x) p = Constant<value_int = 0>() y = SequenceAt(s, p)",
    "SequenceErase": "t = SequenceConstruct(x, x) s = SequenceErase(t) y = ConcatFromSequence<axis = 0>(s)",
    "SequenceInsert": "e = SequenceEmpty() s = SequenceInsert(e, x) p = Constant<value_int = 0>() y = SequenceAt(s, p)",
    "SequenceLength": "s = SequenceConstruct(x, x) n = SequenceLength(s) f = Cast<to = 1>(n) y = Mul(x, f)",
    "Shape": "s = Shape(x) f = Cast<to = 1>(s) y = Mul(x, f)",
    "Size": "s = Size(x) f = Cast<to = 1>(s) y = Mul(x, f)",
    "SplitToSequence": "s = SplitToSequence<axis = 0>(x) y = ConcatFromSequence<axis = 0>(s)",
    "Trilu": "y = Trilu(x)",
}
"""Graphs that need several nodes to show one operator."""


def _saved(path: Path, example: Example, opset: int) -> OnnxModel | None:
    """The model of a node; None where onnxruntime does not run it."""
    node, shape, operands = example
    image = run_alone(node, opset, {"x": np.ones(shape, dtype=np.float32), **operands})
    if image is None or image.dtype.kind not in "fib":
        return None
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.helper.np_dtype_to_tensor_dtype(image.dtype), image.shape)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in operands.items()],
    )
    opsets = [onnx.helper.make_opsetid("", opset)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    return load_model(path)


def _guessed(schema: onnx.defs.OpSchema) -> list[Example]:
    """Nodes of an operator with as many operands as it needs, all alike: the input, then constants."""
    count = max(schema.min_input, 1)
    operands = {f"a{k}": None for k in range(1, count)}
    node = onnx.helper.make_node(schema.name, ["x", *operands], ["y"])
    shapes = [(1, 4), SQUARE, IMAGE]
    return [(node, shape, {name: np.full(shape, 0.5, dtype=np.float32) for name in operands}) for shape in shapes]


def _surveyed(model: OnnxModel) -> OperatorSurvey:
    try:
        return survey(bind_module(model))
    except UnsupportedError as error:
        return OperatorSurvey([], str(error))


def _opset(schema: onnx.defs.OpSchema) -> int:
    """The last version of the operator set that has an operator as one to be used."""
    return max(schema.since_version - 1, 7) if schema.deprecated else max(schema.since_version, OPSET)


HANDLINGS = {
    OperatorKind.AFFINE: {OperatorHandling.NOTHING, OperatorHandling.AFFINE},
    OperatorKind.ELEMENTWISE: {OperatorHandling.PIECEWISE, OperatorHandling.RELAXED},
    OperatorKind.EVALUATED: {OperatorHandling.NOTHING},
}
"""What is done for an operator of a kind where its other operands are constant."""
SCHEMAS = {schema.name: schema for schema in onnx.defs.get_all_schemas() if schema.domain == ""}


@pytest.mark.parametrize("op_type", sorted(SCHEMAS))
def test_every_operator_of_the_standard(tmp_path: Path, op_type: str) -> None:
    """One that is said to have bounds has them, in some example; one that is said to have none has none in any."""
    schema = SCHEMAS[op_type]
    if op_type in TEXTS:
        text = f"main (float[2,2] x) => (float[2,2] y) {{ {TEXTS[op_type]} }}"
        models = [load_text(tmp_path / "net.onnx", text, OPSET, axis=_i(0), two=_i(2, 1))]
    else:
        examples = [EXAMPLES[op_type]] if op_type in EXAMPLES else _guessed(schema)
        saved = [_saved(tmp_path / "net.onnx", example, _opset(schema)) for example in examples]
        models = [model for model in saved if model is not None]
    bounded = []
    for model in models:
        found = _surveyed(model)
        reason = found.reason
        bounded.append(not reason)
        if reason:
            assert model.path.name in reason
            assert "aten" not in reason and "OperationDescription" not in reason
        if op_type not in BOUNDED:
            with pytest.raises(UnsupportedError, match=f"operator {op_type} "):
                check_operators(model)
        elif not reason:
            check_operators(model)
            handlings = {row.handling for row in found.rows if row.op_type == op_type}
            assert handlings <= HANDLINGS.get(ONNX[op_type].kind, set(OperatorHandling))
    assert any(bounded) == (op_type in BOUNDED), [_surveyed(model).reason for model in models]


REFUSED = {
    "Less": "zero = Sub(x, x) c = Less(zero, x) y = Where(c, x, zero)",
    "ThresholdedRelu": "y = ThresholdedRelu(x)",
    "MaxPool": "y = MaxPool<kernel_shape = [2, 2], dilations = [2, 2], pads = [1, 1, 1, 1]>(x)",
    "GatherElements": "i = Cast<to = 7>(x) y = GatherElements(x, i)",
}  # fmt: skip


@pytest.mark.parametrize("op_type", REFUSED)
def test_what_cannot_be_bounded_is_named_as_the_file_names_it(tmp_path: Path, op_type: str) -> None:
    text = f"main (float[1,1,4,4] x) => (float[1,1,4,4] y) {{ {REFUSED[op_type]} }}"
    model = load_text(tmp_path / "net.onnx", text, 17, w=KERNEL)
    found = _surveyed(model)
    assert found.reason.startswith(f"{model.path}: operator ")
    assert f"operator {op_type} " in found.reason or "operator Cast" in found.reason
    assert "aten" not in found.reason
    assert all(row.handling == OperatorHandling.REFUSED for row in found.rows if row.op_type == op_type)


PRODUCTS = {
    "product": "y = Mul(x, x)",
    "matrix product": "t = Transpose<perm = [1, 0]>(x) y = MatMul(x, t)",
    "quotient": "y = Div(x, x)",
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_what_varies_are_relaxed(tmp_path: Path, name: str) -> None:
    found = _surveyed(load_text(tmp_path / "net.onnx", f"main (float[2,2] x) => (float[2,2] y) {{ {PRODUCTS[name]} }}"))
    assert found.rows[-1].handling == OperatorHandling.RELAXED
    assert not found.reason


def test_rows_count_nodes_and_neurons(tmp_path: Path) -> None:
    rows = _surveyed(load_model(relu_net(tmp_path / "net.onnx"))).rows
    assert [(row.op_type, row.count, row.neurons, row.handling) for row in rows] == [
        ("MatMul", 2, 6, "affine"),
        ("Relu", 1, 4, "piecewise linear"),
    ]


def test_operators_of_outputs_that_nobody_asks_about_do_not_matter(tmp_path: Path) -> None:
    text = """main (float[1,3] x) => (float[1,3] y, int64[1] label) {
        y = Relu(x) label = ArgMax<axis = 1, keepdims = 0>(y) }"""
    model = load_text(tmp_path / "net.onnx", text)
    check_operators(model, ["y"])
    with pytest.raises(UnsupportedError, match="operator ArgMax"):
        check_operators(model)


def test_names_are_those_of_onnx() -> None:
    assert set(onnx_operators()) <= set(SCHEMAS)
