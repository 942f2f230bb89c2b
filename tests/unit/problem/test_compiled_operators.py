"""Compiled operators with extreme attributes, empty operands and conversions against onnxruntime on the file itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx_programs import evaluate, output_bounds, program_of_model

from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.vnncomp.model_binding import bind
from toolkit.formats.vnnlib.read import read_query
from toolkit.problem.cases import compile_cases
from toolkit.quick_proof import TooLarge, read_question

LARGEST = float(np.finfo(np.float32).max)
LIMITS = [0.0, -0.0, 1.0, -0.5, 0.25, 1e-38, -1e-38, 20.0, -20.0, 1e9, -1e9, LARGEST, -LARGEST]
SLOPES = [0.0, 1.0, -1.0, 0.01, 2.0, 1e-30, 1e9, -1e9, 1e30, LARGEST]
SIZE = 6


def model_of(
    folder: Path, nodes: list[onnx.NodeProto], opset: int, kind: int = TensorProto.FLOAT, **weights: NDArray[Any]
) -> OnnxModel:
    """A model of nodes from ``x`` of shape (2, 3) to ``y``."""
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", kind, [2, 3])],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    (folder / "net.onnx").write_bytes(onnx.shape_inference.infer_shapes(model).SerializeToString())
    return load_model(folder / "net.onnx")


def assert_compiled(model: OnnxModel, seed: int, radius: float = 30.0, exact: float = 1e-5) -> None:
    """The program agrees with onnxruntime at points of a box, and the box's bounds contain what it says there."""
    rng = np.random.default_rng(seed)
    program, session = program_of_model(model), Session(model)
    lower, upper = (np.full(SIZE, sign * radius) for sign in (-1, 1))
    points = rng.uniform(lower, upper, (12, SIZE)).astype(np.float32).astype(np.float64)
    expected = np.array([session.run([point])[0].astype(np.float64).reshape(-1) for point in points])
    finite = np.isfinite(expected)  # single precision may overflow where real numbers do not
    np.testing.assert_allclose(evaluate(program, points)[finite], expected[finite], rtol=exact, atol=1e-6)
    expected = np.where(finite, expected, np.nan)
    for bounds in output_bounds(program, lower, upper):
        slack = exact * np.abs(expected) + 1e-6
        assert not (bounds.lower.numpy() > expected + slack).any()
        assert not (bounds.upper.numpy() < expected - slack).any()


