"""Quantised networks in QDQ form are read as the standard and onnxruntime say, or refused with a reason."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from quantised_networks import dequantise, pair, qdq_model, quantise

from toolkit.bounds.crown import bound_features, crown_bounds
from toolkit.bounds.interval import Bounds, interval_bounds
from toolkit.errors import UnsupportedError
from toolkit.formats.onnx.model_file import OnnxModel, load_model
from toolkit.formats.onnx.operators import check_operators
from toolkit.formats.onnx.runtime import Session
from toolkit.formats.onnx.torch_import import import_module
from toolkit.formats.vnncomp.witness import replay
from toolkit.formats.vnnlib.read import parse_query
from toolkit.models.imported import read_network
from toolkit.problem.compile import bind_module
from toolkit.problem.operator_survey import OperatorHandling, survey
from toolkit.problem.program import build_program
from toolkit.problem.trace import trace
from toolkit.result import Verdict
from toolkit.settings import Settings
from toolkit.verify import load_networks, verify

S, Z = np.float32(0.1), np.int8(-5)
TYPES = [np.int8, np.uint8, np.int16, np.uint16]


def inputs_of(model: OnnxModel, count: int, seed: int = 0) -> np.ndarray:
    """Inputs small and large, of which many are ties of steps of a tenth, ``(count, n)``."""
    generator = np.random.default_rng(seed)
    sizes = generator.choice([0.5, 3.0, 40.0, 1e4], (count, 1))
    points = generator.uniform(-sizes, sizes, (count, model.inputs[0].size))
    ties = np.round(points * 10) / 10 + 0.05
    return np.where(generator.random(points.shape) < 0.3, ties, points).astype(np.float32)


def computed(model: OnnxModel, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the imported network and onnxruntime make of points."""
    session, module, shape = Session(model), import_module(model), model.inputs[0].shape
    with torch.no_grad():
        mine = [module(torch.from_numpy(point.reshape(shape)))[0].reshape(-1).numpy() for point in points]
    return np.stack(mine), np.stack([session.run_undeclared([point])[0].reshape(-1) for point in points])


def agree(model: OnnxModel, count: int = 40) -> bool:
    """Whether both compute the same, ties and saturated values included."""
    check_operators(model)
    mine, reference = computed(model, inputs_of(model, count))
    return bool(np.allclose(mine, reference, rtol=1e-6, atol=1e-6))


@pytest.mark.parametrize("opset", [10, 13, 19, 21, 23])
def test_a_pair_in_every_version_that_changed_it(tmp_path: Path, opset: int) -> None:
    assert agree(load_model(qdq_model(tmp_path / "net.onnx", pair("s"), (1, 4), opset, s=S)))
    assert agree(load_model(qdq_model(tmp_path / "net.onnx", pair("s", "z"), (1, 4), opset, s=S, z=Z)))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("axis", [1, 2, -1, -2])
def test_zero_points_and_axes(tmp_path: Path, kind: type, axis: int) -> None:
    generator, limits = np.random.default_rng(axis + 2), np.iinfo(kind)
    size = (1, 3, 4)[axis]
    for zeros in (generator.integers(limits.min, limits.max, size), np.full(size, limits.max), np.zeros(size)):
        scales = generator.uniform(0.05, 2, size).astype(np.float32)
        path = qdq_model(
            tmp_path / "net.onnx", pair("s", "z", axis=axis), (1, 3, 4), 21, s=scales, z=zeros.astype(kind)
        )
        assert agree(load_model(path))


def test_parameters_of_one_element_belong_to_no_axis(tmp_path: Path) -> None:
    path = qdq_model(tmp_path / "net.onnx", pair("s", "z", axis=0), (1, 4), s=S.reshape(1), z=np.array([7], np.uint8))
    assert agree(load_model(path))


@pytest.mark.parametrize("kind", [TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16, TensorProto.UINT16])
def test_the_type_may_be_an_attribute(tmp_path: Path, kind: int) -> None:
    nodes = [quantise("x", "s", to="q", output_dtype=kind), dequantise("q", "s", to="y")]
    assert agree(load_model(qdq_model(tmp_path / "net.onnx", nodes, (1, 4), 21, s=S)))


def test_integers_may_become_floats_by_a_cast(tmp_path: Path) -> None:
    nodes = [quantise("x", "s", to="q"), helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)]
    assert agree(load_model(qdq_model(tmp_path / "net.onnx", nodes, (1, 4), s=S)))


