"""Verdicts speak of the declared types: real numbers, or what networks compute in floating point."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from random_networks import NetworkBuilder, random_network, save, sizes

from toolkit.agreement.float_semantics import check_plain, rounding_error
from toolkit.agreement.real_semantics import certainly
from toolkit.cli import run
from toolkit.formats.onnx.exact_evaluation import run_exactly
from toolkit.formats.onnx.model_file import load_model
from toolkit.formats.vnnlib.read import parse_query
from toolkit.result import Result, Verdict
from toolkit.settings import Settings
from toolkit.verify import load_networks, load_query, verify

SETTINGS = Settings(timeout=20, device="cpu", attack_restarts=2, attack_steps=10, alpha_iterations=3, beta_iterations=3)


def absorbing(generator: np.random.Generator, folder: Path) -> tuple[Path, int, float]:
    """``relu(w . x + M) - M`` with an M in which single precision loses the rest: its path, inputs, and w's entry."""
    inputs, large = int(generator.integers(1, 5)), float(2 ** generator.integers(9, 21))
    weight = float(2.0 ** generator.integers(-2, 3))
    builder = NetworkBuilder(generator, (1, inputs))
    there = builder.op("Gemm", "x", builder.constant(np.full((inputs, 1), weight)), builder.constant(np.array([large])))
    back = builder.op("Gemm", builder.op("Relu", there), builder.constant(np.ones((1, 1))),
                      builder.constant(np.array([-large])))  # fmt: skip
    return save(builder.model(back, 1), folder), inputs, weight * inputs * 2.0**-24 * large


def typed(dtype: str, inputs: int, outputs: int, low: float, high: float, condition: str) -> str:
    """A query of version 2.0 about all inputs in one box."""
    bounds = "".join(f"(assert (>= X[0,{i}] {low:.40f}))\n(assert (<= X[0,{i}] {high:.40f}))\n" for i in range(inputs))
    return (f"(vnnlib-version <2.0>)\n(declare-network f (declare-input X {dtype} [1,{inputs}])"
            f" (declare-output Y {dtype} [1,{outputs}]))\n{bounds}(assert {condition})\n")  # fmt: skip


def decide(path: Path, text: str, **changes: object) -> Result:
    return verify(load_networks({"": path}), parse_query(text), SETTINGS.model_copy(update=changes))


@pytest.mark.parametrize("seed", range(6))
def test_what_rounding_absorbs_is_a_witness_of_floats_alone(seed: int, tmp_path: Path) -> None:
    """The sum of the inputs is positive; onnxruntime says 0."""
    path, inputs, scale = absorbing(np.random.default_rng(seed), tmp_path)
    low, high = scale / inputs / 64, scale / inputs / 16
    condition = "(<= Y[0,0] 0.0)"
    over_reals = decide(path, typed("real", inputs, 1, low, high, condition))
    over_floats = decide(path, typed("float32", inputs, 1, low, high, condition))
    assert over_reals.verdict == Verdict.UNSAT
    assert over_floats.verdict == Verdict.SAT


@pytest.mark.parametrize("seed", range(3))
def test_floats_that_stay_away_from_the_condition_are_proved(seed: int, tmp_path: Path) -> None:
    """Well beyond what rounding can change it is unsat; within, where no point violates it, nothing is said."""
    path, inputs, scale = absorbing(np.random.default_rng(seed), tmp_path)
    low, high = scale / inputs / 64, scale / inputs / 16
    far = decide(path, typed("float32", inputs, 1, low, high, f"(<= Y[0,0] {-1000 * scale:.30f})"))
    near = decide(path, typed("float32", inputs, 1, low, high, f"(<= Y[0,0] {-scale / 64:.30f})"), timeout=5.0)
    loose = decide(path, typed("float32", inputs, 1, low, high, f"(<= Y[0,0] {-scale / 64:.30f})"), real_semantics=True)
    assert far.verdict == Verdict.UNSAT
    assert near.verdict == Verdict.UNKNOWN
    assert "rounding" in near.reason
    assert "--real-semantics" in near.reason
    assert loose.verdict == Verdict.UNSAT


@pytest.mark.parametrize("seed", range(4))
def test_witnesses_over_the_reals_have_a_margin_or_are_exact(seed: int, tmp_path: Path) -> None:
    path, inputs, scale = absorbing(np.random.default_rng(seed), tmp_path)
    high = 256 * scale
    result = decide(path, typed("real", inputs, 1, high / 2, high, "(>= Y[0,0] 0.0)"))
    assert result.verdict == Verdict.SAT


def test_exact_touching_is_a_witness_over_the_reals(tmp_path: Path) -> None:
    """relu(x) <= 0 holds for x <= 0 exactly, whatever an error bound says."""
    builder = NetworkBuilder(np.random.default_rng(0), (1, 1))
    path = save(builder.model(builder.op("Relu", "x"), 1), tmp_path)
    assert decide(path, typed("real", 1, 1, -1.0, 0.0, "(<= Y[0,0] 0.0)")).verdict == Verdict.SAT
    assert decide(path, typed("real", 1, 1, -1.0, 0.0, "(< Y[0,0] 0.0)")).verdict != Verdict.SAT


def test_smooth_networks_have_witnesses_over_the_reals(tmp_path: Path) -> None:
    builder = NetworkBuilder(np.random.default_rng(0), (1, 2))
    path = save(builder.model(builder.op("Sigmoid", builder.dense("x", 2, 2)), 2), tmp_path)
    assert decide(path, typed("real", 2, 2, -1.0, 1.0, "(>= Y[0,0] 0.0)")).verdict == Verdict.SAT