@pytest.mark.parametrize("seed", range(20))
def test_clip_with_limits_of_any_size(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    low, high = (None if rng.random() < 0.2 else float(rng.choice(LIMITS)) for _ in range(2))
    opset = int(rng.choice([7, 10, 11, 13]))
    opset = 11 if low is not None and high is not None and low > high else opset  # onnxruntime refuses it before
    given = {name: value for name, value in (("min", low), ("max", high)) if value is not None}
    if opset < 11:
        model = model_of(tmp_path, [helper.make_node("Clip", ["x"], ["y"], **given)], opset)
    else:
        operands = ["x", *("" if value is None else name for name, value in (("min", low), ("max", high)))]
        weights = {name: np.float32(value) for name, value in given.items()}
        model = model_of(tmp_path, [helper.make_node("Clip", operands, ["y"])], opset, **weights)
    assert_compiled(model, seed)


@pytest.mark.parametrize("limits", [(0.1, 0.3), (0.3, 0.1), (1e300, None), (None, -1e300), (-1e300, 1e300)])
def test_limits_in_double_precision_keep_their_digits(
    tmp_path: Path, limits: tuple[float | None, float | None]
) -> None:
    weights = {name: np.float64(value) for name, value in zip("ab", limits, strict=True) if value is not None}
    node = helper.make_node("Clip", ["x", *(name if name in weights else "" for name in "ab")], ["y"])
    assert_compiled(model_of(tmp_path, [node], 13, TensorProto.DOUBLE, **weights), 0, exact=1e-14)


def test_limits_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    for low, high in ((np.nan, 1.0), (0.0, np.nan), (np.inf, None), (None, -np.inf)):
        weights = {name: np.float32(value) for name, value in (("a", low), ("b", high)) if value is not None}
        node = helper.make_node("Clip", ["x", *(name if name in weights else "" for name in "ab")], ["y"])
        with pytest.raises(UnsupportedError):
            program_of_model(model_of(tmp_path, [node], 13, **weights))


def _piece(rng: np.random.Generator) -> tuple[onnx.NodeProto, dict[str, NDArray[Any]]]:
    """A random piecewise operator with random constants."""
    slope, other = float(rng.choice(SLOPES)), float(rng.choice(LIMITS))
    kind = str(rng.choice(["LeakyRelu", "PRelu", "HardSigmoid", "Max", "Min", "Selu", "Elu", "Abs"]))
    if kind == "PRelu":
        return helper.make_node(kind, ["x", "a"], ["y"]), {"a": rng.choice(SLOPES, 3).astype(np.float32)}
    if kind in ("Max", "Min"):
        return helper.make_node(kind, ["x", "a"], ["y"]), {"a": np.float32(other)}
    attributes = {
        "LeakyRelu": {"alpha": slope},
        "HardSigmoid": {"alpha": slope if abs(slope) < 1e10 else 0.2, "beta": other if abs(other) < 100 else 1.0},
        "Selu": {"alpha": 1.67327, "gamma": 1.0507} if rng.random() < 0.5 else {},
        "Elu": {"alpha": slope if abs(slope) < 1e20 else 3.0},
    }
    return helper.make_node(kind, ["x"], ["y"], **attributes.get(kind, {})), {}


@pytest.mark.parametrize("seed", range(24))
def test_pieces_with_slopes_and_limits_of_any_size(tmp_path: Path, seed: int) -> None:
    node, weights = _piece(np.random.default_rng(seed))
    assert_compiled(model_of(tmp_path, [node], 16, **weights), seed, radius=3.0)


def test_constants_of_selu_are_taken_as_they_are(tmp_path: Path) -> None:
    node = helper.make_node("Selu", ["x"], ["y"], alpha=1.67326319217681884765625 * (1 + 5e-6))
    model = model_of(tmp_path, [node], 6 + 3)
    x = np.full((1, SIZE), -8.0)
    assert evaluate(program_of_model(model), x)[0, 0] == pytest.approx(Session(model).run([x])[0].flat[0], rel=1e-6)


REDUCTIONS = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("opset", [11, 13, 18])
def test_reductions_with_axes_missing_or_empty(tmp_path: Path, name: str, opset: int) -> None:
    rng = np.random.default_rng(opset)
    schema = onnx.defs.get_schema(f"Reduce{name}", max_inclusive_version=opset)
    by_operand = len(schema.inputs) > 1
    for axes in (None, [], [1], [-2], [1, 0]):
        for noop in (0, 1) if "noop_with_empty_axes" in schema.attributes else (0,):
            attributes: dict[str, Any] = {"keepdims": int(rng.integers(2))} if rng.random() < 0.8 else {}
            attributes |= {"noop_with_empty_axes": noop} if noop else {}
            operands, weights = ["x"], {}
            if axes is not None and by_operand:
                operands, weights = ["x", "a"], {"a": np.array(axes, dtype=np.int64)}
            elif axes:
                attributes["axes"] = axes
            shifted = helper.make_node("Add", ["x", "shift"], ["z"])
            node = helper.make_node(schema.name, ["z", *operands[1:]], ["y"], **attributes)
            shift = np.float32(0.0 if name in ("L1", "L2") else 6.0)  # logarithms and products of what is positive
            model = model_of(tmp_path, [shifted, node], opset, shift=shift, **weights)
            assert_compiled(model, opset, radius=2.0, exact=1e-4)


FUNCTIONS: dict[str, tuple[int, Callable[[np.random.Generator], dict[str, Any]]]] = {
    "MeanVarianceNormalization": (13, lambda rng: {} if rng.random() < 0.6 else {"axes": [1, 3]}),
    "Celu": (12, lambda rng: {} if rng.random() < 0.6 else {"alpha": float(rng.uniform(0.1, 3))}),
    "GroupNormalization": (21, lambda rng: {"num_groups": 2} | ({} if rng.random() < 0.6 else {"epsilon": 0.3})),
    "Gelu": (20, lambda rng: {} if rng.random() < 0.6 else {"approximate": "none"}),
    "Swish": (24, lambda rng: {} if rng.random() < 0.6 else {"alpha": float(rng.uniform(0.1, 3))}),
    "RMSNormalization": (23, lambda rng: {} if rng.random() < 0.6 else {"epsilon": 0.3}),
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", FUNCTIONS)
def test_operators_with_a_body_keep_their_defaults(tmp_path: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    opset, draw = FUNCTIONS[name]
    operands = {"GroupNormalization": ["x", "a", "b"], "RMSNormalization": ["x", "c"]}.get(name, ["x"])
    weights = {"a": rng.normal(size=4).astype(np.float32), "b": rng.normal(size=4).astype(np.float32)}
    weights["c"] = rng.normal(size=3).astype(np.float32)
    shape = [1, 4, 2, 3]
    graph = helper.make_graph(
        [helper.make_node(name, operands, ["y"], **draw(rng))], "main",
        [helper.make_tensor_value_info("x", 1, shape)], [helper.make_tensor_value_info("y", 1, shape)],
        [numpy_helper.from_array(value, key) for key, value in weights.items() if key in operands],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    (tmp_path / "net.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    )
    model = load_model(tmp_path / "net.onnx")
    program, session = program_of_model(model), Session(model)
    points = rng.normal(size=(5, 24)).astype(np.float32).astype(np.float64)
    expected = np.array([session.run([point])[0].reshape(-1) for point in points])
    np.testing.assert_allclose(evaluate(program, points), expected, rtol=1e-3, atol=1e-4)


def test_functions_of_the_model_keep_their_defaults(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["" : 18, "mine" : 1]>
        main (float[2,3] x) => (float[2,3] y) { h = mine.outer(x) y = mine.scale <factor = 0.5>(h) }
        <domain: "mine", opset_import: ["" : 18]> scale <factor: float = 3.0> (a) => (b)
        { c = Constant <value_float: float = @factor>() b = Mul(a, c) }
        <domain: "mine", opset_import: ["" : 18, "mine" : 1]> outer (a) => (b) { b = mine.scale(a) }"""
    (tmp_path / "net.onnx").write_bytes(onnx.parser.parse_model(text).SerializeToString())
    assert_compiled(load_model(tmp_path / "net.onnx"), 0)


FLOATS = [TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16]


@pytest.mark.parametrize("seed", range(16))
def test_conversions_round_and_bounds_know_it(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ends = [TensorProto.DOUBLE, TensorProto.FLOAT, TensorProto.FLOAT16]
    kinds = [int(kind) for kind in (rng.choice(ends), *rng.choice(FLOATS, int(rng.integers(1, 4))), rng.choice(ends))]
    names = ["x", *(f"h{n}" for n in range(1, len(kinds) - 1)), "y"]
    nodes = [helper.make_node("Cast", [a], [b], to=k) for a, b, k in zip(names, names[1:], kinds[1:], strict=False)]
    model = model_of(tmp_path, nodes, 13, kinds[0])
    program, session = program_of_model(model), Session(model)
    for radius in (1e-7, 1e-3, 1.0, 1000.0, 60000.0):
        lower, upper = -radius * rng.random(SIZE), radius * rng.random(SIZE)
        points = rng.uniform(lower, upper, (20, SIZE)).astype(helper.tensor_dtype_to_np_dtype(kinds[0]))
        points = points.astype(np.float64)
        expected = np.array([session.run([point])[0].astype(np.float64).reshape(-1) for point in points])
        for bounds in output_bounds(program, np.minimum(lower, points.min(0)), np.maximum(upper, points.max(0))):
            assert (bounds.lower.numpy() <= expected).all() and (expected <= bounds.upper.numpy()).all()


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_a_lossy_conversion_is_not_the_identity(tmp_path: Path, kind: int) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["h"], to=kind), helper.make_node("Cast", ["h"], ["y"], to=1)]
    model = model_of(tmp_path, nodes, 13)
    program, x = program_of_model(model), np.full(SIZE, 1 + 2.0**-12)
    assert evaluate(program, x[None])[0].tolist() == [1.0] * SIZE
    for bounds in output_bounds(program, x, x):
        assert bool((bounds.lower <= 1.0).all())
    for bounds in output_bounds(program, x * 0, x * 1e39):
        assert not np.isfinite(bounds.upper.numpy()).any()


def test_conversions_to_a_wider_type_are_exact(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["h"], to=TensorProto.DOUBLE), helper.make_node("Add", ["h", "a"], ["y"])]
    program = program_of_model(model_of(tmp_path, nodes, 13, a=np.float64(0.1)))
    assert not program.layers
    assert evaluate(program, np.zeros((1, SIZE)))[0, 0] == 0.1


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL, TensorProto.UINT8])
def test_conversions_to_integers_are_refused(tmp_path: Path, kind: int) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["h"], to=kind), helper.make_node("Cast", ["h"], ["y"], to=1)]
    with pytest.raises(UnsupportedError):
        program_of_model(model_of(tmp_path, nodes, 13))


@pytest.mark.parametrize("kind", [TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2])
@pytest.mark.parametrize("saturate", [0, 1])
def test_conversions_to_eight_bits_are_refused(tmp_path: Path, kind: int, saturate: int) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=kind, saturate=saturate),
        helper.make_node("Cast", ["h"], ["y"], to=1),
    ]
    with pytest.raises(UnsupportedError, match="FLOAT8E"):
        program_of_model(model_of(tmp_path, nodes, 19))


@pytest.mark.parametrize("step", ["Add", "Mul", "Sub"])
@pytest.mark.parametrize("inside", [False, True])
def test_arithmetic_in_half_precision_is_refused(tmp_path: Path, step: str, inside: bool) -> None:
    kind = TensorProto.FLOAT if inside else TensorProto.FLOAT16
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node(step, ["r", "a"], ["s"]),
        helper.make_node("Cast", ["s"], ["y"], to=kind),
    ]
    with pytest.raises(UnsupportedError, match="computes in float16, where every operation rounds"):
        program_of_model(model_of(tmp_path, nodes, 13, kind, a=np.float16(0.5)))


def test_half_precision_may_be_moved_and_compared(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Max", ["h", "a"], ["m"]),
        helper.make_node("Transpose", ["m"], ["t"]),
        helper.make_node("Cast", ["t"], ["y"], to=1),
    ]
    assert_compiled(model_of(tmp_path, nodes, 13, a=np.float16(0.5)), 0, exact=2e-3)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_the_prover_without_torch_does_not_read_half_precision(tmp_path: Path, kind: int) -> None:
    model = model_of(tmp_path, [helper.make_node("Relu", ["x"], ["y"])], 14, kind)
    (tmp_path / "query.vnnlib").write_text(
        "".join(f"(declare-const X_{n} Real)(assert (>= X_{n} 0))(assert (<= X_{n} 1))\n" for n in range(SIZE))
        + "".join(f"(declare-const Y_{n} Real)\n" for n in range(SIZE))
        + "(assert (<= Y_0 -1))"
    )
    query = read_query(tmp_path / "query.vnnlib")
    [model] = bind(query, {"": model}).values()
    if kind == TensorProto.FLOAT:
        read_question(query, compile_cases(query), model)
        return
    with pytest.raises(TooLarge, match="element types"):
        read_question(query, compile_cases(query), model)


def test_unused_outputs_are_no_operands(tmp_path: Path) -> None:
    """An optional operand that is left out stays left out after a node whose middle output is left out."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "a"], ["h", "", "inverse"]),
        helper.make_node("LayerNormalization", ["h", "a", ""], ["z"]),
        helper.make_node("Mul", ["z", "inverse"], ["y"]),
    ]
    model = model_of(tmp_path, nodes, 17, a=np.ones(3, dtype=np.float32))
    try:
        assert_compiled(model, 0, radius=2.0, exact=1e-3)
    except UnsupportedError as error:
        assert "inverse" in str(error)