IMAGE = (1, 2, 4, 4)
PADS = np.array([0, 0, 1, 0, 0, 0, 0, 2])
MOVES: dict[str, tuple[onnx.NodeProto, dict[str, Any]]] = {
    "Clip": (helper.make_node("Clip", ["q", "a", "b"], ["r"]), {"a": np.int8(-20), "b": np.int8(31)}),
    "Concat": (helper.make_node("Concat", ["q", "a", "q"], ["r"], axis=1), {"a": np.full((1, 1, 4, 4), -9, np.int8)}),
    "Expand": (helper.make_node("Expand", ["q", "a"], ["r"]), {"a": np.array([2, 2, 4, 4])}),
    "Flatten": (helper.make_node("Flatten", ["q"], ["r"]), {}),
    "Gather": (helper.make_node("Gather", ["q", "a"], ["r"], axis=3), {"a": np.array([3, -1, 0])}),
    "Identity": (helper.make_node("Identity", ["q"], ["r"]), {}),
    "MaxPool": (helper.make_node("MaxPool", ["q"], ["r"], kernel_shape=[2, 2], pads=[1] * 4, strides=[2, 2]), {}),
    "MaxPool, uneven": (helper.make_node("MaxPool", ["q"], ["r"], kernel_shape=[2, 2], pads=[0, 1, 1, 0]), {}),
    "Pad": (
        helper.make_node("Pad", ["q", "a", "b"], ["r"]),
        {"a": PADS, "b": np.int8(7)},
    ),
    "Pad, with zeros": (helper.make_node("Pad", ["q", "a"], ["r"]), {"a": PADS}),
    "Reshape": (helper.make_node("Reshape", ["q", "a"], ["r"]), {"a": np.array([4, 8])}),
    "Slice": (helper.make_node("Slice", ["q", "a", "b"], ["r"]), {"a": np.array([0, 1]), "b": np.array([1, 2])}),
    "SpaceToDepth": (helper.make_node("SpaceToDepth", ["q"], ["r"], blocksize=2), {}),
    "Split": (helper.make_node("Split", ["q"], ["r", "other"], axis=1), {}),
    "Tile": (helper.make_node("Tile", ["q", "a"], ["r"]), {"a": np.array([1, 2, 1, 1])}),
    "Transpose": (helper.make_node("Transpose", ["q"], ["r"], perm=[0, 3, 1, 2]), {}),
}


@pytest.mark.parametrize("name", MOVES)
def test_integers_may_be_moved(tmp_path: Path, name: str) -> None:
    node, constants = MOVES[name]
    nodes = [quantise("x", "s", "z", to="q"), node, dequantise("r", "t", "z", to="y")]
    path = qdq_model(tmp_path / "net.onnx", nodes, IMAGE, 13, s=S, t=np.float32(0.3), z=Z, **constants)
    assert agree(load_model(path))


def test_weights_are_constants_in_any_form(tmp_path: Path) -> None:
    """Blocks of four bits too: nothing is left of them but numbers."""
    weights = helper.make_tensor("w", TensorProto.INT4, [4, 4], np.arange(-8, 8))
    scales = np.random.default_rng(0).random((2, 4)).astype(np.float32)
    nodes = [
        dequantise("w", "s", to="floats", block_size=2, axis=0),
        helper.make_node("MatMul", ["x", "floats"], ["y"]),
    ]
    model = load_model(qdq_model(tmp_path / "net.onnx", nodes, (1, 4), 21, w=weights, s=scales))
    assert agree(model)
    assert [(row.op_type, row.handling) for row in survey(bind_module(model)).rows] == [("MatMul", "affine")]