def test_files_of_version_1_keep_the_rule_of_vnncomp(tmp_path: Path) -> None:
    path, inputs, scale = absorbing(np.random.default_rng(1), tmp_path)
    names = [f"X_{i}" for i in range(inputs)]
    text = "".join(f"(declare-const {name} Real)" for name in [*names, "Y_0"])
    text += "".join(f"(assert (>= {n} {scale / inputs / 64:.40f}))(assert (<= {n} {scale / inputs / 16:.40f}))"
                    for n in names)  # fmt: skip
    assert decide(path, text + "(assert (<= Y_0 0.0))").verdict == Verdict.SAT


def fractions(model: onnx.ModelProto, point: np.ndarray) -> list[Fraction]:
    """A fully connected network of Gemm or MatMul and Add, and Relu, by rational numbers."""
    arrays = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    values = {"x": [Fraction(float(v)) for v in point]}
    for node in model.graph.node:
        own = values.get(node.input[0], [])
        if node.op_type == "Relu":
            values[node.output[0]] = [max(v, Fraction(0)) for v in own]
        elif node.op_type == "Add":
            values[node.output[0]] = [v + Fraction(float(b)) for v, b in zip(own, arrays[node.input[1]], strict=True)]
        else:
            matrix = arrays[node.input[1]].T if node.op_type == "MatMul" else arrays[node.input[1]]
            bias = arrays[node.input[2]] if len(node.input) > 2 else np.zeros(len(matrix))
            values[node.output[0]] = [
                sum((Fraction(float(w)) * v for w, v in zip(row, own, strict=True)), Fraction(float(b)))
                for row, b in zip(matrix, bias, strict=True)
            ]
    return values[model.graph.output[0].name]


def test_small_networks_are_computed_exactly(tmp_path: Path) -> None:
    for seed in range(12):
        model = random_network("mlp", seed)
        loaded, (inputs, _) = load_model(save(model, tmp_path)), sizes(model)
        point = np.random.default_rng(seed).normal(size=inputs).astype(np.float32).astype(np.float64)
        (found,) = run_exactly(loaded, [point], [info.name for info in loaded.outputs])
        exact = [Fraction(top, 1 << found.exponent) for top in found.integers.reshape(-1).tolist()]
        assert exact == fractions(model, point)


@pytest.mark.parametrize("name", ["mlp", "residual", "convolutional", "pooled", "kinks"])
def test_networks_err_by_less_than_the_bound(name: str, tmp_path: Path) -> None:
    """Of onnxruntime, at points of a box, against double precision; and the bound is no more than needs be."""
    for seed in range(3):
        model = random_network(name, seed)
        inputs, outputs = sizes(model)
        text = "".join(f"(declare-const X_{i} Real)" for i in range(inputs))
        text += "".join(f"(declare-const Y_{i} Real)" for i in range(outputs))
        text += "".join(f"(assert (>= X_{i} -1.0))(assert (<= X_{i} 1.0))" for i in range(inputs))
        posed = load_query(load_networks({"": save(model, tmp_path)}), parse_query(text + "(assert (<= Y_0 0.0))"))
        check_plain(network.model for network in posed.networks.values())
        networks = posed.imported()
        samples = posed.original.sample(np.array([0]), 200)
        graph = networks.graph(posed.cases.lower[0])
        box = torch.as_tensor(posed.cases.lower[0]), torch.as_tensor(posed.cases.upper[0])
        bound = rounding_error(graph, *box, 2.0**-24).numpy()
        exact = torch.stack([networks.graph(point).double()(torch.as_tensor(point)) for point in samples.points[:40]])
        off = np.abs(networks.features(samples)[:40] - exact.numpy())
        assert (off <= bound).all()
        assert bound.max() < 1e-2


def test_a_formula_is_certain_only_within_its_errors() -> None:
    query = parse_query(typed("real", 1, 1, -1.0, 1.0, "(<= Y[0,0] 0.5)"))
    assert certainly(query, np.array([0.0, 0.4]), np.array([0.0, 0.05])) == (True, False)
    assert certainly(query, np.array([0.0, 0.4]), np.array([0.0, 0.2])) == (False, False)
    assert certainly(query, np.array([0.0, 0.8]), np.array([0.0, 0.2])) == (False, True)
    assert certainly(query, np.array([0.0, 0.5]), np.array([0.0, 0.0])) == (True, False)
    assert certainly(query, np.array([0.0, 0.5]), np.array([0.0, np.inf])) == (False, False)


def test_check_witness_follows_the_declared_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, inputs, scale = absorbing(np.random.default_rng(1), tmp_path)
    low, high = scale / inputs / 64, scale / inputs / 16
    for dtype, expected in (("float32", "correct"), ("real", "spec_not_violated")):
        spec, witness = tmp_path / f"{dtype}.vnnlib", tmp_path / f"{dtype}.txt"
        spec.write_text(typed(dtype, inputs, 1, low, high, "(<= Y[0,0] 0.0)"))
        value = np.format_float_positional(np.float32((low + high) / 2).astype(np.float64), trim="0")
        numbers = "\n".join([value] * inputs)
        witness.write_text(f"X {dtype} [1,{inputs}]\n{numbers}\nY {dtype} [1,1]\n0.0\n")
        code = run(["check-witness", str(path), str(spec), str(witness)])
        assert capsys.readouterr().out.splitlines()[0] == expected
        assert (code == 0) is (expected == "correct")