FOUR_BITS = helper.make_tensor("z", TensorProto.INT4, [], [3])
HALF = TensorProto.FLOAT16
REFUSED: dict[str, tuple[list[onnx.NodeProto], dict[str, Any], str]] = {
    "blocks": (pair("s", block_size=2), {"s": np.full((1, 2), 0.1, np.float32)}, "QuantizeLinear .*in blocks"),
    "four bits": (pair("s", "z"), {"s": S, "z": FOUR_BITS}, "'y_integers' is quantised to less than 8 bits"),
    "half precision": (
        [quantise("x", "s", to="q", precision=HALF), dequantise("q", "s", to="y")], {"s": S}, "'precision'"),
    "half the width": (
        [helper.make_node("Cast", ["x"], ["h"], to=HALF), quantise("h", "t", to="q"), dequantise("q", "s", to="y")],
        {"s": S, "t": np.float16(0.1)}, "quantisation of float16"),
    "a scale of zero": (pair("s"), {"s": np.float32(0)}, "scale is not positive"),
    "a scale that varies": (
        [helper.make_node("ReduceMax", ["x"], ["t"], keepdims=0), *pair("t")], {}, "'t' depends on the input"),
    "integers as output": ([quantise("x", "s", to="y")], {"s": S}, "end with DequantizeLinear"),
    "sums of integers": (
        [quantise("x", "s", to="q"), helper.make_node("Add", ["q", "q"], ["r"]), dequantise("r", "s", to="y")],
        {"s": S}, "operator Add .*DequantizeLinear before it"),
    "a cast to integers": (
        [quantise("x", "s", to="q"), helper.make_node("Cast", ["q"], ["r"], to=TensorProto.INT32),
         dequantise("r", "s", to="y")], {"s": S}, "operator Cast .*DequantizeLinear before it"),
    "of onnxruntime": (
        [quantise("x", "s", "z", to="q", domain="com.microsoft"),
         dequantise("q", "s", "z", to="y", domain="com.microsoft")], {"s": S, "z": np.int16(0)}, "operator set 21"),
    "arithmetic in integers": (
        [quantise("x", "s", "z", to="q"),
         helper.make_node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["r"]),
         dequantise("r", "s", "z", to="y")],
        {"s": S, "z": np.uint8(3), "w": np.ones((4, 4), np.uint8)}, "quantise statically in QDQ form"),
    "ranges of each input": (
        [helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "t", "z"]), dequantise("q", "t", "z", to="y")],
        {}, "quantise statically in QDQ form"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_forms_are_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    nodes, constants, reason = REFUSED[name]
    kind = TensorProto.UINT8 if name == "integers as output" else TensorProto.FLOAT
    opset = 23 if name == "half precision" else 21 if name in {"blocks", "four bits", "half the width"} else 14
    model = load_model(qdq_model(tmp_path / "net.onnx", nodes, (1, 4), opset, kind, **constants))
    with pytest.raises(UnsupportedError, match=reason) as refusal:
        check_operators(model)
        import_module(model)
    assert str(refusal.value).startswith(str(model.path))


def test_a_quantised_network_is_not_pruned(tmp_path: Path) -> None:
    nodes = [
        *pair("s", to="d"),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    path = qdq_model(tmp_path / "net.onnx", nodes, (1, 1, 2, 2), s=S, w=np.ones((4, 2), np.float32))
    with pytest.raises(UnsupportedError, match="prune the network of floats"):
        read_network(path, (1, 2, 2), 2)


def random_model(path: Path, seed: int) -> OnnxModel:
    """Three affine layers with pairs of random parameters before and after them."""
    generator = np.random.default_rng(seed)
    nodes, constants, current = list[onnx.NodeProto](), dict[str, Any](), "x"
    for number in range(3):
        kind = np.dtype(generator.choice(TYPES))
        narrow = kind.itemsize == 1
        count = int(generator.choice([1, 4]))
        limits = np.iinfo(kind)
        constants[f"s{number}"] = generator.uniform(0.01, 0.3, count).astype(np.float32) / (1 if narrow else 50)
        middle = (int(limits.min) + int(limits.max)) // 2
        spread = 100 if narrow else 5000
        constants[f"z{number}"] = (middle + generator.integers(-spread, spread, count)).astype(kind)
        constants[f"w{number}"] = generator.normal(size=(4, 4)).astype(np.float32)
        nodes += pair(f"s{number}", f"z{number}", source=current, to=f"d{number}")
        nodes.append(helper.make_node("MatMul", [f"d{number}", f"w{number}"], [f"m{number}"]))
        nodes.append(helper.make_node(str(generator.choice(["Relu", "Neg", "Tanh"])), [f"m{number}"], [f"r{number}"]))
        current = f"r{number}"
    nodes += pair("s0", "z0", source=current)
    return load_model(qdq_model(path, nodes, (1, 4), 21, **constants))


@pytest.mark.parametrize("seed", range(12))
def test_bounds_of_random_networks_contain_what_onnxruntime_computes(tmp_path: Path, seed: int) -> None:
    model = random_model(tmp_path / "net.onnx", seed)
    generator = np.random.default_rng(seed)
    module, session = import_module(model), Session(model)
    program = build_program(trace(lambda x: module(x.reshape(1, 4))[0].reshape(-1), [torch.zeros(4)]))
    rows = torch.eye(4, dtype=torch.float64).unsqueeze(0)
    for radius in (0.0, 0.02, 0.4, 5.0):
        centre = generator.uniform(-2, 2, 4).round(2).astype(np.float32)
        lower, upper = centre - np.float32(radius), centre + np.float32(radius)
        points = np.array([*itertools.product(*zip(lower, upper, strict=True))], dtype=np.float32)
        points = np.concatenate([points, generator.uniform(lower, upper, (60, 4)).astype(np.float32)])
        points = np.clip(points, lower, upper)
        values = np.stack([session.run_undeclared([point])[0].reshape(-1) for point in points])
        box = Bounds(*(torch.from_numpy(side).double().unsqueeze(0) for side in (lower, upper)))
        neurons = crown_bounds(program, box)
        low, negated = (bound_features(program, sign * rows, box, neurons)[1] for sign in (1, -1))
        for bounds in (interval_bounds(program, box)[1], Bounds(low, -negated)):
            assert (bounds.lower[0].numpy() - 1e-5 <= values).all()
            assert (values <= bounds.upper[0].numpy() + 1e-5).all()


def test_what_is_said_of_a_pair(tmp_path: Path) -> None:
    found = survey(bind_module(load_model(qdq_model(tmp_path / "net.onnx", pair("s"), (1, 4), s=S))))
    assert not found.reason
    assert [(row.op_type, row.handling) for row in found.rows] == [
        ("QuantizeLinear", OperatorHandling.RELAXED),
        ("DequantizeLinear", OperatorHandling.AFFINE),
    ]


def test_fusion_changes_values_and_is_off_unless_asked_for(tmp_path: Path) -> None:
    """onnxruntime makes one pair of two: what it then computes is what neither the standard nor the import says."""
    nodes = [*pair("s", "z", to="d"), *pair("t", "z", source="d")]
    path = qdq_model(tmp_path / "net.onnx", nodes, (1, 4), s=S, t=np.float32(0.3), z=np.uint8(100))
    model = load_model(path)
    points = inputs_of(model, 30)
    mine, reference = computed(model, points)
    plain, fused = (
        np.stack([session.run([point])[0].reshape(-1) for point in points])
        for session in (Session(model, optimise=False), Session(model).fused)
    )
    assert np.allclose(mine, plain, atol=1e-5) and np.array_equal(reference, plain)
    assert not np.allclose(plain, fused, atol=1e-2)


QUERY = """(declare-const X_0 Real)(declare-const Y_0 Real)
(assert (>= X_0 {x}))(assert (<= X_0 {x}))(assert ({relation} Y_0 {y}))"""


def test_a_witness_holds_with_and_without_fusion(tmp_path: Path) -> None:
    nodes = [*pair("s", "z", to="d"), *pair("t", "z", source="d")]
    model = load_model(qdq_model(tmp_path / "net.onnx", nodes, (1, 1), s=S, t=np.float32(0.3), z=np.uint8(100)))
    session = Session(model)
    points = np.linspace(0, 3, 200, dtype=np.float32)
    values = [(float(session.run([x])[0].item()), float(session.fused.run([x])[0].item())) for x in points]
    x, plain, fused = max(((x, *both) for x, both in zip(points, values, strict=True)), key=lambda v: v[1] - v[2])
    assert plain > fused + 0.05
    for y, holds in ((fused - 0.01, True), ((plain + fused) / 2, False)):
        query = parse_query(QUERY.format(x=float(x), relation=">=", y=f"{y:.6f}"))
        found = replay({"": session}, query, np.array([x], dtype=np.float64))
        assert (found is not None) == holds


@pytest.mark.parametrize("pairs", [1, 2])
def test_nothing_is_proved_where_onnxruntime_runs_something_else(tmp_path: Path, pairs: int) -> None:
    """Of two pairs in a row it makes one, with other results at almost all points of a box; one pair stays one."""
    nodes = [*pair("s", "z", to="d"), *pair("t", "z", source="d")] if pairs == 2 else pair("s", "z")
    path = qdq_model(tmp_path / "net.onnx", nodes, (1, 1), s=S, t=np.float32(0.3), z=np.uint8(100))
    query = parse_query(
        "(declare-const X_0 Real)(declare-const Y_0 Real)"
        "(assert (>= X_0 0.0))(assert (<= X_0 2.0))(assert (>= Y_0 5.0))"
    )
    result = verify(load_networks({"": path}), query, Settings(timeout=20, device="cpu"))
    assert result.verdict == (Verdict.UNSAT if pairs == 1 else Verdict.UNKNOWN), result.reason
    assert pairs == 1 or "operators of integers" in result.reason
